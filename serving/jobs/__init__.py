"""Transcriptions that outlive their request: a durable store, a queue in it, and the worker."""
