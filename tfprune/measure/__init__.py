"""Measures models and artifacts: accuracy, size, sparsity and latency, from the thing itself."""

from tfprune.measure.accuracy import Evaluation, agreement, cross_entropy, evaluate
from tfprune.measure.interface import Runtime
from tfprune.measure.latency import latency
from tfprune.measure.runtime import load
from tfprune.measure.size import gzip_bytes, raw_bytes

# The function takes the place of the submodule of the same name, as with `latency`.
from tfprune.measure.sparsity import Parameters, parameters, sparsity

__all__ = [
    "Evaluation",
    "Parameters",
    "Runtime",
    "agreement",
    "cross_entropy",
    "evaluate",
    "gzip_bytes",
    "latency",
    "load",
    "parameters",
    "raw_bytes",
    "sparsity",
]
