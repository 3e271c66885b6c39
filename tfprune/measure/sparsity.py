"""Zeros, counted in a Keras model's weights or an artifact's constants; and work by layer."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfprune.errors import UsageError
from tfprune.formats import Runtime, load

if TYPE_CHECKING:
    import keras

_COLUMNS = ["layer", "weight", "size", "zeros", "sparsity"]
_LAYER_COLUMNS = ["layer", "macs", "parameters", "share"]


@dataclasses.dataclass(frozen=True)
class Parameters:
    """How many numbers a model or an artifact holds.

    Attributes:
        total: All of them.
        nonzero: Those that are not zero.
    """

    total: int
    nonzero: int

    @property
    def sparsity(self) -> float:
        """Share of zeros, 0 to 1; 0 where there is no parameter."""
        return 1 - self.nonzero / self.total if self.total else 0.0


def sparsity(model: keras.Model) -> pd.DataFrame:
    """Counts the zeros of every weight.

    Args:
        model: A built Keras model. Nested models are looked into; a shared weight counts once.

    Returns:
        One row for each of `model.weights`, in that order, with columns layer (the names down to
        the layer, as in "backbone/conv1"), weight, size, zeros, and sparsity (share of zeros, 0
        to 1). The last row, layer "total", adds them up.

    Raises:
        UsageError: The model is not built.
    """
    if not getattr(model, "built", False):
        raise UsageError(
            f"model '{getattr(model, 'name', model)}' has no weights yet: build or call it first"
        )
    # The first way to a shared weight names it.
    places = {id(v): (layer, name) for v, layer, name in reversed(list(_places(model, ())))}
    rows = []
    for variable in model.weights:
        # A subclassed model may own weights that belong to none of its layers.
        layer, weight = places.get(id(variable), (model.name, variable.name))
        size, nonzero = _nonzero(np.asarray(variable))
        rows.append((layer, weight, size, size - nonzero))
    rows.append(("total", "", sum(row[2] for row in rows), sum(row[3] for row in rows)))
    return pd.DataFrame(
        [(*row, row[3] / row[2] if row[2] else 0.0) for row in rows], columns=_COLUMNS
    )


def _places(layer: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, str, str]]:
    """Yields every weight with its layer's path and its own name.

    A Keras variable's own path is that of the moment it was built: the layers of a nested model
    do not know where they ended up.
    """
    if hasattr(layer, "layers"):
        for child in layer.layers:
            yield from _places(child, (*path, child.name))
        return
    for variable in layer.weights:
        # Composite layers keep parts below their own name, as in "attention/query/kernel".
        *parts, name = variable.path.split("/")
        if layer.name in parts:
            parts = parts[parts.index(layer.name) + 1 :]
        yield variable, "/".join([*path, *parts]), name


def parameters(artifact: str | os.PathLike[str] | keras.Model | Runtime) -> Parameters:
    """Counts parameters in the artifact itself, not in the model it came from.

    Counted are: of a Keras model, `model.weights`; of a SavedModel, the variables its serving
    signature uses; of a TFLite file, its stored constants that are floats or carry quantization
    parameters, where zero means equal to the zero point. Shapes and other plain integers are not
    counted, and a buffer that several tensors share counts once.

    A TFLite file has fewer parameters than its Keras model even when nothing was pruned: the
    converter folds BatchNorm into the convolution before it, leaves out biases that are zero and
    stores equal constants once. Quantizing may also round small weights to zero.

    Args:
        artifact: A path that `load` takes, a built Keras model, or what `load` returned.

    Raises:
        UsageError: The path's kind is unknown, or the model is not built.
        TfpruneError: The file is missing or damaged.
    """
    runtime = artifact if isinstance(artifact, Runtime) else load(artifact)
    found = list(runtime.weights())
    return Parameters(sum(each.size for each in found), sum(len(each.living) for each in found))


def _nonzero(values: np.ndarray) -> tuple[int, int]:
    return values.size, int(np.count_nonzero(values))


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
    return pd.DataFrame(table, columns=_LAYER_COLUMNS, dtype=object if total is None else None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
