"""Operation ``bench serve``: how a running service bears people who speak and files that arrive.

Exit status: 0 measured, 2 nothing could be measured, 3 something failed or a given bound was broken.
Refusals (429, 503) are counted and are no failure: a service that says no is doing its work.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from governance.errors import AuricleError, GateRefused
from pipelines._load import Quantile, Recording, Tally, files, quantile, streams
from pipelines._service_key import service_key
from serving.client import Client

_SHARES = (0.5, 0.95, 0.99)
_BUILTIN_RECORDINGS = 32
_BUSY = 0.8  # of a core: above it the figures may be the generator's own


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle bench serve``."""
    if args.streams is None and args.rate is None:
        raise AuricleError("say what load", item="bench serve", mend="--streams N or --rate R")
    api_key = service_key(args.url)
    model = str(Client(url=args.url, api_key=api_key).models()[0]["id"])
    with tempfile.TemporaryDirectory(prefix="auricle-bench-") as folder:
        recordings = _recordings(args.files, Path(folder))
        if args.streams is not None:
            load = streams(
                args.url, recordings, count=args.streams, seconds=args.seconds, api_key=api_key
            )
        else:
            load = files(
                args.url, recordings, rate=args.rate, seconds=args.seconds, model=model,
                seed=args.seed, api_key=api_key,
            )  # fmt: skip
        tally = asyncio.run(load)
    report = summary(tally, streams=args.streams, rate=args.rate)
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _print(report)
    if not tally.answered and not tally.refused:
        raise AuricleError("nothing was answered", item=args.url, mend="`auricle doctor`")
    if broken := _broken(args, report):
        raise GateRefused("; ".join(broken), item="bench serve")
    return 0


def summary(tally: Tally, *, streams: int | None, rate: float | None) -> dict[str, Any]:
    """Every figure, by name; times in milliseconds with 95 % intervals."""
    times = {
        "latency_ms": tally.latency_s,
        "first_text_ms": tally.first_s,
        "lag_ms": tally.lag_s,
        "final_after_stop_ms": tally.closing_s,
    }
    return {
        "load": {"streams": streams} if streams is not None else {"files_per_second": rate},
        "wall_s": round(tally.wall_s, 2),
        "answered": tally.answered,
        "refused": dict(tally.refused),
        "failed": dict(tally.failed),
        "goodput_audio_s_per_s": round(tally.answered_audio_s / tally.wall_s, 2),
        "generator_cpu_share": round(tally.cpu_s / tally.wall_s, 3),
        **{name: _quantiles(values) for name, values in times.items() if values},
    }


def _quantiles(values: Sequence[float]) -> dict[str, Any]:
    found = {f"p{share * 100:g}": quantile(values, share) for share in _SHARES}
    return {"n": len(values)} | {name: asdict(one) for name, one in found.items() if one}


def _broken(args: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    broken = [f"{count} x {what}" for what, count in report["failed"].items()]
    bounds = {"latency_ms": args.latency_p95_ms, "lag_ms": args.lag_p95_ms}
    for name, bound in bounds.items():
        if bound is None:
            continue
        if name not in report:
            broken.append(f"{name} was not measured")
        elif (point := report[name]["p95"]["point"]) > bound:
            broken.append(f"{name} p95 is {point:g}, above {bound:g}")
    return broken


def _recordings(names: Sequence[str], folder: Path) -> list[Recording]:
    """The given files, or recordings of this workspace that no training saw."""
    from data.audio import load_mono_16k, to_pcm16

    sources = [Path(name) for name in names] or _held_out(folder)
    return [
        Recording(
            path=path,
            pcm=to_pcm16(load_mono_16k(path, name=path.name)[:, None]).tobytes(),
        )
        for path in sources
    ]


def _held_out(folder: Path) -> list[Path]:
    from pipelines import _paths as paths
    from pipelines.demo import held_out

    if not paths.SPLIT.exists():
        raise AuricleError(
            "no recordings to send: this workspace has made no split",
            item="bench serve",
            mend="name recordings, as in `auricle bench serve --streams 8 FILE...`",
        )
    sources = []
    for number, (_, content) in enumerate(held_out(_BUILTIN_RECORDINGS)):
        sources.append(folder / f"{number}.flac")
        sources[-1].write_bytes(content)
    return sources


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    load = ", ".join(
        f"{value:g} {name.replace('_', ' ')}" for name, value in report["load"].items()
    )
    console.print(f"{load}, {report['wall_s']:.1f} s")
    table = Table()
    for column in ("milliseconds", "n", *(f"p{share * 100:g}" for share in _SHARES)):
        table.add_column(column, justify="left" if column == "milliseconds" else "right")
    for name in (name for name in report if name.endswith("_ms")):
        shown = [_shown(report[name].get(f"p{share * 100:g}")) for share in _SHARES]
        table.add_row(name.removesuffix("_ms").replace("_", " "), str(report[name]["n"]), *shown)
    console.print(table)
    console.print(
        f"answered {report['answered']}, refused {sum(report['refused'].values())}, "
        f"failed {sum(report['failed'].values())}; "
        f"{report['goodput_audio_s_per_s']:g} s of sound answered each second"
    )
    share = report["generator_cpu_share"]
    note = ": the figures may be the generator's own limit" if share > _BUSY else ""
    console.print(f"generator: {share:.0%} of a core{note}", style="yellow" if note else "dim")


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    one = Quantile(**found)
    if one.low is None and one.high is None:
        return f"{one.point:g}"
    low, high = ("?" if end is None else f"{end:g}" for end in (one.low, one.high))
    return f"{one.point:g} ({low} to {high})"
