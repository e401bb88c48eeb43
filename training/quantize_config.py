"""How an int8 bundle is made (params.yaml: quantize); apart from the making, which imports ONNX."""

from dataclasses import dataclass

from governance.bounds import Count, NotNegative, Positive, Whole


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """How to quantise (params.yaml: quantize)."""

    calibration_streams: Count = 150
    """Dev recordings that ranges are measured on."""
    chunks_per_stream: Count = 4
    """Chunks kept of each, with the caches they met."""
    probe_recordings: Count = 16
    """Recordings that the harm of a layer is measured on."""
    narrow_above_kl: NotNegative = 0.0005
    """Layers that alone cost more have their ranges narrowed as long as that helps."""
    max_kl: Positive = 0.005
    """Layers go back to fp32 until the output's KL divergence from fp32 is below this."""
    max_reverted: Whole = 8
    """Most layers that go back; beyond it the model is slow and still harmed."""
    depthwise: bool = False
    """Whether depthwise convolutions, where a model has them, become int8 too."""
    reduce_range: bool | None = None
    """Weights in 7 bits, against saturation without VNNI; None = where this CPU lacks VNNI."""
