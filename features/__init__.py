"""Bytes to tensors and back: front end, normalisation, tokens, decoding, feature store."""
