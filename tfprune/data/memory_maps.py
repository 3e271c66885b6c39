"""Examples in array files that are mapped into memory, and may be larger than it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfprune.data.splits import Arrays, RandomAccess, Tree, filled, leaves, mapped

if TYPE_CHECKING:
    import tensorflow as tf

_PARALLEL = 2


class MappedArrays(RandomAccess):
    """Examples in files of `numpy.save`, read when they are needed.

    Example:
        ```python
        split = MappedArrays((np.load("x.npy", mmap_mode="r"), np.load("y.npy", mmap_mode="r")))
        next(iter(split.ordered(4)))[0].shape  # (4, 32, 32, 3)
        ```

    Unlike `Arrays`, a selection copies nothing, so that splits can be held out of it.

    Args:
        trees: inputs, targets and perhaps weights: trees of arrays (n, ...).
        rows: int64: the examples that are meant, in their order; None for all.
    """

    def __init__(self, trees: tuple[Tree, ...], rows: np.ndarray | None = None) -> None:
        import tensorflow as tf

        self._trees = trees
        self._leaves = [leaf for tree in trees for leaf in leaves(tree)]
        self._rows = np.arange(len(self._leaves[0])) if rows is None else rows
        self.element_spec = tuple(
            mapped(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), tree) for tree in trees
        )

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: np.ndarray) -> MappedArrays:
        """The examples with these numbers."""
        return MappedArrays(self._trees, self._rows[rows])

    @property
    def labels(self) -> np.ndarray | None:
        """The targets, if they are class numbers."""
        targets = leaves(self._trees[1])
        if len(targets) != 1 or targets[0].ndim != 1 or targets[0].dtype != np.int64:
            return None
        return np.asarray(targets[0][self._rows])

    def read(self, rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Batches of the examples with these numbers."""
        import tensorflow as tf

        specs = [spec for tree in self.element_spec for spec in leaves(tree)]

        def copied(numbers: np.ndarray) -> list[np.ndarray]:
            # Where they lie in the file, neighbours are read together.
            order = np.argsort(self._rows[numbers], kind="stable")
            back = np.argsort(order)
            chosen = self._rows[numbers][order]
            return [np.ascontiguousarray(leaf[chosen][back]) for leaf in self._leaves]

        def batch(numbers: tf.Tensor) -> tuple[Tree, ...]:
            arrays = tf.numpy_function(
                copied, [numbers], [spec.dtype for spec in specs], stateful=False
            )
            return filled(
                self.element_spec,
                iter(
                    tf.ensure_shape(array, [None, *spec.shape])
                    for array, spec in zip(arrays, specs, strict=True)
                ),
            )

        return rows.batch(batch_size).map(batch, num_parallel_calls=_PARALLEL, deterministic=True)


def held(given: tuple[Tree, ...]) -> RandomAccess:
    """Arrays as a split: mapped if one of them lies in a file, else in memory.

    Example:
        ```python
        held((np.load("x.npy", mmap_mode="r"), np.load("y.npy")))
        ```

    Args:
        given: inputs, targets and perhaps weights.
    """
    parts = [leaf for tree in given for leaf in leaves(tree)]
    if any(isinstance(leaf, np.memmap) for leaf in parts):
        return MappedArrays(given)
    return Arrays(*given)
