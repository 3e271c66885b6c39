"""Fewer bits, while a model trains: quantization-aware training, and weights of few values."""

from __future__ import annotations

from tfprune.model.quantized_layers import (
    FakeQuantize,
    QuantizedLayer,
    QuantizedPReLU,
    QuantizedScale,
)
from tfprune.quantize.aware import (
    activation_type,
    finished,
    quantize_aware,
    ranges_of,
    without_rounding,
)
from tfprune.quantize.building import is_quantize_aware
from tfprune.quantize.clustering import KeepClusters, cluster

__all__ = [
    "FakeQuantize",
    "KeepClusters",
    "QuantizedLayer",
    "QuantizedPReLU",
    "QuantizedScale",
    "activation_type",
    "cluster",
    "finished",
    "is_quantize_aware",
    "quantize_aware",
    "ranges_of",
    "without_rounding",
]
