"""Feast definitions; see `definitions`. Imported by Feast only."""
