"""Stage ``split``: a given split wins, otherwise speakers are dealt by hash; adding moves nobody."""

from collections import Counter
from collections.abc import Sequence

from data.manifest import Utterance, read_manifest, write_manifest
from data.split import assign, empty_splits, held_out_strangers, leaks, voices_note
from governance.errors import AuricleError
from governance.params import load
from pipelines import _paths as paths
from pipelines._params import SplitParams
from pipelines._stage import StageRun, run_stage


def main() -> None:
    """Fill the split column."""
    run_stage(
        "split", _body, inputs={"accepted": paths.ACCEPTED}, outputs={"manifest": paths.SPLIT}
    )


def _body(run: StageRun) -> None:
    params = load("split", SplitParams)
    run.parameters = {"unknown_speakers": params.unknown_speakers}
    accepted = read_manifest(paths.ACCEPTED)
    rows = assign(
        accepted,
        dev_percent=params.dev_percent,
        test_percent=params.test_percent,
        salt=params.salt,
        unknown_speakers=params.unknown_speakers,
    )
    if empty := empty_splits(rows):
        raise _nothing_left(empty, accepted, params)
    write_manifest(paths.SPLIT, rows)
    speakers = {row.split: set[str]() for row in rows}
    for row in rows:
        speakers[row.split].add(row.speaker)
    strangers = held_out_strangers(rows)
    if any(strangers.values()):
        print(f"  warning: {voices_note(rows)}")
    run.figures = {
        "utterances": dict(Counter(row.split for row in rows)),
        "minutes": {
            split: round(sum(row.duration_s for row in rows if row.split == split) / 60, 2)
            for split in speakers
        },
        "speakers": {split: len(names - {""}) for split, names in speakers.items()},
        "speaker_leakage": len(leaks(rows)),
        "held_out_of_unknown_speakers": strangers,
        "speakers_may_leak": any(strangers.values()),
    }


def _nothing_left(
    empty: Sequence[str], accepted: Sequence[Utterance], params: SplitParams
) -> AuricleError:
    """More speakers help only where speakers are known: say which of the two it is."""
    unknown = sum(not row.speaker and not row.split for row in accepted)
    message, mend = f"nothing is left for {', '.join(empty)}", ""
    if unknown and params.unknown_speakers == "train":
        message += (
            f": the speakers of {unknown} of {len(accepted)} recordings are unknown, and unknown "
            "speakers only train"
        )
        mend = (
            "name the speakers (`auricle corpus add --speaker-from-folder`, Kaldi's utt2spk, or "
            "`speaker` in the manifest) or the splits (`split`, or folders train, dev, test); or set "
            "split.unknown_speakers: by_utterance, which lets one voice train and judge"
        )
    more = "recordings" if unknown and params.unknown_speakers == "by_utterance" else "speakers"
    return AuricleError(
        message,
        item=str(paths.ACCEPTED),
        mend=mend or f"bring more {more}, or raise split.dev_percent and split.test_percent",
    )


if __name__ == "__main__":
    main()
