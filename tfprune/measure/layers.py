"""Where a model's work and its weights are: one row a layer."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import keras

_COLUMNS = ["layer", "macs", "parameters", "share"]


def layer_table(model: keras.Model) -> pd.DataFrame:
    """Multiply-accumulates and parameters of every layer that has some.

    Args:
        model: A functional or built Sequential Keras model whose input sizes are fixed. Nested
            models are looked into; a shared layer stands once, with the work of all its calls.

    Returns:
        Rows in the order of the model, with columns layer (the names down to it, as in
        "backbone/conv1"), macs (of one image, as `tfprune.macs` counts; None where they cannot be
        counted, and then of the total too), parameters (weights that are trained and others; a
        shared one counts where it comes first), and share (of the model's macs, 0 to 1). The last
        row, layer "total", adds them up.

    Raises:
        UsageError: The model has no graph, or a spatial size is open.
    """
    from tfprune.model.counting import count_macs
    from tfprune.model.graph import named_layers

    work = count_macs(model)
    macs: dict[int, int] = defaultdict(int)
    operations = {}
    for use in work.uses:
        macs[id(use.layer)] += use.macs
        operations[id(use.layer)] = use.layer.name
    rows: list[tuple[str, int | None, int]] = []
    seen: set[int] = set()
    for path, layer in named_layers(model).items():
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        own = [each for each in layer.weights if id(each) not in seen]
        seen.update(map(id, own))
        size = sum(math.prod(each.shape) for each in own)
        # A layer within another one may be what cannot be counted of it.
        known = not any(each == path or each.startswith(f"{path}/") for each in work.uncounted)
        mine = macs[id(layer)] if known else None
        if mine != 0 or size:
            rows.append((path, mine, size))
    rows += [(name, macs[key], 0) for key, name in operations.items() if key not in seen]
    total = work.whole_macs
    rows.append(("total", total, sum(size for *_, size in rows)))
    shares = [None if mine is None or total is None else _share(mine, total) for _, mine, _ in rows]
    table = [(*row, share) for row, share in zip(rows, shares, strict=True)]
    # Without a dtype of their own, whole numbers beside None would become floats.
    return pd.DataFrame(table, columns=_COLUMNS, dtype=object if total is None else None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
