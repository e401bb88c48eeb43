"""Operation ``swap``: give every worker of a running service another version, without a restart."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from pipelines import _paths as paths
from pipelines._champion import resolve, version_of
from serving.swap.ask import ask
from serving.swap.live_folder import LiveFolder


def main(args: argparse.Namespace) -> int:
    """Wish, wait for every worker, say what each serves."""
    folder = Path(args.live) if args.live else paths.live(args.port)
    began = time.monotonic()
    words = ask(
        LiveFolder(folder),
        resolve(args.model),
        version=args.version or version_of(args.model),
        timeout_s=args.timeout,
    )
    seconds = round(time.monotonic() - began, 3)
    if args.json:
        workers = [{"worker": word.worker, **asdict(word.serves)} for word in words]
        sys.stdout.write(json.dumps({"seconds": seconds, "workers": workers}) + "\n")
        return 0
    serves = words[0].serves
    many = "1 worker serves" if len(words) == 1 else f"{len(words)} workers serve"
    sys.stdout.write(f"{many} version {serves.version} ({serves.digest}), after {seconds:.1f} s\n")
    return 0
