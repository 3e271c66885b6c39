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
        "backbone/conv1"), macs (of one image, as `tfprune.macs` counts), parameters (weights that
        are trained and others; a shared one counts where it comes first), and share (of the
        model's macs, 0 to 1). The last row, layer "total", adds them up.

    Raises:
        UsageError: The model has no graph, or a spatial size is open.
    """
    from tfprune.graph import kernel_uses, named_layers

    work: dict[int, int] = defaultdict(int)
    for use in kernel_uses(model):
        work[id(use.layer)] += use.positions * math.prod(use.kernel.shape)
    total = sum(work.values())
    rows, seen = [], set()
    for path, layer in named_layers(model).items():
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        own = [each for each in layer.weights if id(each) not in seen]
        seen.update(map(id, own))
        size = sum(math.prod(each.shape) for each in own)
        macs = work[id(layer)]
        if macs or size:
            rows.append((path, macs, size, macs / total if total else 0.0))
    rows.append(("total", total, sum(row[2] for row in rows), 1.0 if total else 0.0))
    return pd.DataFrame(rows, columns=_COLUMNS)
