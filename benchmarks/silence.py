"""Words where nobody speaks, and what keeping them out costs where somebody does.

    python -m benchmarks.silence --bundle DIR [--corpora PATH] [--noise FOLDER] [--short]

``DIR`` holds the bundles of the barista recipe (``fp32`` and ``int8``); the corpora lend real noises,
pauses and the recordings to score. A bundle that states no limit of doubt gets the one that
``auricle run export`` would write, from barista's dev split. Every sound goes through the recogniser of
the service, as a file and as a stream, with and without its language model.
"""

import io
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile as sf

from benchmarks import _unspoken as unspoken
from benchmarks._report import Bar, Page, below, holds, not_run, parser, table
from benchmarks._unspoken import RATE_HZ, Samples
from benchmarks._workspace import corpora_folder
from data.audio import load_mono_16k, to_pcm16
from data.scoring import score
from features.doubt import Judged, LetterDoubt, doubt_limit
from pipelines._corpus_eval import OpenCorpus, open_corpus
from pipelines._recognise import open_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.streaming.streams import StreamRequest

_SEED = 20_261_125
_BAR_PER_MINUTE = 1.0
_BAR_POINTS = 0.001
_SNR_DB = 10.0
_BLOCK_BYTES = 2 * RATE_HZ // 5  # as a client sends
_SETTINGS = tuple((mode, decoder) for mode in ("file", "stream") for decoder in ("greedy", "lm"))


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a recogniser made of one sound."""

    text: str
    taken_back: int = 0  # words that a last partial had more than its final


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A recording of known words."""

    name: str
    words: str
    samples_T: Samples


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Scores of one split: every word believed, and judged."""

    key: tuple[str, str, str]  # mode, decoder, recordings
    words: int
    errors: tuple[int, int]
    deleted: tuple[int, int]
    taken_back: tuple[int, int]

    @property
    def points(self) -> float:
        """WER after minus before."""
        return (self.errors[1] - self.errors[0]) / self.words


def main(argv: Sequence[str] = ()) -> int:
    """Measure and write the page."""
    options = parser(__doc__)
    options.add_argument("--bundle", type=Path, help="folder that holds the bundles fp32 and int8")
    options.add_argument("--corpora", type=Path, help="folder of corpora (../shared/corpora)")
    options.add_argument("--noise", type=Path, help="more recordings in which nobody speaks")
    given = options.parse_args(argv)
    corpora = corpora_folder(given.corpora)
    if corpora is None or not (corpora / "barista").is_dir():
        return not_run("silence", "no corpora of real speech (../shared/corpora, or --corpora)")
    if given.bundle is None or not (given.bundle / "fp32" / "bundle.json").is_file():
        return not_run("silence", "no bundles of the barista recipe (--bundle)")
    page = Page(name="silence", title="Words where nobody speaks", arguments=argv)
    sounds = _sounds(corpora, given.noise, seconds=15 if given.short else 60)
    speech = {split: _speech(open_corpus(corpora / "barista", split)) for split in ("dev", "test")}
    noisy = _in_noise(speech["test"], list(unspoken.recorded(corpora / "noise_rir").values()))
    for variant in ("fp32",) if given.short else ("fp32", "int8"):
        _variant(page, given.bundle / variant, sounds, speech | {"test in noise": noisy})
    minutes = sum(len(sound_T) for sound_T in sounds.values()) / RATE_HZ / 60
    page.notes.append(f"{len(sounds)} kinds of sound, {minutes:.0f} minutes; speech: barista")
    return page.write(given.out)


def _sounds(corpora: Path, more: Path | None, *, seconds: float) -> dict[str, Samples]:
    sounds = unspoken.made(seconds, _SEED, unspoken.speech_of(corpora, seconds))
    sounds["pauses of barista's test speakers"] = unspoken.gaps(corpora / "barista", ("test",), 90)
    sounds["pauses of a reader"] = unspoken.gaps(
        corpora / "lj_reread", ("train", "dev", "test"), 60
    )
    for name, sound_T in unspoken.recorded(corpora / "noise_rir").items():
        sounds[f"real: {name}"] = sound_T
    for path in sorted(more.rglob("*")) if more else ():
        if path.suffix in (".wav", ".flac", ".ogg", ".oga"):
            sounds[f"real: {path.stem}"] = load_mono_16k(path, name=path.name)
    return sounds


def _speech(corpus: OpenCorpus) -> list[Spoken]:
    return [
        Spoken(
            name=found.utterance.utterance_id,
            words=found.utterance.normalised_text,
            samples_T=load_mono_16k(found.stored, name=found.utterance.utterance_id),
        )
        for found in corpus.recordings([])
    ]


def _in_noise(spoken: Sequence[Spoken], noises: Sequence[Samples]) -> list[Spoken]:
    """The same recordings 10 dB above a real noise."""
    mixed = []
    for at, one in enumerate(spoken):
        noise_T = np.resize(noises[at % len(noises)], len(one.samples_T))
        ratio = np.mean(one.samples_T**2) / max(float(np.mean(noise_T**2)), 1e-12)
        gain = np.sqrt(ratio) * 10 ** (-_SNR_DB / 20)
        mixed.append(replace(one, samples_T=(one.samples_T + gain * noise_T).astype(np.float32)))
    return mixed


def _variant(
    page: Page, folder: Path, sounds: Mapping[str, Samples], speech: Mapping[str, list[Spoken]]
) -> None:
    """One bundle: words in noise and words of speech, believed all or judged."""
    limit = _limit(page, folder, speech["dev"])
    inserted: dict[str, dict[tuple[str, str, bool], int]] = defaultdict(dict)
    costs = []
    for decoder in ("greedy", "lm"):
        recognizer = open_recognizer(folder, greedy=decoder == "greedy")
        config = recognizer.config
        for mode in ("file", "stream"):
            answers: dict[bool, dict[str, list[Said]]] = {}
            for judged in (False, True):
                recognizer.config = replace(config, doubt_limit=limit if judged else None)
                for name, sound_T in sounds.items():
                    words = len(hear(recognizer, sound_T, mode).text.split())
                    inserted[name][mode, decoder, judged] = words
                answers[judged] = {
                    split: [hear(recognizer, one.samples_T, mode) for one in spoken]
                    for split, spoken in speech.items()
                }
            for split, spoken in speech.items():
                said = (answers[False][split], answers[True][split])
                costs.append(_cost((mode, decoder, split), spoken, *said))
    page.bars += _bars(folder.name, sounds, inserted, costs)
    page.sections.append(
        (f"{folder.name}: inserted words per minute, before > after", _inserted(sounds, inserted))
    )
    page.sections.append((f"{folder.name}: what it costs where somebody speaks", _costs(costs)))


def hear(recognizer: AuricleRecognizer, samples_T: Samples, mode: str) -> Said:
    """One sound through the service's recogniser."""
    if mode == "file":
        (answer,) = recognizer.recognize([AudioRequest(content=_wav(samples_T))])
        assert answer.transcript is not None, answer.error
        return Said(text=answer.transcript.text)
    pcm = to_pcm16(samples_T[:, None]).astype("<i2").tobytes()
    stream = recognizer.open_stream(StreamRequest())
    events = [
        event
        for at in range(0, len(pcm), _BLOCK_BYTES)
        for event in stream.accept(pcm[at : at + _BLOCK_BYTES])
    ]
    finals, taken_back, shown = [], 0, 0
    for event in [*events, *stream.finalize()]:
        words = len(event.words)
        if event.is_final:
            finals.append(event.text)
            taken_back += max(0, shown - words)
            shown = 0
        else:
            shown = words
    return Said(text=" ".join(filter(None, finals)), taken_back=taken_back)


