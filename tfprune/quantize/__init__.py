"""Fewer bits, while a model trains: quantization-aware training, and weights of few values."""

from __future__ import annotations

from tfprune.model.quantized_layers import (
    FakeQuantize,
    QuantizedLayer,
    QuantizedPReLU,
    QuantizedScale,
)
from tfprune.quantize.aware import finished, quantize_aware, without_rounding
from tfprune.quantize.building import is_quantize_aware
from tfprune.quantize.clustering import KeepClusters, cluster

__all__ = [
    "FakeQuantize",
    "KeepClusters",
    "QuantizedLayer",
    "QuantizedPReLU",
    "QuantizedScale",
    "cluster",
    "finished",
    "is_quantize_aware",
    "quantize_aware",
    "without_rounding",
]
