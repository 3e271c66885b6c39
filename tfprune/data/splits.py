"""Examples and where they lie: in memory, in files that are read when needed, or in a stream.

Inputs, targets and sample weights are *trees*, as `keras.Model.fit` takes them: an array, a tuple
of arrays, or a dict of arrays by name. The first axis of every array counts the examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

Tree = Any
"""An array, a tuple or list of arrays, or a dict of arrays by name."""

SHUFFLE_BUFFER = 10_000
"""Examples that a stream holds to shuffle them: it cannot be read in another order."""

TEST_SHARE = 0.1
"""The share of the train split that is held out as test split where there is none."""

_STATISTICS_BATCH = 1024


def leaves(tree: Tree) -> list[Any]:
    """The arrays of a tree, in order; those of a dict in the order of its keys as they stand.

    Example:
        >>> leaves({"left": 1, "right": (2, 3)})
        [1, 2, 3]
    """
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, tuple | list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with every array replaced by what a function makes of it.

    Example:
        >>> mapped(len, {"left": "ab", "right": ("a", "")})
        {'left': 2, 'right': (1, 0)}
    """
    if isinstance(tree, Mapping):
        return {key: mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(mapped(function, value) for value in tree)
    return function(tree)


def filled(spec: tuple[Tree, ...], values: Iterator[Any]) -> tuple[Tree, ...]:
    """Trees like those of a spec, of other leaves.

    Example:
        ```python
        filled(({"left": 0, "right": 0}, 0), iter([x, z, y]))  # ({"left": x, "right": z}, y)
        ```
    """
    return tuple(mapped(lambda _: next(values), tree) for tree in spec)


def spread(count: int, most: int | None) -> np.ndarray | slice:
    """The places of at most `most` of `count` examples, evenly spread.

    Example:
        >>> spread(10, 4).tolist()
        [0, 3, 6, 9]

    Args:
        count: how many examples there are.
        most: how many are wanted; None for all.
    """
    if most is None or count <= most:
        return slice(None)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def by_name(tree: Tree, names: Sequence[str], what: str = "inputs") -> dict[str, Any]:
    """Says which array belongs to which named end of a model.

    Example:
        >>> by_name(("a", "b"), ["left", "right"])
        {'left': 'a', 'right': 'b'}

    Args:
        tree: one array for the only name; several in the order of the names; or a dict by names.
        names: of the inputs or outputs of a model, in its order.
        what: what the arrays are, for messages.

    Returns:
        One array for each name, in the order of the names.

    Raises:
        UsageError: the arrays are others than the names.
    """
    if isinstance(tree, Mapping) and not (len(tree) == len(names) == 1):
        if set(tree) != set(names):
            raise UsageError(
                f"the {what} are named {', '.join(map(str, tree))}: give one array for each of "
                f"{', '.join(names)}"
            )
        return {name: tree[name] for name in names}
    parts = leaves(tree)
    if len(parts) != len(names):
        raise UsageError(
            f"the number of {what} is {len(parts)}: give one array for each of "
            f"{', '.join(names)}, in this order"
        )
    return dict(zip(names, parts, strict=True))


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples in memory.

    Example:
        ```python
        examples = Examples(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        len(examples[:4])  # 4
        ```

    Attributes:
        inputs: a tree of arrays (n, ...), what a model takes.
        targets: a tree of arrays (n, ...), what it should answer; None if that is not known.
        weights: a tree of arrays (n,): how much each example counts; None if all count the same.

    Raises:
        UsageError: the arrays have different lengths.
    """

    inputs: Tree
    targets: Tree = None
    weights: Tree = None

    def __post_init__(self) -> None:
        parts = [leaf for tree in self.given for leaf in leaves(tree)]
        lengths = sorted({int(leaf.shape[0]) if leaf.shape else -1 for leaf in parts})
        if len(lengths) != 1 or lengths[0] < 0:
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in parts)
            raise UsageError(
                f"arrays of the shapes {shapes} are not of equally many examples: "
                "give arrays whose first axis has the same length"
            )

    @property
    def given(self) -> tuple[Tree, ...]:
        """The trees there are, as `fit` takes them: inputs, then targets, then weights."""
        trees = (self.inputs, self.targets, self.weights)
        return tuple(tree for tree in trees if tree is not None)

    def __len__(self) -> int:
        return len(leaves(self.inputs)[0])

    def __getitem__(self, rows: slice | np.ndarray) -> Examples:
        """Some of the examples, by a slice or by their numbers."""
        return Examples(
            *(
                None if tree is None else mapped(lambda leaf: leaf[rows], tree)
                for tree in (self.inputs, self.targets, self.weights)
            )
        )


class Split(ABC):
    """Examples, wherever they lie.

    `Arrays` holds them in memory. A `RandomAccess` split reads each by its number. A `Stream` can
    only be read from its beginning.

    Attributes:
        element_spec: (inputs, targets) or (inputs, targets, weights): trees of `tf.TensorSpec` of
            one example, without a batch axis.
    """

    element_spec: tuple[Tree, ...]

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def ordered(self, batch_size: int) -> tf.data.Dataset:
        """Batches in the order of the split, once; the last batch may be smaller."""

    @abstractmethod
    def shuffled(
        self, batch_size: int, *, seed: int, first_epoch: int, epochs: int
    ) -> tf.data.Dataset:
        """Shuffled batches of the epochs `first_epoch` to `epochs - 1`.

        The order of an epoch is a pure function of the seed and the number of the epoch.
        """

    @abstractmethod
    def sample(self, count: int) -> Examples:
        """At most `count` examples in memory, evenly spread over the split."""

    @property
    def labels(self) -> np.ndarray | None:
        """Class numbers, int64 (n,); None if the targets are not one class number an example."""
        return None


class RandomAccess(Split):
    """Examples that can be read in any order: a subclass writes `read` and `select`."""

    @abstractmethod
    def read(self, rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Batches of the examples with these numbers, in this order.

        Args:
            rows: scalars, int64: numbers of examples, from 0.
            batch_size: examples in a batch; the last batch may be smaller.
        """

    @abstractmethod
    def select(self, rows: np.ndarray) -> RandomAccess:
        """The examples with these numbers, int64 (n,), in this order, as a split."""

    def ordered(self, batch_size: int) -> tf.data.Dataset:
        """Batches in the order of the split."""
        import tensorflow as tf

        return self.read(tf.data.Dataset.range(len(self)), batch_size)

    def shuffled(
        self, batch_size: int, *, seed: int, first_epoch: int, epochs: int
    ) -> tf.data.Dataset:
        """Batches in an order that is drawn over the whole split."""
        import tensorflow as tf

        def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(self), dtype=tf.int64),
                seed=tf.stack([tf.cast(seed, tf.int64), epoch]),
            )
            return self.read(tf.data.Dataset.from_tensor_slices(order), batch_size)

        return tf.data.Dataset.range(first_epoch, epochs).flat_map(batches_of)

    def sample(self, count: int) -> Examples:
        """Evenly spread examples."""
        rows = np.arange(len(self))[spread(len(self), count)]
        return _in_memory(self.select(rows).ordered(max(1, len(rows))))


