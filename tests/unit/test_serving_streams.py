"""Live streams: any cut of the bytes, any rate, endpoints, Finalize; and stream against file."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.decode import DecoderConfig
from features.fbank import log_mel, num_frames
from features.norm import normalise
from features.priors import Prior, PriorKey, write_view
from serving.engine.slab import SlabFull
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.settings import ServeSettings
from serving.streaming.resume import Place
from serving.streaming.segment import Segment, SegmentStart, first_start
from serving.streaming.sources import RawSource
from serving.streaming.streams import Event, LiveStream, Progress, StreamEvent, StreamRequest
from serving.streaming.transcripts import stream_transcript
from tests.support_bundle import babble, hush, make_bundle
from tests.support_service import encoded, pcm16, wav


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


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


def step(recognizer: AuricleRecognizer, live: LiveStream, progress: Progress) -> list[Any]:
    """Run a stream's chunks until it waits for audio."""
    events = list(progress.events)
    while progress.chunks:
        progress = live.absorb(recognizer.engine.step(progress.chunks))
        events += progress.events
    return events


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(3_000, 40_000),
    rate_hz=st.sampled_from([16_000, 8_000, 11_025]),
    channels=st.sampled_from([1, 2]),
)
def test_every_final_is_a_place_to_begin_anew(
    recognizer: AuricleRecognizer, size: int, rate_hz: int, channels: int
) -> None:
    """Another process, given only what a final result says and the audio from there, says the rest."""
    request = StreamRequest(
        rate_hz=rate_hz, channels=channels, multichannel=True, endpointing_ms=120,
        utterance_end_ms=1_000,
    )  # fmt: skip
    sides = [SPEECH, np.roll(SPEECH, 9_000)][:channels]
    pcm = np.stack([pcm16(side) for side in sides], axis=1).tobytes()
    whole = _told(recognizer, request, pcm, size, None)
    finals = [event for event in whole if isinstance(event, StreamEvent) and event.is_final]
    assert len(finals) > 2 * channels
    live = recognizer.open_live(request)
    live.release()
    begins = list(live.begins)
    for at, event in enumerate(whole):
        if event not in finals[:-channels]:  # the end itself is no place
            continue
        assert isinstance(event, StreamEvent) and event.resume is not None
        begins[event.channel] = event.resume
        if finals.index(event) % 2:
            continue
        place = Place(seq=at, begins=tuple(begins)).to_text()
        shown = Place.from_text(place, channels=channels, mel_bins=80).begins
        rest = _told(recognizer, request, pcm, size, shown)
        assert _of(rest, event.channel) == _of(whole[at + 1 :], event.channel)
        for channel in range(channels):  # partials of the others were told in part before
            assert _finals(rest, channel) == _finals(whole[at + 1 :], channel)


def _told(
    recognizer: AuricleRecognizer,
    request: StreamRequest,
    pcm: bytes,
    size: int,
    begins: tuple[SegmentStart, ...] | None,
) -> list[Event]:
    live = recognizer.open_live(request, begins)
    events: list[Event] = []
    for at in range(live.bytes_heard, len(pcm), size):
        events += step(recognizer, live, live.hear(pcm[at : at + size]))
    events += step(recognizer, live, live.conclude("close"))
    live.release()
    return events


def _finals(events: list[Event], channel: int) -> list[Event]:
    return [one for one in _of(events, channel) if isinstance(one, StreamEvent) and one.is_final]


def _of(events: list[Event], channel: int) -> list[Event]:
    return [event for event in events if event.channel == channel]


def test_finalize_makes_the_past_final_and_the_stream_goes_on(
    recognizer: AuricleRecognizer,
) -> None:
    first, second = pcm16(babble(2.7)).tobytes(), pcm16(babble(2.2, seed=4)).tobytes()
    live = recognizer.open_live(StreamRequest(interim=False))
    assert step(recognizer, live, live.hear(first)) == []
    (middle,) = step(recognizer, live, live.conclude("finalize"))
    assert middle.from_finalize and middle.is_final and middle.text
    assert 2.6 < middle.end_s <= 2.7
    assert recognizer.engine.slab.processed_B[live.rows[0]] == 0
    (again,) = step(recognizer, live, live.conclude("finalize"))
    assert again.from_finalize and not again.text and again.end_s >= middle.end_s
    assert step(recognizer, live, live.hear(second)) == []
    (last,) = step(recognizer, live, live.conclude("close"))
    live.release()
    assert last.start_s == again.end_s and last.words[0].start >= 2.6
    assert live.duration_s == pytest.approx(4.9)
    transcript = stream_transcript(live)
    assert transcript.text == f"{middle.text} {last.text}"
    assert transcript.duration_s == 4.9


