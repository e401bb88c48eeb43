"""Every proof, one after another, each in a process of its own.

    python -m benchmarks.prove [--short] [NAME...]

Each proof writes its page into ``benchmarks/results/<name>-<date>.md``; this program adds
``prove-<date>.md``, which says for each whether its bars were met. Exit status 1 if one missed a
bar or failed. A proof whose material is not there (such as corpora of real speech) is not run and
says so; that is no failure.
"""

import datetime
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._report import MET, MISSED, NOT_RUN, ROOT, Page, parser, table
from pipelines.processes import end_group


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A module of this folder with ``main(argv) -> int``."""

    name: str
    what: str
    short: bool  # whether ``--short`` runs it too
    full: tuple[str, ...] = ()  # what it is told without ``--short``


PROOFS = (
    Proof(name="features", what="front-end speed beside its peers", short=True),
    Proof(name="decode", what="decoding cost beside its peer", short=True),
    Proof(name="cold", what="start-up times, bento sizes, the demo", short=True, full=("--demo",)),
    Proof(name="redaction", what="personal data: recall, precision, leaks", short=True),
    Proof(name="adopted", what="an adopted Whisper beside FastAPI + faster-whisper", short=False),
    Proof(name="serve", what="the service beside its engine, at and beyond capacity", short=False),
    Proof(name="streams", what="live streams side by side, beside sherpa-onnx", short=False),
    Proof(name="alerts", what="rules and dashboards in a real Prometheus", short=False),
    Proof(name="change", what="what a change costs", short=False),
    Proof(name="swap", what="the model changed fifty times under load", short=True),
    Proof(name="fuzz", what="malformed bodies, frames and recordings", short=True),
    Proof(name="soak", what="kill storms, and a crowd that is rude in part", short=False),
    Proof(name="jobs_kill", what="jobs under SIGKILL at every commit point", short=False),
    Proof(name="silence", what="words where nobody speaks, and what it costs", short=False),
    Proof(name="barista", what="real human speech, unseen speakers", short=False),
)
_OUTCOMES = {MET: "met", MISSED: "MISSED", NOT_RUN: "not run"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a proof ended."""

    proof: Proof
    status: int
    minutes: float
    last_line: str

    @property
    def word(self) -> str:
        """Met, missed, not run or failed."""
        return _OUTCOMES.get(self.status, f"FAILED (exit status {self.status})")


def main(argv: Sequence[str] = ()) -> int:
    options = parser(__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=", ".join(p.name for p in PROOFS))
    given = options.parse_args(argv)
    if unknown := set(given.names) - {proof.name for proof in PROOFS}:
        options.error(f"no such proof: {', '.join(sorted(unknown))}")
    chosen = [
        proof
        for proof in PROOFS
        if (proof.name in given.names or not given.names) and (proof.short or not given.short)
    ]
    outcomes = [run(proof, short=given.short, out=given.out) for proof in chosen]
    page = _page(outcomes, argv)
    page.write(given.out)
    return MET if all(o.status in (MET, NOT_RUN) for o in outcomes) else MISSED


def run(proof: Proof, *, short: bool, out: Path) -> Outcome:
    """One proof; its output passes through, Ctrl-C ends it with all its children."""
    print(f"=== {proof.name}: {proof.what}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{proof.name}", "--out", str(out.resolve())]
    began_s = time.monotonic()
    process = subprocess.Popen(
        [*command, *(["--short"] if short else proof.full)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    )
    last = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            last = line.strip() or last
        status = process.wait()
    finally:
        end_group(process.pid)
    return Outcome(
        proof=proof, status=status, minutes=(time.monotonic() - began_s) / 60, last_line=last
    )


def _page(outcomes: Sequence[Outcome], argv: Sequence[str]) -> Page:
    today = datetime.date.today().isoformat()
    rows = []
    for outcome in outcomes:
        name = outcome.proof.name
        page = f"[{name}-{today}.md]({name}-{today}.md)"
        where = page if outcome.status in (MET, MISSED) else outcome.last_line
        rows.append((name, outcome.proof.what, outcome.word, f"{outcome.minutes:.1f}", where))
    body = table(("proof", "what", "bars", "minutes", "page"), rows)
    return Page(name="prove", title="All proofs", arguments=argv, sections=[("Outcomes", body)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
