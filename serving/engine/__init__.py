"""The model on this machine: graphs, batches, and the caches of live streams."""
