"""Names that follow from content: what a recording is called on every machine."""

import hashlib
import hmac

PUBLIC_CORPORA_KEY = b"auricle-public-corpora-v1"
"""Published on purpose: public corpora get equal ids, and so equal caches, everywhere.

A tenant's recordings take a key of the tenant's own, so that their ids tell outsiders nothing.
"""
_ID_HEX = 32
_PSEUDONYM_HEX = 12


def utterance_id(
    pcm16: bytes, rate_hz: int, channels: int, *, key: bytes = PUBLIC_CORPORA_KEY
) -> str:
    """32 hex digits of HMAC-SHA256 over the interleaved little-endian PCM16 at native rate.

    The rate and the channel count are part of it: the same bytes played at another speed are
    another recording. Container, tags and file name are not.
    """
    header = f"pcm16 rate_hz={rate_hz} channels={channels}\n".encode()
    mac = hmac.new(key, header, hashlib.sha256)
    mac.update(pcm16)
    return mac.hexdigest()[:_ID_HEX]


def speaker_pseudonym(corpus: str, speaker: str, *, key: bytes = PUBLIC_CORPORA_KEY) -> str:
    """``spk_<12 hex>``: stable per corpus and speaker; an unknown speaker stays the empty string.

    It keeps names out of manifests and reports. With the published key it is no secret.
    """
    if not speaker:
        return ""
    mac = hmac.new(key, f"speaker\n{corpus}\n{speaker}".encode(), hashlib.sha256)
    return "spk_" + mac.hexdigest()[:_PSEUDONYM_HEX]
