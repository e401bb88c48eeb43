"""What this machine can do for a training run, detected and recorded."""

import platform
from typing import Any

import torch


def has_bf16() -> bool:
    """Whether bfloat16 matrix products are native here: CUDA with bf16, or AVX-512 BF16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def lightning_precision(precision: str) -> str:
    """Lightning's word for ``fp32``, ``bf16`` or ``auto``."""
    chosen = ("bf16" if has_bf16() else "fp32") if precision == "auto" else precision
    return "bf16-mixed" if chosen == "bf16" else "32-true"


def describe(precision: str) -> dict[str, Any]:
    """Facts that bit-equality and speed depend on."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "bf16_native": has_bf16(),
        "precision": lightning_precision(precision),
    }
