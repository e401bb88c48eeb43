from data.ids import speaker_pseudonym, utterance_id

PCM = bytes(range(64))


def test_the_published_id_never_changes() -> None:
    """Caches and shards on every machine hang on this value."""
    assert utterance_id(PCM, 16_000, 1) == "85b892e0cbfadac203184f8578235e78"


def test_samples_rate_and_channels_name_a_recording() -> None:
    first = utterance_id(PCM, 16_000, 1)
    others = {
        utterance_id(PCM[:-1], 16_000, 1),
        utterance_id(PCM, 8_000, 1),
        utterance_id(PCM, 16_000, 2),
        utterance_id(PCM, 16_000, 1, key=b"tenant"),
    }
    assert len(first) == 32 and first not in others and len(others) == 4


def test_pseudonyms_hide_names_and_keep_people_apart() -> None:
    anna = speaker_pseudonym("corpus", "anna")
    assert anna.startswith("spk_") and len(anna) == 16 and "anna" not in anna
    assert anna == speaker_pseudonym("corpus", "anna")
    assert anna != speaker_pseudonym("corpus", "bert")
    assert anna != speaker_pseudonym("other", "anna")


def test_nobody_stays_nobody() -> None:
    assert speaker_pseudonym("corpus", "") == ""
