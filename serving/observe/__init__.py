"""Seeing the service: what every answer was, traces, objectives, and the rules that watch them."""
