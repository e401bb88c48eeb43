"""CTC prefix beam search with word language-model fusion and an optional closed vocabulary.

After Hannun et al. (arXiv 1408.2873). The score of a text is

    ln sum over alignments of p(alignment)  +  alpha * ln p_lm(words, end)  +  beta * words
        +  boost * letters of the expected phrases that were said

Probabilities are kept linear and rescaled when they grow small: a product and a sum per step in
place of a log-sum-exp, which is what makes plain Python fast enough. Every step depends on one
frame only, so chunk borders cannot change an answer.
"""

import math
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.confidence import frame_confidence
from features.hotwords import HotwordGraph
from features.hypothesis import DecodingError, Hypothesis, checked_logp, make_hypothesis
from features.language_model import ArpaModel
from features.lexicon import Trie
from features.prefix import Prefix, Speller, common_prefix, forget_dead_branches, tokens_of
from features.tokens import BLANK, TokenTable

_BLOCK_FRAMES = 1024  # a long file is prepared in blocks, to bound memory
_TIDY_FRAMES = 128  # how often dead branches are freed
_RESCALE_BELOW = 1e-60
_first = itemgetter(0)

# (frame, times before): the frames of a prefix's tokens, last first, along its likeliest alignment.
Times = tuple[int, Any] | None
# prefix, p(ends in blank), p(ends in its last token), and the times of either
Entry = tuple[Prefix, float, float, Times, Times]


Scored = tuple[float, Prefix, list[Any]]


