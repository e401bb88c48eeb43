"""From a request to a transcript: engine, streams, HTTP and WebSocket, the bento."""
