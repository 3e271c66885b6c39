"""The channel groups of a model as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tfprune.filters.cost import Cost
from tfprune.filters.groups import ChannelGroups


def group_table(groups: ChannelGroups) -> pd.DataFrame:
    """What each channel group is made of, and what it costs.

    Args:
        groups: what `tfprune.channel_groups` returned.

    Returns:
        One row a group, with columns layers (joined by " + "), channels, removable, and
        macs_share and params_share: the share, 0 to 1, of the model's that makes or reads these
        channels. Shares overlap, since what one layer makes another reads. macs_share is None where
        a layer's multiply-accumulates cannot be counted.
    """
    cost = Cost(groups)
    full = np.ones(groups.unit_count, bool)
    rows = []
    for group in groups:
        without = full.copy()
        without[group.units] = False
        rows.append(
            {
                "layers": " + ".join(group.layers),
                "channels": group.size,
                "removable": int(group.removable.sum()),
                "macs_share": (
                    1 - cost.macs(without) / cost.macs(full) if cost.counts_macs else None
                ),
                "params_share": 1 - cost.params(without) / cost.params(full),
            }
        )
    return pd.DataFrame(rows)
