"""Decoding: a model's log-probabilities to words. The entry of greedy and beam search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.beam import BeamDecoder as BeamDecoder
from features.greedy import GreedyDecoder as GreedyDecoder
from features.hotwords import HotwordGraph as HotwordGraph
from features.hotwords import hotword_graph as hotword_graph
from features.hypothesis import DecodingError as DecodingError
from features.hypothesis import Hypothesis as Hypothesis
from features.hypothesis import StreamingDecoder as StreamingDecoder
from features.hypothesis import Word as Word
from features.language_model import ArpaModel
from features.lexicon import Lexicon
from features.tokens import TokenTable
from governance.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """How to decode; part of a bundle, of `params.yaml` and of a request."""

    kind: str = "beam"  # "greedy" or "beam"
    beam: int = 8  # prefixes kept per frame
    alpha: float = 0.0  # weight of the language model's natural-log probabilities
    beta: float = 0.0  # added per word, against the shortening that a language model causes
    lexicon: bool = False  # only words of the lexicon may come out
    token_threshold: float = 9.0  # tokens this far (nats) below the frame's best are not tried
    token_beam: int = 12  # at most so many tokens are tried per frame
    beam_threshold: float = 16.0  # prefixes this far (nats) below the best are dropped

    def __post_init__(self) -> None:
        if self.kind not in ("greedy", "beam"):
            raise ConfigError(f"{self.kind!r} is not greedy or beam", item="decoder.kind")
        if not self.alpha >= 0:
            raise ConfigError("must not be negative", item="decoder.alpha")
        for name in ("beam", "token_beam", "token_threshold", "beam_threshold"):
            if not getattr(self, name) > 0:
                raise ConfigError("must be above 0", item=f"decoder.{name}")

    @property
    def needs_language_model(self) -> bool:
        """Whether decoding asks a language model for scores."""
        return self.kind == "beam" and self.alpha > 0

    @property
    def needs_lexicon(self) -> bool:
        """Whether decoding is held to a closed vocabulary."""
        return self.kind == "beam" and self.lexicon


def make_decoder(
    config: DecoderConfig,
    table: TokenTable,
    lm: ArpaModel | None = None,
    lexicon: Lexicon | None = None,
    hotwords: HotwordGraph | None = None,
) -> StreamingDecoder:
    """A new decoder for one utterance; language model and lexicon are shared and never change.

    What the configuration does not use is left aside; what it needs and lacks is refused. Expected
    phrases need alternatives to choose from: with ``hotwords`` a greedy configuration is a beam's.
    """
    if config.kind == "greedy" and hotwords is None:
        return GreedyDecoder(table)
    if config.needs_language_model and lm is None:
        raise ConfigError(
            f"alpha is {config.alpha}, but no language model is given",
            item="decoder.alpha",
            mend="give lm.arpa, or set alpha to 0",
        )
    if config.needs_lexicon and lexicon is None:
        raise ConfigError(
            "decoding is held to a lexicon, but none is given",
            item="decoder.lexicon",
            mend="give lexicon.txt, or set lexicon to false",
        )
    return BeamDecoder(
        table,
        beam=config.beam,
        alpha=config.alpha,
        beta=config.beta,
        lm=lm if config.needs_language_model else None,
        trie=lexicon.trie(table) if config.needs_lexicon and lexicon else None,
        hotwords=hotwords,
        token_threshold=config.token_threshold,
        token_beam=config.token_beam,
        beam_threshold=config.beam_threshold,
    )


def decode(
    logp_TV: NDArray[np.floating],
    config: DecoderConfig,
    table: TokenTable,
    lm: ArpaModel | None = None,
    lexicon: Lexicon | None = None,
) -> Hypothesis:
    """Decode a whole utterance at once."""
    decoder = make_decoder(config, table, lm, lexicon)
    decoder.accept(logp_TV)
    return decoder.finish()


def greedy(logp_TV: NDArray[np.floating], table: TokenTable) -> Hypothesis:
    """Greedy decoding of a whole utterance."""
    decoder = GreedyDecoder(table)
    decoder.accept(logp_TV)
    return decoder.finish()
