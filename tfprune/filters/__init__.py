"""Filter pruning: learn which channels can go, plan, remove them, and recover."""

from tfprune.filters.depth import remove_dead_blocks, removed_layers
from tfprune.filters.fold import Fold, FoldReport, constant_units, fold_constants
from tfprune.filters.groups import ChannelGroup, ChannelGroups, channel_groups, group_table
from tfprune.filters.importance import IMPORTANCE, Criterion, Importance, scores
from tfprune.filters.learner import StructureLearner
from tfprune.filters.plan import (
    Limits,
    PlanDocument,
    RemovalPlan,
    plan_cost,
    plan_dead,
    plan_document,
    plan_filters,
    plan_share,
    read_plan,
)
from tfprune.filters.rebuild import rebuild, recalibrate
from tfprune.filters.rules import channel_rule
from tfprune.filters.targets import (
    Target,
    plan_counted,
    plan_in_rounds,
    remove_filters,
    sensitivity,
    simplified,
)
from tfprune.model.group_lasso import GroupLasso

__all__ = [
    "IMPORTANCE",
    "ChannelGroup",
    "ChannelGroups",
    "Criterion",
    "Fold",
    "FoldReport",
    "GroupLasso",
    "Importance",
    "Limits",
    "PlanDocument",
    "RemovalPlan",
    "StructureLearner",
    "Target",
    "channel_groups",
    "channel_rule",
    "constant_units",
    "fold_constants",
    "group_table",
    "plan_cost",
    "plan_counted",
    "plan_dead",
    "plan_document",
    "plan_filters",
    "plan_in_rounds",
    "plan_share",
    "read_plan",
    "rebuild",
    "recalibrate",
    "remove_dead_blocks",
    "remove_filters",
    "removed_layers",
    "scores",
    "sensitivity",
    "simplified",
]
