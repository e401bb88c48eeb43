"""Whisper as CTranslate2 runs it: windows of several recordings in one call.

Each is encoded for itself, which costs no more than together, and all are decoded together. The
text is faster-whisper's own, greedy and at temperature 0.

Short audio is the rule, and Whisper pads everything to 30 s: of an eight second clip three quarters
of the encoder's work are spent on nothing. With ``fitted`` only the audio is encoded; in place of
the rest the decoder gets what the encoder makes of nothing, kept since the start. That is not quite
what the encoder would have said, so a text that then looks doubtful is read again as a whole window.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governance.errors import AuricleError, ConfigError
from serving.adopted.folder import ModelFolder
from serving.adopted.mel import MelShape
from serving.adopted.windows import WINDOW_FRAMES, Reading, SpokenWord, Stretch, Window, split

Floats = NDArray[np.float32]
_FIRST_STAMP_MOST = 50  # the first time stamp lies in the first second
_MAX_TOKENS = 448
_PROMPT_TOKENS = _MAX_TOKENS // 2 - 1
_REPEATED = 2.4  # characters per byte after zlib; more is a text that goes in circles
# Of 36 recordings of barista, 21 of 407 words were wrong with whole windows, 31 with the audio alone,
# 22 when texts below this were read again, which a third was; below -0.6: 25, a ninth.
_DOUBTFUL_LOGPROB = -0.5
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, kw_only=True)
class WhisperOptions:
    """How the model runs."""

    calls: int = 1  # side by side, each on one thread
    compute_type: str = "int8"
    fitted: bool = False  # encode no more than the audio, and again what then looks doubtful


class WhisperEngine:
    """A loaded model. `read` may run on as many threads as there are ``calls``."""

    def __init__(self, folder: ModelFolder, options: WhisperOptions | None = None) -> None:
        self.folder = folder
        self.options = options or WhisperOptions()
        self._outer = _loaded(folder, self.options)
        self._model = self._outer.model
        extractor = self._outer.feature_extractor
        self.mel = MelShape(
            filters_MF=np.asarray(extractor.mel_filters, np.float32),
            fft=extractor.n_fft,
            hop=extractor.hop_length,
        )
        self.multilingual = bool(self._model.is_multilingual)
        self.languages: tuple[str, ...] = tuple(self._outer.supported_languages)
        self._tokenizers: dict[str, Any] = {}
        mels = len(self.mel.filters_MF)
        self._nothing_BSD = self._encoded(np.zeros((mels, WINDOW_FRAMES), np.float32))

    def tokens(self, text: str) -> list[int]:
        """The ids that spell ``text``."""
        return list(self._outer.hf_tokenizer.encode(text, add_special_tokens=False).ids)

    def prompt(self, text: str) -> tuple[int, ...]:
        """The tokens of an earlier text, of which the last are kept."""
        return tuple(self.tokens(f" {text.strip()}")[-_PROMPT_TOKENS:]) if text.strip() else ()

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens spell; time stamps are passed over."""
        return str(self._tokenizer(self.languages[0]).decode(list(tokens)))

    def read(self, windows: Sequence[Window]) -> list[Reading]:
        """One reading for each window, in order."""
        encoded = [self._encoded_window(window, fitted=self.options.fitted) for window in windows]
        readings = self._decoded(windows, encoded)
        if not self.options.fitted:
            return readings
        again = [at for at, one in enumerate(readings) if self._doubtful(one)]
        if again:
            some = [windows[at] for at in again]
            whole = [self._encoded_window(window, fitted=False) for window in some]
            for at, reading in zip(again, self._decoded(some, whole), strict=True):
                readings[at] = reading
        return readings

    def _doubtful(self, reading: Reading) -> bool:
        text = self.text([token for part in reading.stretches for token in part.tokens]).encode()
        circling = len(text) > _REPEATED * len(zlib.compress(text))
        return circling or reading.avg_logprob < _DOUBTFUL_LOGPROB

    def _decoded(self, windows: Sequence[Window], encoded: Sequence[Floats]) -> list[Reading]:
        """Windows whose prompts are equally long go through the decoder together."""
        languages = [
            window.language or self._language(window, encoded_BSD)
            for window, encoded_BSD in zip(windows, encoded, strict=True)
        ]
        readings: dict[int, Reading] = {}
        order = sorted(range(len(windows)), key=lambda at: len(windows[at].prompt))
        for _, group in groupby(order, key=lambda at: len(windows[at].prompt)):
            rows = list(group)
            prompts = [self._start(windows[at], languages[at]) for at in rows]
            batch = _storage(np.concatenate([encoded[at] for at in rows]))
            results = self._model.generate(
                batch,
                prompts,
                beam_size=1,
                max_length=_MAX_TOKENS,
                return_scores=True,
                return_no_speech_prob=True,
                suppress_tokens=self._suppressed(),
                max_initial_timestamp_index=_FIRST_STAMP_MOST,
            )
            for at, result in zip(rows, results, strict=True):
                readings[at] = self._reading(windows[at], encoded[at], result, languages[at])
        return [readings[at] for at in range(len(windows))]

    def _reading(self, window: Window, encoded_BSD: Floats, result: Any, language: str) -> Reading:
        tokens = list(result.sequences_ids[0])
        frames = window.x_MT.shape[1]
        tokenizer = self._tokenizer(language)
        stretches, next_frame = split(tokens, first_stamp=tokenizer.timestamp_begin, frames=frames)
        kept = tuple(
            part
            for part in stretches
            if part.start_s != part.end_s and tokenizer.decode(list(part.tokens)).strip()
        )
        if window.words and kept:
            kept = self._with_words(kept, encoded_BSD, frames, tokenizer)
        return Reading(
            stretches=kept,
            next_frame=next_frame,
            avg_logprob=float(result.scores[0]) * len(tokens) / (len(tokens) + 1),
            no_speech_prob=float(result.no_speech_prob),
            language=language,
        )

    def _with_words(
        self, stretches: Sequence[Stretch], encoded_BSD: Floats, frames: int, tokenizer: Any
    ) -> tuple[Stretch, ...]:
        """Each word's time, from where the decoder looked while it wrote the word."""
        rows: list[dict[str, Any]] = [
            {"seek": 0, "start": one.start_s, "end": one.end_s, "tokens": list(one.tokens)}
            for one in stretches
        ]
        self._outer.add_word_timestamps(
            [rows], tokenizer, _storage(encoded_BSD), frames, _PREPENDED, _APPENDED, 0.0
        )
        return tuple(
            Stretch(
                start_s=float(row["start"]),
                end_s=float(row["end"]),
                tokens=one.tokens,
                words=tuple(_word(word) for word in row.get("words", ()) if word["word"].strip()),
            )
            for one, row in zip(stretches, rows, strict=True)
        )

    def _encoded_window(self, window: Window, *, fitted: bool) -> Floats:
        """States [1, 1500, width] of a window, of which silence may be what was kept."""
        mels, frames = window.x_MT.shape
        length = frames + frames % 2 if fitted else WINDOW_FRAMES
        x_MT = np.zeros((mels, length), np.float32)
        x_MT[:, :frames] = window.x_MT
        states_BSD = self._encoded(x_MT)
        rest_BSD = self._nothing_BSD[:, states_BSD.shape[1] :] if fitted else states_BSD[:, :0]
        return np.concatenate([states_BSD, rest_BSD], axis=1)

    def _encoded(self, x_MT: Floats) -> Floats:
        return np.array(self._model.encode(_storage(x_MT[None]), to_cpu=True), np.float32)

    def _language(self, window: Window, encoded_BSD: Floats) -> str:
        """The language that the model hears, of those that are asked for."""
        if not self.multilingual:
            return "en"
        (found,) = self._model.detect_language(_storage(encoded_BSD))
        names = [str(token)[2:-2] for token, _ in found]  # the most probable first
        return next((name for name in names if not window.among or name in window.among), names[0])

    def _start(self, window: Window, language: str) -> list[int]:
        tokenizer = self._tokenizer(language)
        earlier = [tokenizer.sot_prev, *window.prompt] if window.prompt else []
        return [*earlier, *tokenizer.sot_sequence]

    def _suppressed(self) -> list[int]:
        """What is never said aloud: notes, brackets and the model's own signs."""
        one = self._tokenizer(self.languages[0])
        signs = (one.transcribe, one.translate, one.sot, one.sot_prev, one.sot_lm, one.no_speech)
        return sorted({*one.non_speech_tokens, *signs})

    def _tokenizer(self, language: str) -> Any:
        if language not in self._tokenizers:
            from faster_whisper.tokenizer import Tokenizer

            self._tokenizers[language] = Tokenizer(
                self._outer.hf_tokenizer, self.multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]


def _loaded(folder: ModelFolder, options: WhisperOptions) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise ConfigError(
            "faster-whisper is not installed",
            item=str(folder.path),
            mend="bash deploy/setup.sh whisper, or pip install 'auricle[serve,whisper]'",
        ) from None
    try:
        return WhisperModel(
            str(folder.path),
            device="cpu",
            compute_type=options.compute_type,
            cpu_threads=1,
            num_workers=options.calls,
            local_files_only=True,
        )
    except Exception as error:  # CTranslate2's and the tokenizer's errors share no other base
        raise AuricleError(
            f"cannot be loaded as a Whisper model of CTranslate2 ({type(error).__name__})",
            item=str(folder.path),
            mend="convert the model again with this release of ctranslate2",
        ) from error


def _storage(values: Floats) -> Any:
    import ctranslate2

    return ctranslate2.StorageView.from_array(np.ascontiguousarray(values))


def _word(word: dict[str, Any]) -> SpokenWord:
    return SpokenWord(
        text=str(word["word"]),
        start_s=float(word["start"]),
        end_s=float(word["end"]),
        probability=float(word["probability"]),
    )
