"""Quantization-aware training: models that compute as their int8 files will."""

from __future__ import annotations

from tfprune.model.quantized_layers import FakeQuantize, QuantizedLayer, QuantizedScale
from tfprune.quantize.aware import finished, quantize_aware, without_rounding
from tfprune.quantize.building import is_quantize_aware

__all__ = [
    "FakeQuantize",
    "QuantizedLayer",
    "QuantizedScale",
    "finished",
    "is_quantize_aware",
    "quantize_aware",
    "without_rounding",
]
