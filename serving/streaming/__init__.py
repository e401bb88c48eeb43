"""Live streams: bytes in any cut become chunks, chunks become events."""
