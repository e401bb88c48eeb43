"""Words where nobody speaks, and what keeping them out costs where somebody does.

    python -m benchmarks.silence --bundle DIR [--corpora PATH] [--noise FOLDER] [--short]

``DIR`` holds the bundles of the barista recipe, ``fp32`` and ``int8`` (this checkout's by default);
the corpora lend real noises, pauses and the recordings to score. A bundle that states no limit of
doubt gets the one that ``auricle run export`` would write, from barista's dev split. Every sound
goes through the recogniser of the service, as file and stream, with and without language model.
"""

import copy
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile as sf

from benchmarks import _unspoken as unspoken
from benchmarks._report import ROOT, Bar, Page, below, holds, not_run, parser, table
from benchmarks._unspoken import RATE_HZ, Samples
from benchmarks._workspace import corpora_folder
from data.audio import load_mono_16k, to_pcm16
from data.scoring import score
from features.decode import DecoderConfig
from features.doubt import Judged, LetterDoubt, doubt_limit
from pipelines import _paths as paths
from pipelines._corpus_eval import OpenCorpus, open_corpus
from serving.loading import load_recognizer
from serving.recognizer import AudioRequest, AuricleRecognizer
from serving.settings import ServeSettings
from serving.streaming.streams import Event, Progress, StreamEvent, StreamRequest

_SEED = 20_261_125
_BAR_PER_MINUTE = 1.0
_BAR_POINTS = 0.001
_SNR_DB = 10.0
_BLOCK_BYTES = 2 * RATE_HZ // 5  # as a client sends
Reading = tuple[str, bool]  # decoder, judged
Setting = tuple[str, str, bool]  # mode, decoder, judged
Panel = Mapping[Reading, AuricleRecognizer]
_READINGS = tuple((decoder, judged) for decoder in ("greedy", "lm") for judged in (False, True))
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
    bundles = given.bundle or ROOT / paths.MODELS
    if not (bundles / "fp32" / "bundle.json").is_file():
        return not_run("silence", "no bundles of the barista recipe (--bundle)")
    page = Page(name="silence", title="Words where nobody speaks", arguments=argv)
    sounds = _sounds(corpora, given.noise, seconds=6 if given.short else 30)
    speech = {split: _speech(open_corpus(corpora / "barista", split)) for split in ("dev", "test")}
    judged_on = {"test": speech["test"]}
    if not given.short:
        noises = list(unspoken.recorded(corpora / "noise_rir").values())
        judged_on = speech | {"test in noise": _in_noise(speech["test"], noises)}
    for variant in ("fp32",) if given.short else ("fp32", "int8"):
        _variant(page, bundles / variant, sounds, speech["dev"], judged_on)
    minutes = sum(len(sound_T) for sound_T in sounds.values()) / RATE_HZ / 60
    page.notes.append(f"{len(sounds)} kinds of sound, {minutes:.0f} minutes; speech: barista")
    return page.write(given.out)


def _sounds(corpora: Path, more: Path | None, *, seconds: float) -> dict[str, Samples]:
    sounds = unspoken.made(seconds, _SEED, unspoken.speech_of(corpora, seconds))
    sounds["pauses of barista's test speakers"] = unspoken.gaps(
        corpora / "barista", ("test",), 5 * seconds
    )
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
    page: Page,
    folder: Path,
    sounds: Mapping[str, Samples],
    dev: Sequence[Spoken],
    speech: Mapping[str, list[Spoken]],
) -> None:
    """One bundle: words in noise and words of speech, believed all or judged."""
    recognizer = load_recognizer(ServeSettings(bundle_dir=folder, max_streams=len(_READINGS)))
    panel = _panel(recognizer, _limit(page, recognizer, dev))
    inserted: dict[str, dict[Setting, int]] = {name: {} for name in sounds}
    costs = []
    for mode, hear in (("file", hear_file), ("stream", hear_stream)):
        for name, sound_T in sounds.items():
            for (decoder, judged), said in hear(panel, sound_T).items():
                inserted[name][mode, decoder, judged] = len(said.text.split())
        for split, spoken in speech.items():
            answers = [hear(panel, one.samples_T) for one in spoken]
            for decoder in ("greedy", "lm"):
                before, after = (
                    [answer[decoder, judged] for answer in answers] for judged in (False, True)
                )
                costs.append(_cost((mode, decoder, split), spoken, before, after))
    page.bars += _bars(folder.name, sounds, inserted, costs)
    page.sections.append(
        (f"{folder.name}: inserted words per minute, before > after", _inserted(sounds, inserted))
    )
    page.sections.append((f"{folder.name}: what it costs where somebody speaks", _costs(costs)))


