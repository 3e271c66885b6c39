"""Filter pruning: learn which channels can go, plan, remove them, and recover."""

from tfprune.filters.groups import ChannelGroup, ChannelGroups, channel_groups
from tfprune.filters.importance import IMPORTANCE
from tfprune.filters.lasso import GroupLasso
from tfprune.filters.learn import LearnStructure
from tfprune.filters.plan import RemovalPlan
from tfprune.filters.rebuild import rebuild
from tfprune.filters.recover import recalibrated
from tfprune.filters.rules import channel_rule
from tfprune.filters.sensitivity import sensitivity
from tfprune.filters.slim import plan, remove_filters, slim
from tfprune.filters.table import group_table

__all__ = [
    "IMPORTANCE",
    "ChannelGroup",
    "ChannelGroups",
    "GroupLasso",
    "LearnStructure",
    "RemovalPlan",
    "channel_groups",
    "channel_rule",
    "group_table",
    "plan",
    "rebuild",
    "recalibrated",
    "remove_filters",
    "sensitivity",
    "slim",
]
