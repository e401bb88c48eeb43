"""What leaves the service on its own: webhooks, and the fetching of audio by URL."""
