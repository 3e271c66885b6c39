"""Tables and reports of finished runs, read from what was measured."""

from tfprune.report.groups import group_table
from tfprune.report.render import FORMATS, render
from tfprune.report.summary import over_seeds, per_layer
from tfprune.report.tables import comparison, layer_sparsity
from tfprune.report.write import write_report

__all__ = [
    "FORMATS",
    "comparison",
    "group_table",
    "layer_sparsity",
    "over_seeds",
    "per_layer",
    "render",
    "write_report",
]
