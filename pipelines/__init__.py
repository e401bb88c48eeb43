"""What runs: one module per DVC stage or live operation, and the command line."""
