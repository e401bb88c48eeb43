"""Live streams: any cut of the bytes, any rate, endpoints, Finalize; and stream against file."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.decode import DecoderConfig
from features.priors import Prior, PriorKey, write_view
from serving.engine.slab import SlabFull
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.settings import ServeSettings
from serving.streaming.pcm import PcmSource
from serving.streaming.streams import StreamEvent, StreamRequest
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import pcm16, wav


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> AuricleRecognizer:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return load_recognizer(ServeSettings(bundle_dir=folder, max_streams=4))


def run(
    recognizer: AuricleRecognizer, pcm: bytes, cuts: list[int], request: StreamRequest
) -> list[StreamEvent]:
    stream = recognizer.open_stream(request)
    events: list[StreamEvent] = []
    at = 0
    for size in cuts:
        events += stream.accept(pcm[at : at + size])
        at += size
    return [*events, *stream.accept(pcm[at:]), *stream.finalize()]


SPEECH = np.concatenate([babble(3.3), hush(1.4), babble(2.1, seed=9), hush(0.5)])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(0, 30_001), max_size=40),
    rate_hz=st.sampled_from([16_000, 8_000, 44_100]),
)
def test_every_cut_of_the_bytes_gives_the_same_events(
    recognizer: AuricleRecognizer, cuts: list[int], rate_hz: int
) -> None:
    request = StreamRequest(rate_hz=rate_hz)
    pcm = pcm16(SPEECH).tobytes()
    whole = run(recognizer, pcm, [], request)
    assert run(recognizer, pcm, cuts, request) == whole
    assert any(event.text for event in whole)


def test_a_stream_says_what_the_file_says(recognizer: AuricleRecognizer) -> None:
    events = run(recognizer, pcm16(SPEECH).tobytes(), [777] * 50, StreamRequest())
    (answer,) = recognizer.recognize([AudioRequest(content=wav(SPEECH))])
    assert answer.transcript is not None
    words = [word for event in events if event.is_final for word in event.words]
    assert [word.word for word in words] == [word.word for word in answer.transcript.words]
    assert [word.start for word in words] == [word.start for word in answer.transcript.words]
    assert len(words) > 3


def test_a_pause_ends_an_utterance_and_finals_follow_each_other(
    recognizer: AuricleRecognizer,
) -> None:
    events = run(recognizer, pcm16(SPEECH).tobytes(), [], StreamRequest())
    finals = [event for event in events if event.is_final]
    assert len([event for event in finals if event.text]) == 2
    assert finals[0].speech_final
    assert 3.3 < finals[0].end_s < 4.9
    for before, after in itertools.pairwise(finals):
        assert after.start_s == before.end_s
    assert finals[1].words[0].start > 4.4
    off = run(recognizer, pcm16(SPEECH).tobytes(), [], StreamRequest(endpointing_ms=None))
    assert len([event for event in off if event.is_final]) == 1


def test_finalize_makes_the_past_final_and_the_rest_decodes_as_if_new(
    recognizer: AuricleRecognizer,
) -> None:
    first, second = pcm16(babble(2.7)).tobytes(), pcm16(babble(2.2, seed=4)).tobytes()
    live = recognizer.open_live(StreamRequest(interim=False))
    engine = recognizer.engine

    def full_chunks() -> list[StreamEvent]:
        events = []
        while (chunk := live.take()) is not None:
            events += live.absorb(engine.step([chunk])[0])
        return events

    live.feed(first)
    full_chunks()
    live.flush(last=False)
    full_chunks()
    if (chunk := live.tail()) is not None:
        live.absorb(engine.step([chunk])[0])
    middle = live.conclude(from_finalize=True)
    assert middle.from_finalize and middle.is_final and middle.text
    assert engine.slab.processed_B[live.row] == 0
    live.feed(second)
    full_chunks()
    live.flush(last=True)
    full_chunks()
    if (chunk := live.tail()) is not None:
        live.absorb(engine.step([chunk])[0])
    last = live.conclude(from_finalize=False)
    live.release()
    assert last.words[0].start >= 2.6
    assert live.duration_s == pytest.approx(4.9)
    transcript = recognizer.stream_transcript(live)
    assert transcript.text == f"{middle.text} {last.text}"
    assert transcript.duration_s == 4.9


def test_rows_are_given_back_clean_and_bounded(recognizer: AuricleRecognizer) -> None:
    slab = recognizer.engine.slab
    lives = [recognizer.open_live(StreamRequest()) for _ in range(4)]
    with pytest.raises(SlabFull):
        recognizer.open_live(StreamRequest())
    lives[2].feed(pcm16(babble(1.0)).tobytes())
    chunk = lives[2].take()
    assert chunk is not None
    recognizer.engine.step([chunk])
    assert slab.attn_LBTD[:, lives[2].row].any()
    for live in lives:
        live.release()
    assert slab.in_use == 0
    assert not slab.attn_LBTD.any() and not slab.conv_LBDK.any()


def test_streams_side_by_side_do_not_hear_each_other(recognizer: AuricleRecognizer) -> None:
    sounds = [pcm16(babble(2.6, seed=seed)).tobytes() for seed in (1, 2, 3)]
    alone = []
    for sound in sounds:
        alone.append([e.text for e in run(recognizer, sound, [], StreamRequest()) if e.is_final])
    lives = [recognizer.open_live(StreamRequest(interim=False)) for _ in sounds]
    for live, sound in zip(lives, sounds, strict=True):
        live.feed(sound)
        live.flush(last=True)
    texts: list[list[str]] = [[] for _ in lives]
    while any(chunks := [live.take() for live in lives]):
        ready = [index for index, chunk in enumerate(chunks) if chunk is not None]
        answers = recognizer.engine.step([chunk for chunk in chunks if chunk is not None])
        for index, logp in zip(ready, answers, strict=True):
            texts[index] += [e.text for e in lives[index].absorb(logp) if e.is_final]
    for index, live in enumerate(lives):
        if (chunk := live.tail()) is not None:
            live.absorb(recognizer.engine.step([chunk])[0])
        texts[index].append(live.conclude(from_finalize=False).text)
        live.release()
    assert texts == alone


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_of_any_rate_lasts_as_long_at_16k(rate_hz: int, channels: int) -> None:
    time_T = np.arange(2 * rate_hz) / rate_hz
    tone_T = (0.3 * np.sin(2 * np.pi * 440 * time_T)).astype(np.float32)
    pcm = np.repeat(pcm16(tone_T)[:, None], channels, axis=1).tobytes()
    source = PcmSource(rate_hz=rate_hz, channels=channels)
    heard_T = np.concatenate([source.feed(pcm[:5001]), source.feed(pcm[5001:]), source.finish()])
    assert source.duration_s == 2.0
    assert abs(len(heard_T) - 32_000) <= 16
    middle_T = heard_T[8_000:24_000]
    expected_T = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8_000, 24_000) / 16_000)
    assert np.abs(middle_T - expected_T).max() < 0.01


def test_half_a_sample_at_the_end_is_dropped() -> None:
    source = PcmSource(rate_hz=16_000, channels=1)
    heard = [source.feed(b"\x00\x40\x00"), source.finish()]
    assert np.concatenate(heard).tolist() == [0.5]
    assert source.frames_in == 1


def test_a_known_speaker_starts_warm_and_the_transcript_says_so(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    cold = load_recognizer(ServeSettings(bundle_dir=folder))
    prior = Prior(mean_F=np.full(80, 12.0, np.float32), frames=4000)
    key = PriorKey(
        tenant="default",
        speaker="p-1",
        channel="wide",
        fingerprint=cold.config.feature_fingerprint,
    )
    write_view(tmp_path / "priors.sqlite", [(key, prior.to_bytes())])
    warm = load_recognizer(
        ServeSettings(
            bundle_dir=folder, priors_path=tmp_path / "priors.sqlite", prior_deadline_ms=5_000
        )
    )
    sound = wav(babble(2.0))
    known, unknown, nobody = (
        warm.recognize([AudioRequest(content=sound, speaker=speaker)])[0].transcript
        for speaker in ("p-1", "p-2", None)
    )
    assert known and unknown and nobody
    assert known.normalisation.state == "warm"
    assert known.normalisation.prior_digest == prior.digest
    assert unknown.normalisation.state == "cold" and nobody.normalisation.prior_digest is None
    assert known.text != unknown.text == nobody.text
    live = warm.open_live(StreamRequest(speaker="p-1"))
    assert warm.stream_transcript(live).normalisation.state == "warm"
    narrow = warm.open_live(StreamRequest(speaker="p-1", rate_hz=8_000))
    assert warm.stream_transcript(narrow).normalisation.state == "cold"


def test_a_beam_decoder_streams_as_well(tmp_path: Path) -> None:
    decoder = DecoderConfig(kind="beam", beam=4, alpha=0.0)
    folder = make_bundle(tmp_path / "tiny", decoder=decoder)
    recognizer = load_recognizer(ServeSettings(bundle_dir=folder))
    pcm = pcm16(babble(2.5)).tobytes()
    assert run(recognizer, pcm, [999] * 20, StreamRequest()) == run(
        recognizer, pcm, [], StreamRequest()
    )
