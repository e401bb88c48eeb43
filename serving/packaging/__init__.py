"""The service as a bento, and how it is started."""
