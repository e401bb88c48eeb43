"""Stage ``synth``: the built-in corpus, or an empty folder when ``ingest.corpora`` leaves it out."""

import shutil
import tempfile
from pathlib import Path

from data.corpus import build_corpus
from data.synth import SynthConfig, synthesise
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import IngestParams
from pipelines._stage import StageRun, progress_line, run_stage


def main() -> None:
    """Synthesise into a temporary folder, then import it as any other corpus."""
    run_stage("synth", _body, inputs={}, outputs={"builtin": paths.BUILTIN})


def _body(run: StageRun) -> None:
    config = load("synth", SynthConfig)
    run.parameters = {"seed": config.seed}
    shutil.rmtree(paths.BUILTIN, ignore_errors=True)
    paths.BUILTIN.mkdir(parents=True)
    if "builtin" not in load("ingest", IngestParams).corpora:
        run.figures = {"utterances": 0}
        return
    with tempfile.TemporaryDirectory(prefix="auricle-synth-") as folder:
        synthesise(Path(folder), config, progress=progress_line("utterances spoken"))
        report = build_corpus("builtin", Path(folder), paths.SHARDS)
    run.figures = {"utterances": report.total, "seconds": report.audio_s, "digest": report.digest}


if __name__ == "__main__":
    main()
