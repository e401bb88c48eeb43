"""The page at ``/``: record or drop a file, see words; static files and code to copy."""
