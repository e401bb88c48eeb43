"""Operation ``demo``: the main job once round, then real requests to the service that it made."""

import argparse
import math
import os
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.audio import load_mono_16k, to_pcm16
from data.manifest import Utterance, read_manifest
from data.shards import read_member
from data.units import SAMPLE_RATE_HZ
from governance.errors import AuricleError
from governance.records import read_record
from pipelines import _paths as paths
from pipelines._service_key import service_key
from pipelines.code import STAGES
from pipelines.run import Outcome, reproduce, stale_stages, summarise
from serving.client import Client

_NEEDS = """\
auricle demo
  makes the built-in corpus (synthetic voices), trains a small streaming recogniser, measures it, packages it
  with BentoML, starts it on loopback and sends it recordings of voices it never heard.
  needs about 2 GB of disk beside the packages and {minutes} on two cores; a second run redoes only
  what changed. Ctrl-C stops everything.
"""


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle demo``."""
    sys.stdout.write(_NEEDS.format(minutes=_expected()))
    sys.stdout.flush()
    begin_s = time.monotonic()
    outcome = reproduce()
    summarise(outcome)
    _require_done(outcome)
    from pipelines._champion import packaged_here
    from pipelines.promote import promote_newest

    if not packaged_here():  # a clone after `dvc pull`: its ledger, MLflow and bentos are its own
        summarise(reproduce(["--force", "--single-item", "package"]))
    event = promote_newest(actor="demo")
    sys.stdout.write(
        f"\nchampion: {event['model']} version {event['version']} ({event['variant']})\n"
    )
    answers = _serve_and_ask(event, args.recordings)
    _print_answers(answers)
    _print_where(event)
    sys.stdout.write(f"done in {(time.monotonic() - begin_s) / 60:.1f} minutes\n")
    return 0


def _expected() -> str:
    """What is to be done, and how long it took here the last time."""
    if not paths.report("package").exists():
        return "5 to 12 minutes"
    _require_done(reproduce(["code"], quiet=True))  # only then is a changed statement seen
    stale = stale_stages()
    if not stale:
        return "under a minute"
    due = [paths.report(stage) for stage in STAGES[STAGES.index(stale[0]) :]]
    if not all(path.exists() for path in due):
        return f"up to 12 minutes (changed: {', '.join(stale)})"
    minutes = 1 + math.ceil(sum(read_record(path).wall_s for path in due) / 60)
    return f"up to about {minutes} minutes (changed: {', '.join(stale)})"


def _require_done(outcome: Outcome) -> None:
    if outcome.failed:
        raise AuricleError(
            "the stage failed; its message stands above",
            item=outcome.failed,
            mend="`auricle doctor`",
        )


def _serve_and_ask(event: dict[str, Any], wanted: int) -> list[dict[str, str]]:
    """Start the packaged service, send recordings, stop it whatever happens."""
    from pipelines import processes
    from pipelines.service_control import start_service

    port = processes.free_port()
    name = f"demo-{port}"
    try:
        waited_s = start_service(name, event, port=port)
        sys.stdout.write(f"service ready on port {port} after {waited_s:.1f} s\n")
        return ask(f"http://127.0.0.1:{port}", wanted)
    finally:
        processes.stop(name)


def ask(url: str, wanted: int) -> list[dict[str, str]]:
    """Send held-out recordings over HTTP, and the first of them over the WebSocket too."""
    client = Client(url=url, api_key=service_key(url))
    answers = []
    with tempfile.TemporaryDirectory(prefix="auricle-demo-") as folder:
        for index, (reference, audio) in enumerate(held_out(wanted)):
            path = Path(folder) / f"{index}.flac"
            path.write_bytes(audio)
            text = client.transcribe(path, model=paths.MODEL_NAME).text
            answers.append({"via": "http", "reference": reference, "text": text})
            if index == 0:
                samples_T = load_mono_16k(audio, name=path.name)
                streamed = client.stream(to_pcm16(samples_T[:, None]).tobytes(), rate_hz=16_000)
                answers.append({"via": "websocket", "reference": reference, "text": streamed.text})
    return answers


def held_out(wanted: int) -> list[tuple[str, bytes]]:
    """References and FLAC bytes of test recordings, one speaker after the other."""
    test = [row for row in read_manifest(paths.SPLIT) if row.split == "test"]
    by_speaker: dict[str, list[Utterance]] = {}
    for row in sorted(test, key=lambda row: row.utterance_id):
        by_speaker.setdefault(row.speaker, []).append(row)
    chosen: list[Utterance] = []
    while by_speaker and len(chosen) < wanted:
        for speaker in sorted(by_speaker):
            chosen.append(by_speaker[speaker].pop(0))
        by_speaker = {speaker: rows for speaker, rows in by_speaker.items() if rows}
    return [
        (row.normalised_text, read_member(paths.SHARDS, row.shard, row.offset, row.length))
        for row in chosen[:wanted]
    ]


def _print_answers(answers: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="held-out recordings, speakers never trained on", title_justify="left")
    for column in ("via", "reference", "transcript"):
        table.add_column(column)
    for answer in answers:
        style = "green" if answer["reference"] == answer["text"] else "yellow"
        table.add_row(answer["via"], answer["reference"], f"[{style}]{answer['text']}[/]")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _print_where(event: dict[str, Any]) -> None:
    evaluation = read_record(paths.report("evaluate")).figures
    export = read_record(paths.report("export")).figures
    quantize = read_record(paths.report("quantize")).figures
    write = sys.stdout.write
    for name in ("full_greedy", "full_lm", "stream_greedy", "stream_lm"):
        wer = evaluation["test"][name]["wer"]
        write(
            f"  WER {name:14} {wer['point']:6.1%}  (95 % interval {wer['low']:.1%} to {wer['high']:.1%})\n"
        )
    size = {"fp32": export["bundle_bytes"], "int8": quantize["bundle_bytes"]}
    write(
        f"  domain {event['domain']}; sizes: "
        + ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in size.items())
        + "\n"
    )
    write(f"  evaluation report  {paths.EVALUATION_HTML.resolve().as_uri()}\n")
    write(f"  model card         {(paths.REPORTS / 'model_card.html').resolve().as_uri()}\n")
    write("  MLflow UI          http://127.0.0.1:5000  (after `make up`)\n\n")
    if sys.prefix != sys.base_prefix:
        activate = os.path.relpath(os.path.join(sys.prefix, "bin", "activate"))  # noqa: PTH118
        write(f"once per shell, then `auricle` and `dvc` are on the path:\n  . {activate}\n")
    sample = Path("data/reports/sample.flac")
    sample.write_bytes(held_out(1)[0][1])
    _write_wav(sample.with_suffix(".wav"), load_mono_16k(sample, name=sample.name))
    write("your own file, after `make up` (which shows more ways):\n")
    write(
        "  curl -s http://127.0.0.1:3000/v1/audio/transcriptions "
        f'-H "Authorization: Bearer $(cat {paths.DEVELOPMENT_KEY})" '
        f"-F model=auricle -F file=@{sample}\n"
    )


def _write_wav(path: Path, samples_T: NDArray[np.float32]) -> None:
    """For snippets that take samples out of a file by themselves."""
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(SAMPLE_RATE_HZ)
        sink.writeframes(to_pcm16(samples_T[:, None]).tobytes())
