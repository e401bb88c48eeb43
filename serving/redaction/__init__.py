"""Personal data out of transcripts: what is said and what is written, in partials and in finals."""
