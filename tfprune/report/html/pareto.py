"""Which points of a trade-off are worth having."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pareto_front(cost: npt.ArrayLike, value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """The points that no other point beats.

    A point beats another where it costs no more, is worth no less, and is better in one of the two.

    Args:
        cost: shape (n,), less is better.
        value: shape (n,), more is better.

    Returns:
        Shape (n,), True for members of the front. Equal points are members together. A point whose
        cost or value is NaN is no member and beats none.
    """
    costs, values = np.asarray(cost, float), np.asarray(value, float)
    # Entry [i, j] compares point j with point i; a comparison with NaN is False.
    as_good = (costs <= costs[:, None]) & (values >= values[:, None])
    better = (costs < costs[:, None]) | (values > values[:, None])
    beaten = (as_good & better).any(axis=1)
    return ~beaten & ~np.isnan(costs) & ~np.isnan(values)