class BeamDecoder:
    """A streaming beam decoder for one utterance."""

    def __init__(
        self,
        table: TokenTable,
        *,
        beam: int = 8,
        alpha: float = 0.0,
        beta: float = 0.0,
        lm: ArpaModel | None = None,
        trie: Trie | None = None,
        hotwords: HotwordGraph | None = None,
        token_threshold: float = 9.0,
        token_beam: int = 12,
        beam_threshold: float = 16.0,
        blank_skip: float = 0.999,
        recombine: bool = True,
    ) -> None:
        """Frames whose blank is likelier than ``blank_skip`` only end tokens.

        ``recombine`` drops a prefix when a better one has the same future (last token, language
        model history, place in the lexicon): places in the beam are for real alternatives.
        """
        self._table, self._size, self._blank_skip = table, beam, blank_skip
        self._token_threshold, self._token_beam = token_threshold, token_beam
        self._beam_threshold, self._recombine = beam_threshold, recombine
        self._speller = Speller(table, alpha=alpha, beta=beta, lm=lm, trie=trie, hotwords=hotwords)
        self._finished = False
        self._begin(self._speller.root())

    def _begin(self, root: Prefix) -> None:
        self._trunk = root
        self._beam: list[Entry] = [(root, 1.0, 0.0, None, None)]
        self._settled = True  # every prefix ends in blank
        self._log_scale = 0.0  # the probabilities in the beam are smaller than true by this, in ln
        self._confidence: list[float] = []

    @property
    def frames_seen(self) -> int:
        """Frames accepted so far."""
        return len(self._confidence)

    @property
    def stable_text(self) -> str:
        """Complete words on which every prefix of the beam agrees: no later frame changes them."""
        prefix = common_prefix({entry[0] for entry in self._beam})
        while not prefix.boundary and prefix.parent is not None:
            prefix = prefix.parent
        return self._table.decode(tokens_of(prefix)).strip()

    def accept(self, logp_TV: NDArray[np.floating]) -> None:
        """Take the next frames, any number of them."""
        if self._finished:
            raise DecodingError("the utterance has ended", mend="make a new decoder")
        for begin in range(0, len(logp_TV), _BLOCK_FRAMES):
            self._accept_block(
                checked_logp(logp_TV[begin : begin + _BLOCK_FRAMES], self._table.size)
            )

    def partial(self) -> str:
        """The best text so far; its last word may be unfinished."""
        return self._table.decode(tokens_of(self._leader()[1][0])).strip()

    def best(self) -> Hypothesis:
        """The best hypothesis so far, without the sentence's end; the utterance goes on."""
        score, (prefix, pb, pn, tb, tn) = self._leader()
        return self._hypothesis(prefix, tb if pb >= pn else tn, score)

    def finish(self) -> Hypothesis:
        """End the utterance: last words are completed and the sentence's end is scored."""
        self._finished = True
        return self._ended(self._speller.end_score)[0]

    def pause(self) -> Hypothesis:
        """End the utterance at a pause and begin the next, which may go on with the sentence."""
        hypothesis, prefix = self._ended(self._speller.pause_score)
        self._begin(self._speller.root(after=prefix))
        return hypothesis

    def _ended(self, end_score: Callable[[Prefix], float]) -> tuple[Hypothesis, Prefix]:
        endings: dict[Prefix, list[Any]] = {}  # ended prefix -> [p, largest part, its times]
        for prefix, pb, pn, tb, tn in self._beam:
            ended = prefix if prefix.boundary else self._speller.child(prefix, self._table.space)
            if ended is None:
                continue
            ending = endings.setdefault(ended, [0.0, -1.0, None])
            if pb + pn > ending[1]:
                ending[1:] = [pb + pn, tb if pb >= pn else tn]
            ending[0] += pb + pn
        if not endings:  # the utterance was cut in mid-word and the lexicon knows no such word
            prefix, pb, pn, tb, tn = self._beam[0]
            endings[self._speller.complete(prefix)] = [pb + pn, pb + pn, tb if pb >= pn else tn]
        scored = [
            (math.log(p) + ended.bonus + end_score(ended), ended, times)
            for ended, (p, _, times) in endings.items()
        ]
        score, ended, times = max(scored, key=_first)
        return self._hypothesis(ended, times, score + self._log_scale), ended

    def _accept_block(self, logp_TV: NDArray[np.float64]) -> None:
        first = len(self._confidence)
        self._confidence += frame_confidence(logp_TV).tolist()
        prob_TV = np.exp(logp_TV)
        busy = np.flatnonzero(prob_TV[:, BLANK] <= self._blank_skip)
        # Tokens of each busy frame, likeliest first; the stable sort fixes the order of equals.
        order_BV = np.argsort(-logp_TV[busy, 1:], axis=1, kind="stable") + 1
        order_BV = order_BV[:, : self._token_beam]
        floor_B = logp_TV[busy].max(axis=1) - self._token_threshold
        tried_BV = np.take_along_axis(logp_TV[busy], order_BV, axis=1) >= floor_B[:, None]
        tokens = zip(order_BV.tolist(), tried_BV.sum(axis=1).tolist(), strict=True)
        probabilities = iter(prob_TV[busy].tolist())
        busy_frames = set(busy.tolist())
        for frame, blank in enumerate(prob_TV[:, BLANK].tolist()):
            if frame in busy_frames:
                ranked, count = next(tokens)
                self._step(first + frame, next(probabilities), ranked[:count])
            else:
                self._rest(blank)
            if (first + frame + 1) % _TIDY_FRAMES == 0:
                live = {entry[0] for entry in self._beam}
                self._trunk = forget_dead_branches(live, self._trunk)

    def _rest(self, blank: float) -> None:
        """A frame that is surely blank: every prefix now ends in blank, the order stays."""
        self._log_scale += math.log(blank)
        if not self._settled:
            self._beam = [
                (prefix, pb + pn, 0.0, tb if pb >= pn else tn, None)
                for prefix, pb, pn, tb, tn in self._beam
            ]
            self._settled = True

    def _step(self, frame: int, probs: list[float], tokens: list[int]) -> None:
        heard = self._stay(frame, probs)
        floor = self._floor(heard)
        for prefix, pb, pn, tb, tn in self._beam:
            total, times, last = pb + pn, tb if pb >= pn else tn, prefix.token
            cut = math.exp(min(floor - prefix.hope, 700.0))
            for token in tokens:
                gain, before = total * probs[token], times
                if gain < cut:
                    break  # the tokens after it are unlikelier still
                if token == last:  # the same letter again needs a blank between
                    gain, before = pb * probs[token], tb
                    if prefix.boundary or gain == 0.0:
                        continue
                child = self._speller.child(prefix, token)
                if child is not None and child not in heard:
                    heard[child] = [0.0, gain, None, (frame, before)]
        self._prune(heard)

    def _stay(self, frame: int, probs: list[float]) -> dict[Prefix, list[Any]]:
        """What the beam's own prefixes hold after the frame: p(blank), p(token), times of either.

        By a blank, by their last token again, or by growing out of a shorter one of the beam.
        """
        blank, space = probs[BLANK], probs[self._table.space]
        entries = {entry[0]: entry for entry in self._beam}
        heard: dict[Prefix, list[Any]] = {}
        for prefix, pb, pn, tb, tn in self._beam:
            times = tb if pb >= pn else tn
            if prefix.boundary:  # one more space is the same prefix
                stay, stay_times = (pb + pn) * space, times
            else:
                stay, stay_times = pn * probs[prefix.token], tn
            if prefix.parent in entries:
                parent, pb_, pn_, tb_, tn_ = entries[prefix.parent]
                if parent.token != prefix.token:
                    gain, before = (pb_ + pn_) * probs[prefix.token], tb_ if pb_ >= pn_ else tn_
                else:
                    gain, before = pb_ * probs[prefix.token], tb_
                if gain > stay:
                    stay_times = (frame, before)
                stay += gain
            heard[prefix] = [(pb + pn) * blank, stay, times, stay_times]
        return heard

    def _floor(self, heard: dict[Prefix, list[Any]]) -> float:
        """A score that a new prefix must reach to be kept.

        Without recombination it changes no answer; with it a place that falls free may stay empty.
        """
        scores = [
            math.log(total) + prefix.bonus + prefix.ahead
            if (total := parts[0] + parts[1]) > 0.0
            else -math.inf
            for prefix, parts in heard.items()
        ]
        floor = max(scores) - self._beam_threshold
        return max(floor, min(scores)) if len(scores) >= self._size else floor

    def _prune(self, heard: dict[Prefix, list[Any]]) -> None:
        """Keep the best; where nothing is possible the frame is passed over."""
        log = math.log
        scored = [
            (log(total) + prefix.bonus + prefix.ahead, prefix, parts)
            for prefix, parts in heard.items()
            if (total := parts[0] + parts[1]) > 0.0
        ]
        if not scored:
            return
        scored.sort(key=_first, reverse=True)
        floor = scored[0][0] - self._beam_threshold
        scored = [entry for entry in scored if entry[0] >= floor]
        if self._recombine:
            scored = _without_dominated(scored, self._size)
        kept = [(prefix, *parts) for _, prefix, parts in scored[: self._size]]
        peak = max(pb + pn for _, pb, pn, _, _ in kept)
        if peak < _RESCALE_BELOW:
            self._log_scale += log(peak)
            kept = [(p, pb / peak, pn / peak, tb, tn) for p, pb, pn, tb, tn in kept]
        self._beam = kept
        self._settled = False

    def _leader(self) -> tuple[float, Entry]:
        scored = [(math.log(e[1] + e[2]) + e[0].bonus, e) for e in self._beam]
        score, entry = max(scored, key=_first)
        return score + self._log_scale, entry

    def _hypothesis(self, prefix: Prefix, times: Times, score: float) -> Hypothesis:
        tokens, frames = tokens_of(prefix), []
        while times is not None:
            frames.append(times[0])
            times = times[1]
        frames = frames[::-1][: len(tokens)]
        # Letters that only the lexicon supplied, and a space that ends the text, were never heard.
        frames += [frames[-1] if frames else 0] * (len(tokens) - len(frames))
        emitted = list(zip(tokens, frames, strict=True))
        return make_hypothesis(emitted, self._table, self._confidence, score)


def _without_dominated(scored: list[Scored], size: int) -> list[Scored]:
    """The first ``size`` entries that no better one with the same future equals or exceeds.

    Both ends are compared, blank and token: they go on differently.
    """
    kept: list[Scored] = []
    best: dict[Hashable, Scored] = {}
    for entry in scored:
        _, prefix, parts = entry
        better = best.setdefault(prefix.future, entry)
        if better is not entry:
            weight = math.exp(prefix.bonus - better[1].bonus)
            if parts[0] * weight <= better[2][0] and parts[1] * weight <= better[2][1]:
                continue
        kept.append(entry)
        if len(kept) == size:
            break
    return kept
