"""How many frames a recording has (``snip_edges``: whole frames)."""

from features.spec import FeatureSpec


def num_frames(n_samples: int, spec: FeatureSpec) -> int:
    """Frames that fit completely into ``n_samples``."""
    if n_samples < spec.window_samples:
        return 0
    return 1 + (n_samples - spec.window_samples) // spec.hop_samples


def samples_needed(frames: int, spec: FeatureSpec) -> int:
    """Fewest samples that give ``frames`` frames."""
    return 0 if frames <= 0 else (frames - 1) * spec.hop_samples + spec.window_samples
