import dataclasses
import json
import subprocess
import sys

import pytest

from features.framing import num_frames, samples_needed
from features.spec import FeatureSpec, FeatureSpecMismatch, require_same
from governance.errors import ConfigError


def test_fingerprint_is_pinned_because_it_names_stored_features() -> None:
    assert FeatureSpec().fingerprint() == "fs1-d3228a5aad0e"


def test_every_field_changes_the_fingerprint() -> None:
    changed = {
        "sample_rate_hz": 20_000,
        "window_ms": 20.0,
        "hop_ms": 5.0,
        "mel_bins": 40,
        "low_hz": 60.0,
        "high_hz": 7000.0,
        "fft_size": 1024,
        "preemphasis": 0.9,
        "log_floor": 1e-6,
        "sample_scale": 1.0,
    }
    prints = {FeatureSpec().fingerprint()}
    for name, value in changed.items():
        prints.add(dataclasses.replace(FeatureSpec(), **{name: value}).fingerprint())
    assert len(prints) == len(changed) + 1


def test_whole_numbers_and_floats_are_one_spec() -> None:
    spec = FeatureSpec(window_ms=25, hop_ms=10, low_hz=20, high_hz=7600)
    assert spec == FeatureSpec()
    assert spec.fingerprint() == FeatureSpec().fingerprint()


def test_json_gives_the_same_spec_back_as_document_and_as_text() -> None:
    spec = FeatureSpec(mel_bins=40, sample_scale=1.0)
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert FeatureSpec.from_json(json.dumps(spec.to_json())) == spec


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**FeatureSpec().to_json(), "dither": 0.1}, "dither: unknown field"),
        ({k: v for k, v in FeatureSpec().to_json().items() if k != "hop_ms"}, "hop_ms: missing"),
        ({**FeatureSpec().to_json(), "mel_bins": "80"}, "mel_bins: '80' is not of type"),
        ("{", "not JSON"),
    ],
)
def test_unusable_documents_are_refused_by_name(document: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FeatureSpec.from_json(document)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"window": "hamming"},
        {"snip_edges": False},
        {"fft_size": 256},
        {"fft_size": 500},
        {"high_hz": 9000.0},
        {"hop_ms": 30.0},
        {"hop_ms": 0.03},
        {"mel_bins": 0},
        {"log_floor": 0.0},
        {"preemphasis": 1.5},
        {"mel_bins": True},
    ],
)
def test_specs_that_cannot_be_computed_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FeatureSpec(**change)  # type: ignore[arg-type]


def test_mismatch_names_each_differing_field_and_both_values() -> None:
    with pytest.raises(FeatureSpecMismatch) as caught:
        require_same(FeatureSpec(), FeatureSpec(mel_bins=40, high_hz=8000), item="bundle.json")
    text = str(caught.value)
    assert "mel_bins is 40, expected 80" in text
    assert "high_hz is 8000.0, expected 7600.0" in text
    assert "hop_ms" not in text
    assert text.startswith("bundle.json: ")
    assert "Mend: " in text


def test_equal_specs_pass() -> None:
    require_same(FeatureSpec(), FeatureSpec.from_json(FeatureSpec().to_json()))


def test_frames_are_counted_whole() -> None:
    spec = FeatureSpec()
    assert [num_frames(n, spec) for n in (0, 399, 400, 559, 560, 16_000)] == [0, 0, 1, 1, 2, 98]
    for frames in (1, 2, 98):
        assert num_frames(samples_needed(frames, spec), spec) == frames
        assert num_frames(samples_needed(frames, spec) - 1, spec) == frames - 1
    assert samples_needed(0, spec) == 0


def test_the_front_end_loads_no_heavy_library() -> None:
    code = (
        "import sys, features.fbank, features.norm, features.priors\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'feast', 'scipy', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
