"""What a training run is: the model's shape, the augmentation and the run itself (params.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from governance.bounds import (
    Count,
    CountSpan,
    NotNegative,
    PlayedSpeeds,
    Positive,
    PositiveSpan,
    Share,
    Span,
    Whole,
    at_least,
    below,
)
from governance.errors import ConfigError

SUBSAMPLING = 4
OVERLAP_FRAMES = 3  # 4C+3 feature frames give C encoder frames; the next chunk starts 4C later

ShareBelowOne = Annotated[float, at_least(0), below(1)]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the acoustic model."""

    mel_bins: Count = 80  # width of a feature frame
    vocab_size: Annotated[int, at_least(2)] = 29  # tokens, blank included
    d_model: Count = 128  # width of the encoder
    layers: Count = 4  # blocks
    heads: Count = 4  # attention heads; d_model / heads is even (rotary pairs)
    ff_expansion: Count = 2  # hidden width of the feed-forward, in d_model
    convolutions: Count = 2  # per block
    conv_left_frames: Whole = 2  # past frames that one convolution sees, cached in a stream
    conv_right_frames: Whole = 2  # future frames that it sees, never across a chunk's end
    left_frames: Count = 64  # past frames that attention sees in chunked modes, cached in a stream
    middle_layer: Whole = 2  # block after which the intermediate CTC listens; 0 = none
    dropout: ShareBelowOne = 0.1  # on every residual branch

    def __post_init__(self) -> None:
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            raise ConfigError(
                f"d_model {self.d_model} does not split into {self.heads} heads of even width",
                item="params.yaml: train.model",
                mend="choose d_model as a multiple of 2 * heads",
            )
        if not 0 <= self.middle_layer < self.layers:
            raise ConfigError(
                f"middle_layer {self.middle_layer} is not below layers {self.layers}",
                item="params.yaml: train.model",
                mend="choose 0 (none) or a layer before the last",
            )

    @property
    def kernel(self) -> int:
        """The ``k`` of the stream's cache shape: a block's cached frames plus the present one."""
        return self.convolutions * self.conv_left_frames + 1

    def left_chunks(self, chunk_frames: int) -> int:
        """Chunks of the past that attention sees at this chunk size (0 = full context)."""
        return max(1, self.left_frames // chunk_frames) if chunk_frames else 0


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training recording, in the order of the fields; chances lie in 0..1."""

    speeds: PlayedSpeeds = (0.85, 0.925, 1.0, 1.075, 1.15)  # archived versions to draw from
    warp: ShareBelowOne = 0.1  # mel axis stretched by up to this share: other vocal tracts
    room_chance: Share = 0.3  # late energy smeared over following frames
    room_t60_s: PositiveSpan = (0.1, 0.5)  # decay time of such a room
    noise_chance: Share = 0.5  # stationary noise of a random smooth spectrum
    noise_snr_db: Span = (5.0, 30.0)  # against the speech
    babble_chance: Share = 0.15  # another training recording underneath
    babble_snr_db: Span = (8.0, 25.0)  # against the speech
    gain_db: NotNegative = 6.0  # level shifted by up to this
    tilt_db: NotNegative = 4.0  # smooth equaliser: deviation of its control points
    ramp_steps: Whole = 300  # the share of recordings that is touched at all rises to 1 until then
    margin_s: PositiveSpan = (0.05, 0.8)  # silence kept beside the speech, drawn per side
    time_masks_per_s: NotNegative = 0.8  # SpecAugment in time
    time_mask_frames: Count = 25  # longest of them
    mel_masks: Whole = 2  # SpecAugment in frequency
    mel_mask_bins: Whole = 20  # widest of them


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    model: ModelConfig  # shape of the network
    augment: AugmentConfig  # what happens to a recording
    seed: Whole = 1  # of every random draw, with step, utterance and view
    steps: Count = 4000  # length of the run in optimiser steps
    batch_utterances: Count = 24  # most utterances in a batch
    batch_s: Positive = 240.0  # most seconds of (padded, uncut) audio in a batch
    learning_rate: Positive = 3e-3  # peak, after the warm-up
    warmup_steps: Whole = 300  # linear rise
    final_lr_share: Share = 0.01  # where the cosine ends, in peaks
    weight_decay: NotNegative = 0.05  # of the matrices that Muon moves
    clip_norm: Positive = 1.0  # of the gradient
    full_context_share: Share = 0.4  # steps that train the *full* mode; others draw a chunk
    chunk_frames: CountSpan = (8, 32)  # drawn from this range, ends included
    middle_weight: Share = 0.3  # share of the intermediate CTC in the loss
    warm_prior_chance: Share = 0.5  # normalise by the speaker's earlier prior where there is one
    ema_steps: Count = 200  # horizon of the running average of weights
    dev_every_steps: Count = 500  # greedy dev WER
    checkpoint_every_steps: Count = 500  # state that a killed run resumes from
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the machine has it
    threads: Whole = 0  # of torch; 0 leaves torch's own choice
