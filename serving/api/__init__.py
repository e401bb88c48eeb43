"""The doors: HTTP and WebSocket in the shapes that existing clients speak."""
