"""Pretrained models of others, served under their own names: whisper, through faster-whisper."""
