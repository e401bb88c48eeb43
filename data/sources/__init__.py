"""Adapters that read other people's corpus layouts."""
