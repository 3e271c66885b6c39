"""Measures models and artifacts, from the thing itself: accuracy, MACs, size, latency, memory.

What needs TensorFlow is imported at its first use: a process that times TFLite files imports this
package too, and beside TensorFlow's threads they take several times their own time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfprune.measure.agreement import Agreement, agreement
from tfprune.measure.first_run import FirstRun, first_run
from tfprune.measure.latency import latency, time_files
from tfprune.measure.size import Floor, floor, gzip_bytes, raw_bytes, zstd_bytes

# The function takes the place of the submodule of the same name, as with `latency`.
from tfprune.measure.sparsity import Parameters, layer_table, parameters, sparsity

if TYPE_CHECKING:
    from tfprune.measure.comparison import measure_files
    from tfprune.measure.evaluation import Evaluation, cross_entropy, evaluate

__all__ = [
    "Agreement",
    "Evaluation",
    "FirstRun",
    "Floor",
    "Parameters",
    "agreement",
    "cross_entropy",
    "evaluate",
    "first_run",
    "floor",
    "gzip_bytes",
    "latency",
    "layer_table",
    "measure_files",
    "parameters",
    "raw_bytes",
    "sparsity",
    "time_files",
    "zstd_bytes",
]

_WITH_TENSORFLOW = {
    "Evaluation": "evaluation",
    "cross_entropy": "evaluation",
    "evaluate": "evaluation",
    "measure_files": "comparison",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TENSORFLOW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_TENSORFLOW[name]}"), name)
