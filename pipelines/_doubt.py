"""How much doubt a model's own dev recordings bear: above that, nobody spoke."""

from features.archive import FeatureArchive
from features.decode import DecoderConfig
from features.doubt import Judged, LetterDoubt, doubt_limit
from pipelines import _paths as paths
from pipelines._evaluation import items_of, load_decoding
from pipelines._splits import load_split
from training.engines import Engine
from training.evaluate import acoustic_pass, decode_all, score_items


def limit_on_dev(engine: Engine, archive: FeatureArchive, decoder: DecoderConfig) -> float:
    """In nats, for the bundle (`features.doubt`); words are those of the chosen decoder."""
    items = items_of(archive, load_split("dev"))
    decoding = load_decoding(paths.TOKENS)
    log_probs = acoustic_pass(engine, items, "full")
    scored = score_items(items, decode_all(log_probs, decoder, decoding))
    judged = []
    for logp_TV, one in zip(log_probs, scored, strict=True):
        doubt = LetterDoubt(decoding.table)
        doubt.accept(logp_TV)
        errors = one.words.sub + one.words.del_ + one.words.ins
        judged.append(Judged(doubt_nats=doubt.nats, words=one.words.ref, errors=errors))
    return doubt_limit(judged)