def _wav(samples_T: Samples) -> bytes:
    content = io.BytesIO()
    sf.write(content, samples_T, RATE_HZ, format="WAV", subtype="PCM_16")
    return content.getvalue()


def _limit(page: Page, folder: Path, dev: Sequence[Spoken]) -> float:
    """The bundle's own, or what the export stage would find on dev."""
    recognizer = open_recognizer(folder)
    if recognizer.config.doubt_limit is not None:
        return recognizer.config.doubt_limit
    judged = []
    for one in dev:
        doubt = LetterDoubt(recognizer.table)
        prepared = recognizer.prepare(AudioRequest(content=_wav(one.samples_T)))
        for piece in recognizer.next_pieces(prepared, most=100):
            (logp_TV,) = recognizer.engine.offline([piece.x_TF])
            doubt.accept(logp_TV)
        text = hear(recognizer, one.samples_T, "file").text
        words = score(one.name, "", one.words, text).words
        errors = words.sub + words.del_ + words.ins
        judged.append(Judged(doubt_nats=doubt.nats, words=words.ref, errors=errors))
    limit = doubt_limit(judged)
    page.notes.append(f"{folder.name}: limit of doubt, found on dev: {limit} nats")
    return limit


def _cost(
    key: tuple[str, str, str],
    spoken: Sequence[Spoken],
    before: Sequence[Said],
    after: Sequence[Said],
) -> Cost:
    counted = [
        [
            score(one.name, "", one.words, said.text).words
            for one, said in zip(spoken, side, strict=True)
        ]
        for side in (before, after)
    ]
    errors = [sum(w.sub + w.del_ + w.ins for w in side) for side in counted]
    return Cost(
        key=key,
        words=sum(one.ref for one in counted[0]),
        errors=(errors[0], errors[1]),
        deleted=(sum(w.del_ for w in counted[0]), sum(w.del_ for w in counted[1])),
        taken_back=(sum(s.taken_back for s in before), sum(s.taken_back for s in after)),
    )


