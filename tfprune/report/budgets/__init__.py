"""Budgets: the rules a run is judged by, the verdicts, and how they are told."""

from tfprune.report.budgets.budget import Budget, load_budget, recorded_budget
from tfprune.report.budgets.judging import figures, judge, mistakes
from tfprune.report.budgets.verdict import Verdict

__all__ = ["Budget", "Verdict", "figures", "judge", "load_budget", "mistakes", "recorded_budget"]
