"""Random draws as pure functions of what they are for, so that a run resumes from a step number."""

import hashlib

import numpy as np


def seed_for(*purpose: int | str) -> int:
    """63-bit seed for a purpose such as ``(seed, step, utterance_id, view)``."""
    text = "\x1f".join(str(part) for part in purpose)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*purpose: int | str) -> np.random.Generator:
    """NumPy generator for a purpose; equal purposes give equal draws on every machine."""
    return np.random.Generator(np.random.PCG64(seed_for(*purpose)))
