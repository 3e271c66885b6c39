"""How much each channel group matters: accuracy when it alone is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from tfprune.filters.gradients import LabelledImages
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, scores
from tfprune.filters.plan import RemovalPlan, check_share
from tfprune.filters.rebuild import rebuild


def sensitivity(
    model: keras.Model,
    measure: Callable[[keras.Model], float],
    *,
    shares: Sequence[float] = (0.75, 0.5, 0.25),
    importance: Importance = "l2",
    data: LabelledImages | None = None,
) -> pd.DataFrame:
    """Cuts each channel group alone, at several ratios, and measures the slim model.

    Nothing is trained in between: the table shows where removal hurts at once (Li et al. 2017,
    https://arxiv.org/abs/1608.08710, figure 2).

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        measure: from a model to a figure, such as its accuracy on validation images.
        shares: of a group's removable channels, how many are kept, 0 to 1.
        importance: which channels go first; see `plan`.
        data: labelled training images, where the importance needs them; see `plan`.

    Returns:
        One row a group and share, with columns layers (joined by " + "), channels, kept (how many
        are left), share and accuracy (what `measure` said). Its first row is the whole model: no
        layers, share 1. Groups in which nothing can be removed have no row.

    Raises:
        UsageError: a share outside 0 to 1, or a model without a graph.
    """
    for share in shares:
        check_share("share", share)
    groups = ChannelGroups(model)
    ranked = scores(groups, importance, data)
    everything = {"layers": "", "channels": 0, "kept": 0, "share": 1.0, "accuracy": measure(model)}
    rows = [everything]
    for group in groups:
        units = group.units[group.removable]
        # The best first.
        order = units[np.argsort(-ranked[units], kind="stable")]
        for share in shares if len(order) else ():
            alive = np.ones(groups.unit_count, bool)
            kept = max(1 if len(order) == group.size else 0, round(share * len(order)))
            alive[order[kept:]] = False
            rows.append(
                {
                    "layers": " + ".join(group.layers),
                    "channels": group.size,
                    "kept": int(alive[group.units].sum()),
                    "share": share,
                    "accuracy": measure(rebuild(RemovalPlan(groups, alive))),
                }
            )
    return pd.DataFrame(rows)