class Arrays(RandomAccess):
    """Examples in memory, or in files that are mapped into memory.

    Example:
        ```python
        split = Arrays(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
        next(iter(split.ordered(4)))[0].shape  # (4, 8, 8, 1)
        ```

    Args:
        inputs: a tree of arrays (n, ...).
        targets: a tree of arrays (n, ...).
        weights: a tree of arrays (n,), or None.

    Raises:
        UsageError: the arrays have different lengths.
    """

    def __init__(self, inputs: Tree, targets: Tree, weights: Tree = None) -> None:
        import tensorflow as tf

        self.examples = Examples(inputs, targets, weights)
        self.element_spec = tuple(
            mapped(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), tree)
            for tree in self.examples.given
        )

    @property
    def inputs(self) -> Tree:
        """The inputs of all examples."""
        return self.examples.inputs

    @property
    def targets(self) -> Tree:
        """The targets of all examples."""
        return self.examples.targets

    @property
    def labels(self) -> np.ndarray | None:
        """The targets, if they are class numbers."""
        targets = leaves(self.targets)
        if len(targets) != 1 or targets[0].dtype.kind not in "iu":
            return None
        numbers = targets[0]
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers = numbers[:, 0]
        return numbers.astype(np.int64, copy=False) if numbers.ndim == 1 else None

    def __len__(self) -> int:
        return len(self.examples)

    def select(self, rows: np.ndarray) -> Arrays:
        """The examples with these numbers, copied."""
        some = self.examples[rows]
        return Arrays(some.inputs, some.targets, some.weights)

    def sample(self, count: int) -> Examples:
        """Evenly spread examples."""
        return self.examples[np.arange(len(self))[spread(len(self), count)]]

    def read(self, rows: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """Batches of the examples with these numbers, gathered at once."""
        import tensorflow as tf

        if self._mapped:
            from tfprune.data.memory_maps import MappedArrays

            return MappedArrays(self.examples.given).read(rows, batch_size)
        trees = self._tensors
        return rows.batch(batch_size).map(
            lambda numbers: tuple(mapped(lambda leaf: tf.gather(leaf, numbers), t) for t in trees),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    @property
    def _mapped(self) -> bool:
        """Whether some array lies in a file: as a tensor it would be read into memory."""
        parts = [leaf for tree in self.examples.given for leaf in leaves(tree)]
        return any(isinstance(leaf, np.memmap) for leaf in parts)

    @cached_property
    def _tensors(self) -> tuple[Tree, ...]:
        import tensorflow as tf

        # tf.data runs on the CPU. It would copy the arrays from a GPU in each step. The tensors
        # outlive the function that is traced while they are made.
        with tf.init_scope(), tf.device("CPU"):
            return tuple(mapped(tf.constant, tree) for tree in self.examples.given)


class Stream(Split):
    """Examples that can only be read from the beginning, such as a user's `tf.data.Dataset`.

    Example:
        ```python
        numbers = tf.data.Dataset.range(5).map(lambda n: (n, n))
        stream = Stream(lambda seed, epoch: numbers, 5, numbers.element_spec)
        ```

    Args:
        epoch: maps a seed and the number of an epoch to a `tf.data.Dataset` of single examples:
            (inputs, targets) or (inputs, targets, weights).
        count: the number of examples in each epoch.
        element_spec: of one example.
        buffer: examples that are held in memory to shuffle them: an example moves forward by at
            most so many places.
    """

    def __init__(
        self,
        epoch: Callable[[int, int], tf.data.Dataset],
        count: int,
        element_spec: tuple[Tree, ...],
        buffer: int = SHUFFLE_BUFFER,
    ) -> None:
        self._epoch = epoch
        self._count = count
        self._buffer = buffer
        self.element_spec = element_spec

    def __len__(self) -> int:
        return self._count

    def part(self, start: int, count: int) -> Stream:
        """The examples from `start` on, `count` of them, of each epoch."""
        return Stream(
            lambda seed, epoch: self._epoch(seed, epoch).skip(start).take(count),
            count,
            self.element_spec,
            self._buffer,
        )

    def ordered(self, batch_size: int) -> tf.data.Dataset:
        """Batches of epoch 0 as it comes."""
        return self._epoch(0, 0).batch(batch_size)

    def shuffled(
        self, batch_size: int, *, seed: int, first_epoch: int, epochs: int
    ) -> tf.data.Dataset:
        """Batches in an order that a buffer shuffles."""
        import tensorflow as tf

        datasets = [
            self._epoch(seed, epoch)
            .shuffle(
                min(self._buffer, max(1, self._count)),
                # tf.data takes seeds of 63 bits; both numbers choose the order.
                seed=int(np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1)[0]),
                reshuffle_each_iteration=False,
            )
            .batch(batch_size)
            for epoch in range(first_epoch, epochs)
        ]
        if not datasets:
            return self._epoch(seed, 0).take(0).batch(batch_size)
        while len(datasets) > 1:
            # In pairs: a chain of as many links as epochs would be slow in each step.
            pairs = [datasets[place : place + 2] for place in range(0, len(datasets), 2)]
            datasets = [pair[0].concatenate(pair[1]) if pair[1:] else pair[0] for pair in pairs]
        options = tf.data.Options()
        options.deterministic = True
        return datasets[0].with_options(options)

    def sample(self, count: int) -> Examples:
        """Evenly spread examples; the stream is read once."""
        import tensorflow as tf

        rows = np.arange(self._count)[spread(self._count, count)]
        wanted = tf.constant(rows, tf.int64)
        some = (
            self._epoch(0, 0)
            .enumerate()
            .filter(lambda number, *_: tf.reduce_any(tf.equal(number, wanted)))
            .map(lambda _, element: element)
        )
        return _in_memory(some.batch(max(1, len(rows))))


def first(split: Split, count: int | None) -> Split:
    """The first examples of a split, as a split.

    Example:
        ```python
        len(first(data.load("digits").train, 100))  # 100
        ```

    Args:
        split: a `RandomAccess` split or a `Stream`.
        count: how many at most; None for all.

    Raises:
        UsageError: the split is of another kind, and has more.
    """
    if count is None or count >= len(split):
        return split
    if isinstance(split, RandomAccess):
        return split.select(np.arange(count))
    if isinstance(split, Stream):
        return split.part(0, count)
    raise unreadable_in_parts(split)


def unreadable_in_parts(split: Split) -> UsageError:
    """The error of a split that can be read as a whole only."""
    return UsageError(
        f"{type(split).__name__} can be read neither in any order nor in parts: give train, "
        "validation and test splits without a limit, or a RandomAccess split"
    )


def _in_memory(batches: tf.data.Dataset) -> Examples:
    """Batches joined in memory."""
    parts = list(batches.as_numpy_iterator())
    columns = zip(
        *([leaf for tree in part for leaf in leaves(tree)] for part in parts), strict=True
    )
    arrays = iter([np.concatenate(column) for column in columns])
    return Examples(*filled(parts[0], arrays))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with three splits.

    Example:
        ```python
        dataset = data.load("digits", seed=0)
        len(dataset.train), len(dataset.validation), len(dataset.test)  # (1293, 144, 360)
        ```

    Attributes:
        name: the name that it was loaded by.
        classes: the name of each label, in order; empty if the targets are not classes.
        train: the examples that weights are trained on.
        validation: the examples that decide between epochs, ratios and variants.
        test: the examples for reported figures; they decide nothing.
        note: the origin of the examples and how they were split, for reports.
        fingerprint: a hash that names the examples and how they are split; None if only the
            examples themselves can tell.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    note: str
    fingerprint: str | None = None

    @property
    def input_shapes(self) -> Tree:
        """The shape of each input of one example, such as (8, 8, 1); None for an open size."""
        return mapped(lambda spec: tuple(spec.shape), self.train.element_spec[0])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image.

        Raises:
            UsageError: the only input is not an image of a fixed size.
        """
        shape = self.input_shapes
        if isinstance(shape, tuple) and len(shape) == 3 and all(isinstance(n, int) for n in shape):
            return shape
        raise UsageError(
            f"{self.name} has inputs of the shape {shape}, and a net for images takes "
            "(height, width, channels): give a model of your own, FILE.py:FUNCTION"
        )


def statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each channel, for normalisation.

    Example:
        ```python
        dataset = data.load("digits")
        mean, std = data.statistics(dataset.train)
        model = zoo.build("vgg", dataset.image_shape, 10, mean=mean, std=std)
        ```

    Args:
        split: the train split, so that the model learns nothing about the others. Its only input
            has a last axis of channels.

    Returns:
        Two float32 arrays of shape (channels,), in the unit of the inputs, such as pixels of 0 to
        255.
    """
    count = 0
    total: Any = 0
    squares: Any = 0
    for inputs, *_ in split.ordered(_STATISTICS_BATCH).as_numpy_iterator():
        (part,) = leaves(inputs)
        # Sums of integers are exact, and batches keep the wide copy small.
        wide = part.astype(np.int64 if part.dtype.kind in "iu" else np.float64)
        axes = tuple(range(wide.ndim - 1))
        count += wide[..., 0].size
        total = total + wide.sum(axis=axes)
        squares = squares + np.square(wide).sum(axis=axes)
    if not count:
        raise UsageError("the split is empty: give a split with at least one example")
    mean = total / count
    std = np.sqrt(np.maximum(0, squares / count - np.square(mean)))
    return mean.astype(np.float32), std.astype(np.float32)
