"""What a recording, an utterance, a transcript and a word error are."""
