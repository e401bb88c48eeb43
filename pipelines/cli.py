"""The ``auricle`` command line: declares every command, imports the one that is asked for.

Exit status: 0 done, 1 a defect in Auricle, 2 something the user can mend, 3 a gate refused,
130 interrupted.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines._keys_options import add_commands as add_keys_commands
from pipelines._numbers import COUNT, PORT, amount
from pipelines._watch_options import add_commands as add_watch_commands

EXIT_DEFECT, EXIT_USER, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, find the workspace, run one command."""
    args = build_parser().parse_args(argv)
    if not args.target:
        build_parser().print_help()
        return EXIT_USER
    from governance.errors import AuricleError, GateRefused
    from governance.telemetry import disable_vendor_telemetry

    disable_vendor_telemetry(os.environ)
    try:
        _enter_workspace(args)
        module, function = args.target.split(":")
        with _stopped_like_ctrl_c():
            status: int = getattr(importlib.import_module(module), function)(args)
            sys.stdout.flush()  # here, where a reader that went away is expected
    except GateRefused as error:
        sys.stderr.write(f"auricle: {error}\n")
        return EXIT_REFUSED
    except AuricleError as error:
        sys.stderr.write(f"auricle: {error}\n")
        return EXIT_USER
    except ModuleNotFoundError as error:
        sys.stderr.write(f"auricle: {_missing_extra(error)}\n")
        return EXIT_USER
    except KeyboardInterrupt:
        sys.stderr.write("\nauricle: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """``kill`` and a closed terminal unwind as Ctrl-C does: child processes are ended, not orphaned."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="auricle",
        description="Recorded speech to a served, watched, reversible speech recogniser.",
    )
    parser.set_defaults(target="", paths=(), bundles=())
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _add_data_commands(commands)
    _add_pipeline_commands(commands)
    _add_recogniser_commands(commands)
    _add_model_commands(commands)
    _add_service_commands(commands)
    return parser


Commands = argparse._SubParsersAction  # argparse names this class with an underscore only


