"""Voice activity: prompt, the same for every cut, and at home in any room."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.fbank import log_mel
from features.spec import FeatureSpec
from features.voice import VoiceActivity, VoiceState
from tests.support_bundle import babble, hush

SPEC = FeatureSpec()
TYPICAL = float(log_mel(babble(20.0, seed=1), SPEC).mean())
SOUND = np.concatenate([hush(1.0), babble(2.0), hush(1.5), babble(1.0, seed=5), hush(0.5)])
FRAMES_TF = log_mel(SOUND, SPEC)


def listen(x_TF: NDArray[np.float32], state: VoiceState | None = None) -> VoiceActivity:
    activity = VoiceActivity(TYPICAL, hop_ms=10, state=state)
    activity.accept(x_TF)
    return activity


@given(cuts=st.lists(st.integers(0, len(FRAMES_TF)), max_size=12))
def test_the_cut_of_the_frames_changes_nothing(cuts: list[int]) -> None:
    whole_T, onsets = VoiceActivity(TYPICAL, hop_ms=10).accept(FRAMES_TF)
    activity = VoiceActivity(TYPICAL, hop_ms=10)
    parts, found = [], []
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(FRAMES_TF)]):
        voiced_T, starts = activity.accept(FRAMES_TF[begin:end])
        parts.append(voiced_T)
        found += [begin + start for start in starts]
    assert np.concatenate(parts).tolist() == whole_T.tolist()
    assert tuple(found) == onsets


def test_a_voice_is_heard_where_it_is_and_a_pause_where_it_is_none() -> None:
    voiced_T, onsets = VoiceActivity(TYPICAL, hop_ms=10).accept(FRAMES_TF)
    assert not voiced_T[:95].any() and not voiced_T[310:445].any()
    assert voiced_T[100:300].mean() > 0.3 and voiced_T[450:550].mean() > 0.3
    assert onsets[0] < 170 and any(445 <= onset < 520 for onset in onsets)


def test_a_state_can_be_taken_up_elsewhere() -> None:
    half = len(FRAMES_TF) // 2
    resumed = VoiceActivity(TYPICAL, hop_ms=10, state=listen(FRAMES_TF[:half]).state)
    straight = listen(FRAMES_TF[:half])
    assert resumed.accept(FRAMES_TF[half:])[1] == straight.accept(FRAMES_TF[half:])[1]
    assert resumed.state == straight.state


def test_the_level_of_the_microphone_does_not_matter() -> None:
    loud_T, _ = VoiceActivity(TYPICAL, hop_ms=10).accept(FRAMES_TF)
    for gain in (0.25, 3.0):
        sound = (gain * SOUND).astype(np.float32)
        voiced_T, _ = VoiceActivity(TYPICAL, hop_ms=10).accept(log_mel(sound, SPEC))
        assert (voiced_T != loud_T).mean() < 0.05


def test_a_room_that_grows_louder_is_a_room_again_after_a_while() -> None:
    room_TF = log_mel(np.concatenate([hush(2.0), 20 * hush(20.0, seed=4)]), SPEC)
    voiced_T, _ = VoiceActivity(TYPICAL, hop_ms=10).accept(room_TF)
    assert not voiced_T[:195].any()
    assert not voiced_T[-300:].any()


def test_a_click_is_no_voice() -> None:
    sound = hush(2.0)
    sound[16_000:16_400] += babble(0.025)
    sound[16_000:16_400] += 0.3
    _, onsets = VoiceActivity(TYPICAL, hop_ms=10).accept(log_mel(sound, SPEC))
    assert onsets == ()