def _panel(recognizer: AuricleRecognizer, limit: float | None) -> Panel:
    """Four readers of one engine's answers."""
    panel = {}
    for decoder, judged in _READINGS:
        reader = copy.copy(recognizer)
        reader.config = replace(recognizer.config, doubt_limit=limit if judged else None)
        if decoder == "greedy":
            reader.config = replace(reader.config, decoder=DecoderConfig(kind="greedy"))
        panel[decoder, judged] = reader
    return panel


def hear_file(panel: Panel, samples_T: Samples) -> dict[Reading, Said]:
    """A recording through the service's steps; the model runs once for all readings."""
    readers = {key: (reader, reader.prepare(_request(samples_T))) for key, reader in panel.items()}
    first, prepared = next(iter(readers.values()))
    while pieces := first.next_pieces(prepared, most=1):
        (logp_TV,) = first.engine.offline([pieces[0].x_TF])
        for reader, own in readers.values():
            reader.decode(own, pieces[0], logp_TV)
    return {key: Said(text=reader.transcript(own).text) for key, (reader, own) in readers.items()}


def hear_stream(panel: Panel, samples_T: Samples) -> dict[Reading, Said]:
    """The same as live streams side by side: neither decoder nor judgement moves an endpoint."""
    pcm = to_pcm16(samples_T[:, None]).astype("<i2").tobytes()
    lives = {key: reader.open_live(StreamRequest()) for key, reader in panel.items()}
    first = next(iter(lives.values()))
    events: dict[Reading, list[Event]] = {key: [] for key in lives}

    def run(progress: dict[Reading, Progress]) -> None:
        while True:
            for key, one in progress.items():
                events[key] += one.events
            if not (chunks := next(iter(progress.values())).chunks):
                return
            answers = first.parts.engine.step(chunks)
            progress = {key: live.absorb(answers) for key, live in lives.items()}

    for at in range(0, len(pcm), _BLOCK_BYTES):
        run({key: live.hear(pcm[at : at + _BLOCK_BYTES]) for key, live in lives.items()})
    run({key: live.conclude("close") for key, live in lives.items()})
    for live in lives.values():
        live.release()
    return {key: _said(found) for key, found in events.items()}


def _said(events: Sequence[Event]) -> Said:
    finals, taken_back, shown = [], 0, 0
    for event in events:
        if not isinstance(event, StreamEvent):
            continue
        words = len(event.words)
        if event.is_final:
            finals.append(event.text)
            taken_back += max(0, shown - words)
        shown = 0 if event.is_final else words
    return Said(text=" ".join(filter(None, finals)), taken_back=taken_back)


def _request(samples_T: Samples) -> AudioRequest:
    return AudioRequest(content=_wav(samples_T))


def _wav(samples_T: Samples) -> bytes:
    content = io.BytesIO()
    sf.write(content, samples_T, RATE_HZ, format="WAV", subtype="PCM_16")
    return content.getvalue()


def _limit(page: Page, recognizer: AuricleRecognizer, dev: Sequence[Spoken]) -> float:
    """The bundle's own, or what the export stage would find on dev."""
    if recognizer.config.doubt_limit is not None:
        return recognizer.config.doubt_limit
    judged = []
    for one in dev:
        doubt, prepared = LetterDoubt(recognizer.table), recognizer.prepare(_request(one.samples_T))
        while pieces := recognizer.next_pieces(prepared, most=1):
            (logp_TV,) = recognizer.engine.offline([pieces[0].x_TF])
            doubt.accept(logp_TV)
            recognizer.decode(prepared, pieces[0], logp_TV)
        words = score(one.name, "", one.words, recognizer.transcript(prepared).text).words
        errors = words.sub + words.del_ + words.ins
        judged.append(Judged(doubt_nats=doubt.nats, words=words.ref, errors=errors))
    limit = doubt_limit(judged)
    page.notes.append(f"{recognizer.facts.variant}: limit of doubt, found on dev: {limit} nats")
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
    inserted: Mapping[str, Mapping[Setting, int]],
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


def _inserted(sounds: Mapping[str, Samples], inserted: Mapping[str, Mapping[Setting, int]]) -> str:
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
