"""Tables and reports of finished runs, read from what was measured."""

from tfprune.report.budgets import Budget, judge, load_budget
from tfprune.report.document import write_report
from tfprune.report.run import Delivery, Run, Step, read_run
from tfprune.report.tables import comparison, layer_sparsity, over_seeds, per_layer, planned
from tfprune.report.text import FORMATS, render
from tfprune.report.tickets import tickets, tickets_over_seeds, tickets_with_units

__all__ = [
    "FORMATS",
    "Budget",
    "Delivery",
    "Run",
    "Step",
    "comparison",
    "judge",
    "layer_sparsity",
    "load_budget",
    "over_seeds",
    "per_layer",
    "planned",
    "read_run",
    "render",
    "tickets",
    "tickets_over_seeds",
    "tickets_with_units",
    "write_report",
]
