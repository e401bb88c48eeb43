"""What a proof may say: measured figures only, and growth that can be told from noise."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cold, prove
from benchmarks._growth import slope, trend
from benchmarks._report import ROOT, Page, below, not_measured


def test_a_bar_that_was_not_measured_is_neither_met_nor_missed() -> None:
    page = Page(name="cold", title="Cold starts")
    page.bars = [not_measured("the demo", 12.0, "min"), below("the help", 0.5, 0.1, "s")]
    assert page.status == 0
    text = page.text()
    assert "| the demo | at most 12 min | not measured |  |" in text
    assert "| the help | at most 0.5 s | 0.1 s | met |" in text


def test_minutes_of_the_demo_cannot_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cold.main(["--demo-minutes", "7.9"])
    assert ended.value.code == 2 and "--demo-minutes" in capsys.readouterr().err


def test_without_the_demo_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "_bentos", lambda *_: None)  # a start takes seconds, each
    cold.main(["--repeats", "1", "--out", str(tmp_path)])
    (page,) = tmp_path.glob("cold-*.md")
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| make demo")]
    assert "not measured" in row and "met" not in row


def test_the_demo_runs_in_a_clone_that_has_computed_nothing(tmp_path: Path) -> None:
    space, commit = cold.fresh_clone(tmp_path)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert commit == head.stdout.strip()
    assert (space.root / "params.yaml").is_file() and (space.root / "Makefile").is_file()
    for name in ("data/shards", "data/models", "data/state", ".dvc/cache"):
        assert not (space.root / name).exists(), name


def test_every_proof_takes_what_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = [proof for proof in prove.PROOFS if proof.full]
    assert told.name == "cold"
    with pytest.raises(SystemExit):
        cold.main(["--help"])
    assert set(told.full) <= set(capsys.readouterr().out.split())


def memory(growth_kb: float, *, seed: int = 0) -> list[tuple[float, float]]:
    """Looks at a process every ten streams, in kB, with half a megabyte of noise."""
    noise = np.random.default_rng(seed).normal(0, 0.5, 100)
    return [(10 * k, 220_000 + growth_kb * 10 * k + 1000 * noise[k]) for k in range(100)]


def test_a_plateau_is_told_from_a_leak() -> None:
    flat = [slope(memory(0.0, seed=seed)) for seed in range(40)]
    covered = sum(found.low <= 0 <= found.high for found in flat)
    assert covered >= 35, "a 95 % interval holds the truth nearly always"
    leak = slope(memory(20.0))
    assert leak.low < 20.0 < leak.high and trend(leak) == "grows"
    assert leak.high - leak.low < 2.0
    assert trend(slope(memory(-20.0))) == "shrinks"
    assert trend(flat[0]) == "cannot be told from flat"


def test_the_interval_is_the_one_of_the_textbook() -> None:
    from scipy import stats

    looks = memory(3.0)[:12]
    found = slope(looks)
    theirs = stats.theilslopes([y for _, y in looks], [x for x, _ in looks], 0.95)
    assert found.point == pytest.approx(theirs.slope)
    assert found.low <= theirs.low_slope <= theirs.high_slope <= found.high
    assert found.high - found.low < 1.5 * (theirs.high_slope - theirs.low_slope)
