"""Audio that says itself what it is, cut anywhere: Opus in Ogg and in WebM, and WAV."""

import io

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data.audio_errors import UndecodableAudio
from serving.streaming.containers import ContainerSource
from tests.support_bundle import babble, hush
from tests.support_service import opus

SPEECH = np.concatenate([babble(1.3), hush(0.4), babble(0.8, seed=5)])
Floats = NDArray[np.float32]


def by_ffmpeg(content: bytes) -> Floats:
    """The samples [T, C] that FFmpeg makes of the whole."""
    with av.open(io.BytesIO(content)) as container:
        planes = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(planes, axis=1).T


def heard(content: bytes, cuts: list[int]) -> tuple[Floats, int]:
    source = ContainerSource()
    parts, at = [], 0
    for size in [*cuts, len(content)]:
        parts.append(source.feed(content[at : at + size]))
        at += size
    parts.append(source.finish())
    return np.concatenate([part for part in parts if len(part)]), source.rate_hz


OGG, WEBM = opus("ogg", SPEECH), opus("webm", SPEECH)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(0, 900), max_size=60), content=st.sampled_from([OGG, WEBM]))
def test_every_cut_of_a_container_gives_the_same_samples(cuts: list[int], content: bytes) -> None:
    whole_TC, _ = heard(content, [])
    cut_TC, rate_hz = heard(content, cuts)
    assert rate_hz == 48_000
    np.testing.assert_array_equal(cut_TC, whole_TC)


@pytest.mark.parametrize("kind", ["ogg", "webm"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_the_samples_are_those_of_ffmpeg(kind: str, layout: str) -> None:
    content = opus(kind, SPEECH, layout=layout)
    own_TC, _ = heard(content, [1, 3, 700])
    expected_TC = by_ffmpeg(content)
    assert own_TC.shape[1] == expected_TC.shape[1] == {"mono": 1, "stereo": 2}[layout]
    shared = min(len(own_TC), len(expected_TC))
    np.testing.assert_allclose(own_TC[:shared], expected_TC[:shared], atol=1e-5)
    # WebM says only in elements that a live stream may lack how much of the end is padding.
    assert abs(len(own_TC) - len(SPEECH) * 3) <= (0 if kind == "ogg" else 960)


def test_streams_that_follow_each_other_in_ogg_are_heard_as_one() -> None:
    both_TC, _ = heard(OGG + OGG, [77] * 100)
    one_TC, _ = heard(OGG, [])
    np.testing.assert_array_equal(both_TC, np.concatenate([one_TC, one_TC]))


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "ALAW"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_wav_is_heard_as_its_samples(subtype: str, kind: str) -> None:
    sink = io.BytesIO()
    samples_TC = np.stack([SPEECH, SPEECH[::-1]], axis=1)
    soundfile.write(sink, samples_TC, 11_025, format=kind, subtype=subtype)
    own_TC, rate_hz = heard(sink.getvalue(), [1] * 90)
    expected_TC, _ = soundfile.read(io.BytesIO(sink.getvalue()), dtype="float32")
    assert rate_hz == 11_025
    np.testing.assert_allclose(own_TC, expected_TC, atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        b"ID3\x04 an mp3",
        b"RIFF\0\0\0\0AVI LIST\0\0\0\0data",
        OGG + b"no page here",
        OGG.replace(b"OpusHead", b"\x01vorbis "),
        WEBM.replace(b"A_OPUS", b"A_AAC\0"),
        WEBM[:200] + bytes(500),
        b"\x1aE\xdf\xa3" + b"\xff" * 20,
        b"RIFF\0\0\0\0WAVE" + b"junk\xff\xff\xff\x7f" * 3,
    ],
    ids=["mp3", "avi", "broken-ogg", "vorbis", "aac", "broken-webm", "no-size", "endless-wav"],
)
def test_what_cannot_be_decoded_is_refused(content: bytes) -> None:
    with pytest.raises(UndecodableAudio):
        heard(content, [])
