"""The served model of many workers is exchanged by a folder: what is wanted, and what each serves."""