def test_rows_are_given_back_clean_and_bounded(recognizer: AuricleRecognizer) -> None:
    slab = recognizer.engine.slab
    lives = [recognizer.open_live(StreamRequest()) for _ in range(4)]
    with pytest.raises(SlabFull):
        recognizer.open_live(StreamRequest())
    progress = lives[2].hear(pcm16(babble(1.0)).tobytes())
    recognizer.engine.step(progress.chunks)
    assert slab.attn_LBTD[:, lives[2].rows[0]].any()
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
    texts: list[list[str]] = [[] for _ in lives]
    waiting = [live.hear(sound) for live, sound in zip(lives, sounds, strict=True)]
    for ending in (False, True):
        if ending:
            waiting = [live.conclude("close") for live in lives]
        _side_by_side(recognizer, lives, waiting, texts)
    for live in lives:
        live.release()
    assert texts == alone


def _side_by_side(
    recognizer: AuricleRecognizer,
    lives: list[LiveStream],
    waiting: list[Progress],
    texts: list[list[str]],
) -> None:
    for index, progress in enumerate(waiting):
        texts[index] += [event.text for event in progress.events if isinstance(event, StreamEvent)]
    while any(progress.chunks for progress in waiting):
        chunks = [chunk for progress in waiting for chunk in progress.chunks]
        answers = iter(recognizer.engine.step(chunks))
        for index, live in enumerate(lives):
            count = len(waiting[index].chunks)
            waiting[index] = (
                live.absorb(list(itertools.islice(answers, count)))
                if count
                else Progress(events=[], chunks=[])
            )
            texts[index] += [e.text for e in waiting[index].events if isinstance(e, StreamEvent)]


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 48_000, 96_000])
@pytest.mark.parametrize("encoding", ["linear16", "mulaw", "alaw"])
def test_every_rate_and_encoding_is_heard_alike(
    recognizer: AuricleRecognizer, rate_hz: int, encoding: str
) -> None:
    """The features of a tone are those of the tone at 16 kHz."""
    spec = recognizer.config.feature_spec
    time_T = np.arange(2 * rate_hz) / rate_hz
    tone_T = (0.3 * np.sin(2 * np.pi * 440 * time_T)).astype(np.float32)
    source = RawSource(encoding, rate_hz=rate_hz, channels=1)
    content = encoded(tone_T, encoding)
    heard_TC = np.concatenate([source.feed(content[:5001]), source.feed(content[5001:])])
    assert np.abs(heard_TC[:, 0] - tone_T).max() < (1e-4 if encoding == "linear16" else 0.01)
    live = recognizer.open_live(StreamRequest())
    live.release()
    prior = live.parts.start
    segment = Segment(first_start(prior), spec, prior, rate_hz=rate_hz)
    whole = len(heard_TC) // segment.block * segment.block
    segment.feed(heard_TC[:whole, 0])
    segment.finish(heard_TC[whole:, 0])
    assert abs(len(segment.pending_TF) - num_frames(32_000, spec)) <= 1
    plain_T = (0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.float32)
    plain_TF = normalise(log_mel(plain_T, spec), prior.mean_F, prior.std_F, prior.prior_frames)
    loudest = int(log_mel(plain_T, spec)[100].argmax())
    near = slice(loudest - 1, loudest + 2)
    assert np.abs(segment.pending_TF[100, near] - plain_TF[100, near]).max() < 0.1


def test_half_a_sample_at_the_end_is_dropped() -> None:
    source = RawSource("linear16", rate_hz=16_000, channels=1)
    heard = [source.feed(b"\x00\x40\x00"), source.finish()]
    assert np.concatenate(heard).tolist() == [[0.5]]


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
    assert stream_transcript(live).normalisation.state == "warm"
    narrow = warm.open_live(StreamRequest(speaker="p-1", rate_hz=8_000))
    assert stream_transcript(narrow).normalisation.state == "cold"


def test_a_beam_decoder_streams_as_well(tmp_path: Path) -> None:
    decoder = DecoderConfig(kind="beam", beam=4, alpha=0.0)
    folder = make_bundle(tmp_path / "tiny", decoder=decoder)
    recognizer = load_recognizer(ServeSettings(bundle_dir=folder))
    pcm = pcm16(babble(2.5)).tobytes()
    assert run(recognizer, pcm, [999] * 20, StreamRequest()) == run(
        recognizer, pcm, [], StreamRequest()
    )
