"""Measures models and artifacts, from the thing itself: accuracy, MACs, size, latency, memory."""

from tfprune.measure.agreement import Agreement, agreement
from tfprune.measure.comparison import measure_files
from tfprune.measure.evaluation import Evaluation, cross_entropy, evaluate
from tfprune.measure.first_run import FirstRun, first_run
from tfprune.measure.latency import latency, time_files
from tfprune.measure.size import Floor, floor, gzip_bytes, raw_bytes, zstd_bytes

# The function takes the place of the submodule of the same name, as with `latency`.
from tfprune.measure.sparsity import Parameters, layer_table, parameters, sparsity

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
