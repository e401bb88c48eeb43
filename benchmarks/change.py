"""What a change costs: 1 % new audio, nothing, a comment, a statement.

    python -m benchmarks.change [--keep FOLDER] [--repeats 3]

A whole pipeline runs once in a clean workspace on a small built-in corpus with a tiny model; then
each change is made the way a user makes it, and what ran is read from ``auricle run``.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import Page, holds, median_interval, parser, show, table
from benchmarks._workspace import Workspace, workspace
from data.synth import SynthConfig, synthesise
from pipelines.code import closures

_TRAIN, _HELD_OUT, _NEW = 160, 20, 2  # recordings; the new ones are 1 %
_SPEEDS = [0.9, 1.0, 1.1]
_SMALL: dict[str, dict[str, Any]] = {
    "synth": {
        "train_utterances": _TRAIN,
        "dev_utterances": _HELD_OUT,
        "test_utterances": _HELD_OUT,
    },
    "featurize": {"speeds": _SPEEDS, "workers": 1},
    "train": {
        "model": {"d_model": 32, "layers": 2, "heads": 2, "middle_layer": 0},
        "augment": {"speeds": _SPEEDS},
        "steps": 30,
        "warmup_steps": 5,
        "batch_utterances": 4,
        "threads": 1,
    },
    "quantize": {"calibration_streams": 8},
    "benchmark": {"audio_seconds": 10.0, "repetitions": 3},
    "package": {"gpu": False},
}
# One module of each room; every stage that imports it must come up, and no other.
_MODULES = (
    "governance/cards.py",
    "data/synth.py",
    "data/text.py",
    "features/beam.py",
    "training/tuning.py",
    "serving/front/front_end.py",
    "pipelines/_champion.py",
)
_COMMENTED, _REALLY_RUN = "data/scoring.py", "governance/cards.py"


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("--keep", type=Path, help="keep the workspace here, and use it again")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args(argv)
    page = Page(name="change", title="What a change costs", arguments=argv)
    with workspace("change", _SMALL, keep=given.keep) as space:
        began_s = time.monotonic()
        space.run()
        page.notes.append(f"the whole pipeline once: {time.monotonic() - began_s:.0f} s")
        _nothing(page, space, given.repeats)
        _comment(page, space)
        _statements(page, space)
        _really_run(page, space)
        _new_audio(page, space)
    return page.write(given.out)


def _worked(space: Workspace) -> set[str]:
    """Stages that ``auricle run`` executed, without the one that always looks at the code."""
    return set(space.run()["ran"]) - {"code"}


def _nothing(page: Page, space: Workspace, repeats: int) -> None:
    seconds, ran = [], set[str]()
    for _ in range(repeats):
        began_s = time.perf_counter()
        ran |= _worked(space)
        seconds.append(time.perf_counter() - began_s)
    page.bars.append(holds("nothing changed: stages run", "none", _names(ran), not ran))
    page.notes.append(f"auricle run with nothing changed: {show(median_interval(seconds), 's')}")


def _comment(page: Page, space: Workspace) -> None:
    file = space.root / _COMMENTED
    before = file.read_text()
    file.write_text(f"# a comment\n{before}")
    ran = _worked(space)
    file.write_text(before)
    what = f"a comment in {_COMMENTED}: stages run"
    page.bars.append(holds(what, "none", _names(ran), not ran))


def _statements(page: Page, space: Workspace) -> None:
    """Which stages DVC calls changed after a statement, for a module of every room."""
    rows, right = [], 0
    for module in _MODULES:
        file = space.root / module
        before = file.read_text()
        file.write_text(f"{before}\nADDED_BY_A_PROOF = 1\n")
        found = _changed(space)
        file.write_text(before)
        wanted = _importers(module)
        right += found == wanted
        rows.append((module, _names(found), "yes" if found == wanted else f"NO: {_names(wanted)}"))
    _changed(space)  # the code's digests as they were
    page.sections.append(
        ("A statement is added", table(("module", "stages to rerun", "its importers?"), rows))
    )
    page.bars.append(
        holds(
            "a statement: exactly the importing stages rerun",
            f"{len(_MODULES)} of {len(_MODULES)} modules",
            str(right),
            right == len(_MODULES),
        )
    )


def _changed(space: Workspace) -> set[str]:
    """Stages whose statements differ from those of their last run."""
    space.python("-m", "pipelines.code")
    answer = json.loads(space.python("-m", "dvc", "status", "--json").splitlines()[-1])
    return {
        stage
        for stage, reasons in answer.items()
        for reason in reasons
        if isinstance(reason, dict)
        and any(name == f"data/code/{stage}.json" for name in reason.get("changed deps", {}))
    }


def _importers(module: str) -> set[str]:
    dotted = module.removesuffix(".py").replace("/", ".")
    return {stage for stage, modules in closures().items() if dotted in modules}


def _really_run(page: Page, space: Workspace) -> None:
    file = space.root / _REALLY_RUN
    before = file.read_text()
    file.write_text(f"{before}\nADDED_BY_A_PROOF = 1\n")
    ran, wanted = _worked(space), _importers(_REALLY_RUN)
    what = f"a statement in {_REALLY_RUN}: stages run"
    page.bars.append(holds(what, _names(wanted), _names(ran), ran == wanted))
    file.write_text(before)


def _new_audio(page: Page, space: Workspace) -> None:
    """1 % new recordings by another seed, added as a corpus of their own."""
    with tempfile.TemporaryDirectory(prefix="auricle-more-") as folder:
        source = Path(folder) / "more"
        synthesise(
            source,
            SynthConfig(train_utterances=_NEW, dev_utterances=0, test_utterances=0, seed=99),
        )
        space.auricle("corpus", "add", str(source), "--name", "more")
    space.set_params({"ingest": {"corpora": ["builtin", "more"]}})
    before = space.record("featurize").figures
    began_s = time.monotonic()
    space.run("featurize")
    seconds = time.monotonic() - began_s
    after = space.record("featurize").figures
    wanted = _NEW * len(_SPEEDS)
    share = f"{after['computed']} of {after['computed'] + after['reused']} (recording, speed) pairs"
    page.bars.append(
        holds(
            "1 % new audio: features computed",
            f"{wanted} pairs",
            share,
            after["computed"] == wanted,
        )
    )
    page.notes.append(
        f"1 % new audio: {seconds:.0f} s from ingest to features, {before['computed']} pairs were "
        "computed at first"
    )


def _names(stages: set[str]) -> str:
    return ", ".join(sorted(stages)) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
