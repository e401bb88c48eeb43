"""Learning rate as a pure function of the step."""

import math

from training.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to ``final_lr_share`` of the peak at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    share = config.final_lr_share
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * (share + (1.0 - share) * cosine)
