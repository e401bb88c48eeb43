"""Operation ``transcribe``: text of audio files with a registered model, no service needed."""

import argparse
import sys
from pathlib import Path

from pipelines._champion import resolve, version_of


def main(args: argparse.Namespace) -> int:
    """One line per file; a bad file is named and the good remainder goes on (exit status 2)."""
    from pipelines._recognise import open_recognizer
    from serving.recognizer import AudioRequest

    recognizer = open_recognizer(resolve(args.model), version=version_of(args.model))
    status = 0
    for name in args.files:
        request = AudioRequest(content=Path(name), name=Path(name).name)
        (answer,) = recognizer.recognize([request])
        if answer.transcript is None:
            sys.stderr.write(f"auricle: {answer.error}\n")
            status = 2
        elif args.json:
            sys.stdout.write(answer.transcript.model_dump_json() + "\n")
        else:
            label = f"{Path(name).name}: " if len(args.files) > 1 else ""
            notes = (
                f"  [{', '.join(answer.transcript.warnings)}]" if answer.transcript.warnings else ""
            )
            sys.stdout.write(f"{label}{answer.transcript.text}{notes}\n")
    return status