def _command(
    commands: "Commands[argparse.ArgumentParser]", name: str, target: str, summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(target=target)
    return parser


def _add_data_commands(commands: "Commands[argparse.ArgumentParser]") -> None:
    corpus = commands.add_parser("corpus", help="bring, list and describe corpora")
    corpus.set_defaults(target="pipelines.corpus:list_corpora", json=False)
    actions = corpus.add_subparsers(metavar="ACTION")
    add = _command(
        actions, "add", "pipelines.corpus:add", "version a corpus with DVC as immutable shards"
    )
    add.add_argument(
        "path",
        metavar="PATH",
        help="folder with manifest.jsonl (or the manifest itself), LibriSpeech, Common Voice TSV, Kaldi, "
        "audio + .txt",
    )
    add.add_argument("--name", help="corpus name (default: the folder's name)")
    add.add_argument(
        "--language", default="en", help="BCP-47 language where the corpus does not say (en)"
    )
    add.add_argument("--licence", default="", help="licence where the corpus does not say")
    add.add_argument(
        "--consent",
        help="purposes that the speakers agreed to where the corpus does not say (train,eval where "
        "a licence is named, none where none is)",
    )
    add.add_argument(
        "--speaker-from-folder",
        action="store_true",
        help="where the corpus names no speaker, the folder around a recording is its speaker",
    )
    add.add_argument("--workers", type=COUNT, default=2, help="processes that decode (2)")
    add.add_argument("--json", action="store_true", help="print one JSON object")
    add.set_defaults(paths=("path",))
    show = _command(actions, "list", "pipelines.corpus:list_corpora", "corpora of this workspace")
    show.add_argument("--json", action="store_true", help="print one JSON object")


def _add_pipeline_commands(commands: "Commands[argparse.ArgumentParser]") -> None:
    run = _command(
        commands,
        "run",
        "pipelines.run:main",
        "the pipeline (dvc repro) with progress and a summary",
    )
    run.add_argument("stages", nargs="*", metavar="STAGE", help="stop after these stages")
    run.add_argument("--again", metavar="STAGE", help="run this stage although nothing changed")
    run.add_argument("--json", action="store_true", help="print one JSON object at the end")
    train = _command(
        commands, "train", "pipelines.experiment:main", "a training run outside the pipeline"
    )
    train.add_argument(
        "--overfit-one-batch",
        action="store_true",
        help="the first check of a new corpus: a batch shown again and again must come out word for word",
    )
    train.add_argument("--limit-minutes", type=amount(), metavar="N", help="stop after N minutes")
    train.add_argument(
        "--steps", type=COUNT, metavar="N", help="train N steps instead of params.yaml's"
    )
    train.add_argument(
        "--yes", action="store_true", help="start without asking although it is long"
    )
    train.add_argument("--json", action="store_true", help="print one JSON object at the end")
    demo = _command(
        commands, "demo", "pipelines.demo:main", "the main job once round on the built-in corpus"
    )
    demo.add_argument("--recordings", type=COUNT, default=8, help="held-out recordings to send (8)")


def _add_recogniser_commands(commands: "Commands[argparse.ArgumentParser]") -> None:
    transcribe = _command(
        commands, "transcribe", "pipelines.transcribe:main", "text of audio files"
    )
    transcribe.add_argument("files", nargs="+", metavar="FILE", help="audio in any format")
    transcribe.set_defaults(paths=("files",))
    evaluate = _command(
        commands,
        "eval",
        "pipelines.eval_manifest:main",
        "WER and CER with intervals, per slice, of any manifest",
    )
    evaluate.add_argument("manifest", metavar="MANIFEST", help="a manifest or a corpus folder")
    evaluate.add_argument("--split", default="test", help="train, dev, test or all (test)")
    evaluate.add_argument(
        "--mode", choices=("file", "stream"), default="file", help="how it is recognised (file)"
    )
    evaluate.add_argument("--greedy", action="store_true", help="without the language model")
    evaluate.set_defaults(paths=("manifest",))
    for parser in (transcribe, evaluate):
        parser.add_argument(
            "--model",
            default="auricle@champion",
            metavar="NAME@ALIAS",
            help="a registered model, or a bundle folder (auricle@champion)",
        )
        parser.set_defaults(bundles=("model",))
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_model_commands(commands: "Commands[argparse.ArgumentParser]") -> None:
    lineage = _command(
        commands,
        "lineage",
        "pipelines.trace:main",
        "from an alias back to shards, checks and commit",
    )
    lineage.add_argument(
        "model",
        nargs="?",
        default="auricle@champion",
        metavar="MODEL@ALIAS",
        help="a promoted model (auricle@champion)",
    )
    lineage.add_argument("--json", action="store_true", help="print JSON")
    promote = _command(
        commands,
        "promote",
        "pipelines.promote:main",
        "move an alias if the gates pass; appends to the ledger",
    )
    promote.add_argument(
        "--version", type=COUNT, help="model version (default: the newest that the gates passed)"
    )
    promote.add_argument("--alias", default="champion", help="which alias moves (champion)")
    promote.add_argument("--actor", default="", help="who decides (default: the login name)")
    promote.add_argument("--reason", default="", help="why, where --version goes back")
    promote.add_argument("--json", action="store_true", help="print JSON")
    audit = commands.add_parser("audit", help="the ledger: verify, list")
    audit.set_defaults(target="pipelines.audit:verify", json=False)
    actions = audit.add_subparsers(metavar="ACTION")
    for name, summary in (
        ("verify", "check every record, signature and alias"),
        ("list", "events, newest last"),
    ):
        action = _command(
            actions,
            name,
            f"pipelines.audit:{'verify' if name == 'verify' else 'list_events'}",
            summary,
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def _add_service_commands(commands: "Commands[argparse.ArgumentParser]") -> None:
    up = _command(
        commands,
        "up",
        "pipelines.service_control:up",
        "start the service and the MLflow UI in the background",
    )
    up.add_argument("--port", type=PORT, default=3000, help="of the service (3000)")
    up.add_argument("--mlflow-port", type=PORT, default=5000, help="of the MLflow UI (5000)")
    up.add_argument("--no-mlflow", action="store_true", help="the service only")
    up.add_argument(
        "--no-key", action="store_true", help="make and ask for no key: open to this machine"
    )
    _command(commands, "down", "pipelines.service_control:down", "stop what `up` started")
    serve = _command(
        commands, "serve", "pipelines.service_control:serve", "the service in the foreground"
    )
    serve.add_argument(
        "--model",
        default="auricle@champion",
        metavar="NAME@ALIAS",
        help="a registered model, or a bundle folder",
    )
    serve.add_argument("--port", type=PORT, default=3000, help="of the service (3000)")
    serve.add_argument("--host", default="127.0.0.1", help="loopback unless told otherwise")
    serve.set_defaults(bundles=("model",))
    for parser in (up, serve):
        _add_tls_options(parser)
    swap = _command(
        commands,
        "swap",
        "pipelines.swap:main",
        "another version for every worker of a running service, under load",
    )
    swap.add_argument(
        "model", metavar="BUNDLE", help="NAME@ALIAS of a registered model, or a bundle folder"
    )
    swap.add_argument(
        "--version", default="", help="what answers call it (the registry's, or of the digest)"
    )
    swap.add_argument("--port", type=PORT, default=3000, help="of the service (3000)")
    swap.add_argument("--live", metavar="FOLDER", help="AURICLE_LIVE of a service started by hand")
    swap.add_argument(
        "--timeout", type=amount(), default=120.0, metavar="S", help="seconds for all workers (120)"
    )
    swap.add_argument("--json", action="store_true", help="print one JSON object")
    swap.set_defaults(paths=("live",), bundles=("model",))
    keys = commands.add_parser("keys", help="API keys: who may use the service, and how much")
    keys.set_defaults(target="pipelines.keys:list_keys", json=False, store=None)
    add_keys_commands(keys.add_subparsers(metavar="ACTION"), _command)
    add_watch_commands(commands, _command)
    doctor = _command(
        commands,
        "doctor",
        "pipelines.doctor:main",
        "what is installed, what is wrong, and the mend",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")


def _add_tls_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls-certificate", metavar="FILE", help="PEM chain: serve HTTPS and WSS")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM private key of the certificate")
    parser.add_argument(
        "--tls-minimum", choices=("1.2", "1.3"), help="oldest TLS that is spoken (1.2)"
    )
    parser.set_defaults(paths=("tls_certificate", "tls_key"))


def _enter_workspace(args: argparse.Namespace) -> None:
    """Make user paths absolute, then stand in the workspace root, as ``dvc`` does."""
    for name in (*args.paths, *args.bundles):
        value = getattr(args, name)
        if value is None or (name in args.bundles and "@" in value):  # not given, or NAME@ALIAS
            continue
        resolved = [
            str(Path(item).resolve()) for item in ([value] if isinstance(value, str) else value)
        ]
        setattr(args, name, resolved[0] if isinstance(value, str) else resolved)
    here = Path.cwd()
    home = Path(__file__).resolve().parent.parent
    for folder in (here, *here.parents, home):
        if (folder / "params.yaml").exists() and (folder / "dvc.yaml").exists():
            os.chdir(folder)
            return
    from governance.errors import ConfigError

    raise ConfigError(
        "no workspace here (params.yaml and dvc.yaml)",
        item=str(here),
        mend="cd into a clone of Auricle",
    )


_EXTRA_OF = {
    "torch": "train", "torchaudio": "train", "pytorch_lightning": "train", "mlflow": "train",
    "feast": "train", "evidently": "monitor", "onnx": "train", "onnxscript": "train", "matplotlib": "train",
    "great_expectations": "data", "pyarrow": "data", "dvc": "data", "pandas": "data", "grimp": "data",
    "soundfile": "data", "av": "data", "soxr": "data",
    "bentoml": "serve", "onnxruntime": "serve", "prometheus_client": "serve", "websockets": "serve",
    "opentelemetry": "serve", "psycopg": "serve", "redis": "serve", "obstore": "serve",
    "httptools": "serve", "uvloop": "serve",
    "espeakng_loader": "synth", "faster_whisper": "whisper",
}  # fmt: skip


def _missing_extra(error: ModuleNotFoundError) -> str:
    """The mend for a package that an extra brings; any other missing module is a defect."""
    name = (error.name or "").split(".")[0]
    if name not in _EXTRA_OF:
        raise error
    extra = _EXTRA_OF[name]
    return f"{name}: this command needs the extra '{extra}'. Mend: bash deploy/setup.sh {extra}"


if __name__ == "__main__":
    raise SystemExit(main())
