"""Tables and reports of finished runs, read from what was measured."""

from tfprune.report.budgets import Budget, judge, load_budget
from tfprune.report.render import FORMATS, render
from tfprune.report.run import Delivery, Run, Step, read_run
from tfprune.report.summary import over_seeds, per_layer
from tfprune.report.tables import comparison, layer_sparsity, planned
from tfprune.report.tickets import tickets, tickets_in_words, tickets_over_seeds
from tfprune.report.write import write_report

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
    "tickets_in_words",
    "tickets_over_seeds",
    "write_report",
]
