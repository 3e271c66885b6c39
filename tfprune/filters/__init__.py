"""Filter pruning: learn which channels can go, plan, remove them, and recover."""

from tfprune.filters.depth import remove_dead_blocks, removed_layers
from tfprune.filters.document import PlanDocument, plan_document, planned
from tfprune.filters.fold import Fold, FoldReport, constant_units, fold_constants
from tfprune.filters.groups import ChannelGroup, ChannelGroups, channel_groups
from tfprune.filters.importance import (
    IMPORTANCE,
    IMPORTANCE_NAMES,
    Importance,
    ImportanceName,
    scores,
)
from tfprune.filters.lasso import GroupLasso
from tfprune.filters.learn import LearnStructure
from tfprune.filters.limits import Limits
from tfprune.filters.plan import (
    RemovalPlan,
    keeping_cost,
    keeping_share,
    removing,
    removing_dead,
)
from tfprune.filters.rebuild import rebuild
from tfprune.filters.recover import recalibrated
from tfprune.filters.rounds import in_rounds
from tfprune.filters.rules import channel_rule
from tfprune.filters.sensitivity import sensitivity
from tfprune.filters.table import group_table
from tfprune.filters.targets import Target, plan_counted, remove_filters, simplified

__all__ = [
    "IMPORTANCE",
    "IMPORTANCE_NAMES",
    "ChannelGroup",
    "ChannelGroups",
    "Fold",
    "FoldReport",
    "GroupLasso",
    "Importance",
    "ImportanceName",
    "LearnStructure",
    "Limits",
    "PlanDocument",
    "RemovalPlan",
    "Target",
    "channel_groups",
    "channel_rule",
    "constant_units",
    "fold_constants",
    "group_table",
    "in_rounds",
    "keeping_cost",
    "keeping_share",
    "plan_counted",
    "plan_document",
    "planned",
    "rebuild",
    "recalibrated",
    "remove_dead_blocks",
    "remove_filters",
    "removed_layers",
    "removing",
    "removing_dead",
    "scores",
    "sensitivity",
    "simplified",
]
