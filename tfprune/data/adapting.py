"""Takes data in every form that Keras users have it in, as `Examples` in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfprune.data.splits import (
    Dataset,
    Examples,
    Split,
    Tree,
    by_name,
    leaves,
    mapped,
    spread,
)
from tfprune.errors import UsageError

Data: TypeAlias = Any
"""Examples in any form that `examples` takes: arrays, a dict, (x, y), a `tf.data.Dataset`, a
`keras.utils.PyDataset`, a generator of batches, a split, `Examples` or a data set."""

SAMPLE = 1024
"""How many examples are read of data that are not arrays, where a part of them tells enough: of so
many, 500 calibrate a file and 256 others are compared."""

_NUMBERS = "fiub"


def examples(
    data: Data,
    count: int | None = None,
    *,
    model: keras.Model | None = None,
    what: str = "data",
    whole_arrays: bool = False,
) -> Examples:
    """At most `count` examples of data in any form, in memory.

    Example:
        ```python
        some = examples(tf.data.Dataset.from_tensor_slices((x, y)).batch(32), 100)
        len(some)  # 100
        some.targets.shape  # (100,)
        ```

    Examples of arrays, of splits and of a `keras.utils.PyDataset` are evenly spread, in their
    order. A `tf.data.Dataset`, a generator and any other iterable of batches are read from the
    beginning, and no further than needed.

    Args:
        data: one of
            an array (n, ...): the inputs of a model with one input;
            a dict of arrays by the names of the inputs;
            a list of arrays: the inputs in the order of the model;
            a tuple (x, y) or (x, y, sample weights), as `fit` takes them, where x is any of these;
            a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator or another iterable of
            batches, each a tuple (x, y), (x, y, sample weights) or x alone;
            a `Split`, `Examples`, or a data set of `tfprune.data.load`, of which the train split
            is taken.
            Arrays are NumPy's, tensors, or what NumPy makes an array of.
        count: the most; None for all, where the data come to an end.
        model: what the data are for. The inputs then are a dict by the names of its inputs, in
            their order, and are checked: names, shapes, whole and finite numbers. A tuple of as
            many arrays as a model with several inputs takes is x alone.
        what: what messages call the data.
        whole_arrays: arrays and `Examples` are in memory already: takes all of them, whatever
            `count` is.

    Returns:
        The examples; targets and weights are None where the data have none.

    Raises:
        UsageError: there is no example, a dataset is not batched, or the data do not fit the model.
    """
    if count is not None and count < 1:
        raise UsageError(f"{what}: {count} examples were asked for: ask for at least 1")
    reader = _Reader(model, what)
    found = reader.read(data.train if isinstance(data, Dataset) else data, count, whole_arrays)
    return found if model is None else fitted(found, model, what)


def fitted(some: Examples, model: keras.Model, what: str = "data") -> Examples:
    """Examples whose inputs have the names and shapes that a model takes.

    Example:
        ```python
        fitted(Examples(x, y), model).inputs  # {"image": x}
        ```

    Args:
        some: examples.
        model: a model with inputs, such as a Sequential or Functional one.
        what: what messages call the examples.

    Returns:
        The examples; inputs are a dict by the names of the model's inputs, in their order.

    Raises:
        UsageError: they do not fit.
    """
    names = [x.name for x in model.inputs]
    if len(set(names)) < len(names):
        # Keras names the tensors of a nested model's inputs alike.
        names = [f"{name}_{place}" for place, name in enumerate(names)]
    inputs = by_name(some.inputs, names, f"inputs of {what}")
    named = {
        name: _checked(inputs[name], x, name, model.name, what)
        for name, x in zip(names, model.inputs, strict=True)
    }
    for tree, role in ((some.targets, "targets"), (some.weights, "sample weights")):
        for leaf in leaves(tree) if tree is not None else ():
            _check_numbers(leaf, what, f"in its {role}")
    return Examples(named, some.targets, some.weights)


class _Reader:
    """Reads data for a model, or for none that is known.

    Args:
        model: see `examples`.
        what: see `examples`.
    """

    def __init__(self, model: keras.Model | None, what: str) -> None:
        # The shape of one example of each input, by the order of the model.
        self._shapes = None if model is None else [tuple(x.shape[1:]) for x in model.inputs]
        self._what = what

    def read(self, data: Data, count: int | None, whole_arrays: bool) -> Examples:
        """See `examples`."""
        if isinstance(data, Split):
            self._some_or_none(len(data))
            return data.sample(len(data) if count is None else count)
        if isinstance(data, Examples):
            return self._some(data, None if whole_arrays else count)
        if isinstance(data, tf.data.Dataset):
            if count is None and data.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise UsageError(f"{self._what} does not come to an end: give it .take(count)")
            return self._collected(iter(data), count, "give it .batch(32), as fit takes it")
        if isinstance(data, keras.utils.PyDataset):
            return self._of_py_dataset(data, count)
        if _is_array(data) or isinstance(data, tuple | Mapping):
            return self._some(self._in_memory(data), None if whole_arrays else count)
        if isinstance(data, list):
            return self._of_list(data, count, whole_arrays)
        if isinstance(data, Iterable):
            said = "give batches, as fit takes them"
            return self._collected(iter(data), count, said, once=isinstance(data, Iterator))
        raise UsageError(
            f"{self._what} is a {type(data).__name__}: give arrays, a dict of arrays by input, "
            "(x, y), a tf.data.Dataset, a keras.utils.PyDataset or a generator of batches"
        )

    def _of_list(self, data: list[Any], count: int | None, whole_arrays: bool) -> Examples:
        most = None if whole_arrays else count
        shapes = self._shapes
        if any(isinstance(each, tuple | Mapping) for each in data) or (
            shapes is not None
            and len(shapes) > 1
            and any(isinstance(each, list) and any(map(_is_array, each)) for each in data)
        ):
            return self._collected(iter(data), count, "give batches, as fit takes them")
        arrays = bool(data) and all(map(_is_array, data))
        if arrays and (shapes is None or len(shapes) > 1):
            return self._some(self._in_memory(data), most)
        if arrays and shapes is not None and len(data) > 0:
            fit = [_fits(shapes[0], np.shape(each)[1:]) for each in data]
            if all(fit):
                return self._collected(iter(data), count, "give batches, as fit takes them")
            if fit[0] and len(data) in (2, 3):
                return self._some(self._in_memory(tuple(data)), most)
        return self._some(self._in_memory(self._array(data)), most)

    def _of_py_dataset(self, data: Any, count: int | None) -> Examples:
        said = "let it give batches, as fit takes them"
        number = data.num_batches
        if number is None and count is None:
            raise UsageError(f"{self._what} does not come to an end: give it a length")
        if number is None:
            return self._collected((data[place] for place in itertools.count()), count, said)
        self._some_or_none(number)
        first = self._batch(data[0], said)
        places = spread(number, None if count is None else math.ceil(count / len(first)))
        rest = np.arange(number)[places][1:]
        batches = itertools.chain([data[0]], (data[int(place)] for place in rest))
        # Smaller batches than the first may follow.
        found = self._collected(batches, None, said)
        return found[spread(len(found), count)]

    def _collected(
        self, batches: Iterator[Any], count: int | None, said: str, once: bool = False
    ) -> Examples:
        """The first examples of some batches."""
        parts: list[Examples] = []
        missing = math.inf if count is None else count
        while missing > 0:
            try:
                batch = next(batches)
            except StopIteration:
                break
            part = self._batch(batch, said)
            part = part if len(part) <= missing else part[: int(missing)]
            parts.append(part)
            missing -= len(part)
        if not any(len(part) for part in parts):
            again = ", or a generator that was used before: give a new one" if once else ""
            raise UsageError(f"{self._what} has no examples{again or ': give at least one'}")
        return self._joined(parts)

    def _batch(self, batch: Any, said: str) -> Examples:
        """One batch; `said` tells how batches are made."""
        try:
            part = self._in_memory(tuple(batch) if isinstance(batch, list) else batch)
        except _NotBatchedError:
            raise UsageError(f"{self._what} is not batched: {said}") from None
        parts = leaves(part.inputs)
        shapes = self._shapes or ()
        if len(parts) == len(shapes) and any(
            not _fits(shape, leaf.shape[1:]) and _fits(shape, leaf.shape, exact=True)
            for shape, leaf in zip(shapes, parts, strict=True)
        ):
            raise UsageError(f"{self._what} is not batched: {said}")
        return part

    def _joined(self, parts: Sequence[Examples]) -> Examples:
        try:
            columns = [
                [leaf for tree in _trees(part) if tree is not None for leaf in leaves(tree)]
                for part in parts
            ]
            joined = iter([np.concatenate(column) for column in zip(*columns, strict=True)])
        except ValueError:
            shapes = sorted(
                {" and ".join(str(leaf.shape[1:]) for leaf in column) for column in columns}
            )
            raise UsageError(
                f"{self._what} has batches whose examples have other shapes than those before "
                f"({'; '.join(shapes[:3])}): give batches of one shape"
            ) from None
        return Examples(
            *(
                None if tree is None else mapped(lambda _: next(joined), tree)
                for tree in _trees(parts[0])
            )
        )

    def _in_memory(self, given: Any) -> Examples:
        """Arrays as `fit` takes them."""
        inputs, targets, weights = self._divided(given)
        trees = [None if tree is None else self._tree(tree) for tree in (inputs, targets, weights)]
        parts = [leaf for tree in trees if tree is not None for leaf in leaves(tree)]
        if any(leaf.ndim == 0 for leaf in parts):
            raise _NotBatchedError(
                f"{self._what} has a part that is a single number: give arrays of examples"
            )
        if len({len(leaf) for leaf in parts}) > 1:
            said = ", ".join(str(leaf.shape) for leaf in parts)
            raise _NotBatchedError(
                f"{self._what} has arrays of the shapes {said}, which are parts of different "
                "lengths: give equally many examples in each"
            )
        return Examples(*trees)

    def _divided(self, given: Any) -> tuple[Any, Any, Any]:
        """Inputs, targets and sample weights."""
        if not isinstance(given, tuple):
            return given, None, None
        several = self._shapes is not None and len(self._shapes) > 1
        if several and len(given) == len(self._shapes or ()) and all(map(_is_array, given)):
            return given, None, None
        if 1 <= len(given) <= 3:
            x, y, weights = (*given, None, None)[:3]
            return x, y, weights
        raise UsageError(
            f"{self._what} is a tuple of {len(given)}: give (x, y) or (x, y, sample weights), and "
            "several inputs as a dict by their names or a list in the order of the model"
        )

    def _tree(self, value: Any) -> Tree:
        if isinstance(value, Mapping):
            return {str(key): self._tree(part) for key, part in value.items()}
        if isinstance(value, tuple | list) and any(
            isinstance(part, Mapping) or (_is_array(part) and np.ndim(part)) for part in value
        ):
            return tuple(self._tree(part) for part in value)
        return self._array(value)

    def _array(self, value: Any) -> np.ndarray:
        try:
            array = np.asarray(value)
        # Ragged lists, tensors on another device: libraries raise what they like.
        except Exception:
            array = np.empty((), object)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if array.dtype.kind == "O":
            raise UsageError(
                f"{self._what} has a part that is a {type(value).__name__}, of which NumPy makes "
                "no array of numbers: give arrays whose examples have one shape"
            )
        return array

    def _some(self, found: Examples, count: int | None) -> Examples:
        self._some_or_none(len(found))
        places = spread(len(found), count)
        return found if isinstance(places, slice) else found[places]

    def _some_or_none(self, count: int) -> None:
        if not count:
            raise UsageError(f"{self._what} has no examples: give at least one")


class _NotBatchedError(UsageError):
    """Arrays that are not of equally many examples, as those of one example are not."""


def _trees(some: Examples) -> tuple[Tree, Tree, Tree]:
    return some.inputs, some.targets, some.weights


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, Mapping)


def _fits(shape: Sequence[int | None], got: Sequence[int], exact: bool = False) -> bool:
    """Whether an example has the shape that an input takes, as Keras adjusts it."""
    if len(shape) == len(got):
        return all(want in (None, size) for want, size in zip(shape, got, strict=True))
    # Keras adds a last axis of 1.
    return not exact and len(shape) == len(got) + 1 and shape[-1] == 1 and _fits(shape[:-1], got)


def _checked(array: np.ndarray, x: Any, name: str, model: str, what: str) -> np.ndarray:
    """An array for an input of a model, with the axes that the input has."""
    _check_numbers(array, what, f"for input {name}")
    shape = tuple(x.shape[1:])
    if not _fits(shape, array.shape[1:]):
        raise UsageError(
            f"{what}: an example of shape {array.shape[1:]} does not fit input {name} of model "
            f"'{model}': it takes {shape}"
        )
    whole = array.dtype.kind != "f" or keras.backend.is_float_dtype(x.dtype)
    if not whole and (array != np.floor(array)).any():
        raise UsageError(
            f"{what} has fractions for input {name} of model '{model}', which takes {x.dtype}: "
            "give whole numbers"
        )
    return array if array.ndim == len(shape) + 1 else array[..., None]


def _check_numbers(array: np.ndarray, what: str, place: str) -> None:
    if array.dtype.kind not in _NUMBERS:
        raise UsageError(f"{what} has dtype {array.dtype} {place}: give numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"{what} has NaN or infinite values {place}: give finite numbers")