def _bars(
    variant: str,
    sounds: Mapping[str, Samples],
    inserted: Mapping[str, Mapping[tuple[str, str, bool], int]],
    costs: Sequence[Cost],
) -> list[Bar]:
    minutes = sum(map(len, sounds.values())) / RATE_HZ / 60
    bars = []
    for mode, decoder in _SETTINGS:
        total = sum(counts[mode, decoder, True] for counts in inserted.values()) / minutes
        what = f"{variant}: inserted words per minute, {mode}, {decoder}"
        bars.append(holds(what, "below 1", f"{total:.2f}", total < _BAR_PER_MINUTE))
    for cost in costs:
        if cost.key[2] in ("dev", "test"):
            what = f"{variant}: WER, after minus before, {', '.join(cost.key)}"
            bars.append(below(what, _BAR_POINTS, cost.points, "%"))
    worse = sum(max(0, cost.taken_back[1] - cost.taken_back[0]) for cost in costs)
    what = f"{variant}: words of partials that a final takes back, more than before"
    bars.append(below(what, 0, worse, "words"))
    return bars


def _inserted(
    sounds: Mapping[str, Samples], inserted: Mapping[str, Mapping[tuple[str, str, bool], int]]
) -> str:
    rows = []
    for name, sound_T in sounds.items():
        minutes = len(sound_T) / RATE_HZ / 60
        cells = [
            f"{inserted[name][mode, decoder, False] / minutes:.1f} > "
            f"{inserted[name][mode, decoder, True] / minutes:.1f}"
            for mode, decoder in _SETTINGS
        ]
        rows.append((name, f"{60 * minutes:.0f}", *cells))
    return table(("sound", "seconds", *(", ".join(one) for one in _SETTINGS)), rows)


def _costs(costs: Sequence[Cost]) -> str:
    header = ("mode, decoder, recordings", "words", "WER before", "after", "deleted", "taken back")
    rows = [
        (
            ", ".join(cost.key),
            cost.words,
            *(f"{errors / cost.words:.2%}" for errors in cost.errors),
            f"{cost.deleted[0]} > {cost.deleted[1]}",
            f"{cost.taken_back[0]} > {cost.taken_back[1]}",
        )
        for cost in costs
    ]
    return table(header, rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
