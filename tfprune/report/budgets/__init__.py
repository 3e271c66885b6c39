"""Budgets: the rules that a run is judged by, and the verdicts on it."""

from tfprune.report.budgets.budget import Budget, load_budget, recorded_budget
from tfprune.report.budgets.judging import judge, judged_table, mistakes
from tfprune.report.budgets.verdict import Verdict

__all__ = [
    "Budget",
    "Verdict",
    "judge",
    "judged_table",
    "load_budget",
    "mistakes",
    "recorded_budget",
]
