"""Binds the arrays of data to the inputs and outputs of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from tfprune import data
from tfprune.data.splits import Tree, leaves
from tfprune.errors import UsageError

# Examples of a split that is not in memory, whose inputs are looked at before a training.
_LOOKED_AT = 256


class Binding:
    """Which array of a data set belongs to which input and output of a model.

    Example:
        ```python
        binding = Binding(model, dataset)
        model.fit(binding.bound(data.batches(dataset.train, 32, seed=0, epochs=10)))
        ```

    Arrays in a dict belong to the inputs or outputs with their names; a single array or a tuple is
    in the order of the model. Batches come out in the structure of the model, so that Keras does
    not have to guess.

    Args:
        model: a functional or built Sequential model.
        dataset: the data.
        ends: "inputs", "outputs" or both: what is bound.

    Raises:
        UsageError: the model has no graph or takes other inputs than the data has, its batch size
            is fixed, or it has another number of outputs than the data has targets.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: data.Dataset,
        ends: Collection[str] = ("inputs", "outputs"),
    ) -> None:
        self._name = f"model {model.name!r}"
        if not getattr(model, "inputs", None):
            raise UsageError(
                f"{self._name} has no input: give a functional model, or a Sequential one that was "
                "built with its input shape"
            )
        # The graph of a Sequential model is that of a functional model inside it.
        graph: Any = getattr(model, "_functional", None) or model
        self._inputs = _Ends(graph.inputs, graph._inputs_struct, [t.name for t in graph.inputs])
        self._outputs = _Ends(graph.outputs, graph._outputs_struct, list(graph.output_names))
        for split in (dataset.train, dataset.validation):
            specs = split.element_spec
            if "inputs" in ends:
                try:
                    specs_of = self._inputs.arrays(specs[0], "inputs")
                except UsageError as error:
                    raise UsageError(f"{self._name} does not fit {dataset.name}: {error}") from None
                for tensor, spec in zip(model.inputs, specs_of, strict=True):
                    self._check_input(tensor, spec, dataset.name, len(model.inputs))
            if "outputs" in ends:
                self._check_targets(specs, dataset.name)

    def check_values(self, dataset: data.Dataset) -> None:
        """Checks that the inputs of the train and the validation split are finite.

        Arrays in memory are looked at as a whole; of other splits, the first examples.

        Raises:
            UsageError: some are not; the message says where the first one is.
        """
        for part, split in (("train", dataset.train), ("validation", dataset.validation)):
            if isinstance(split, data.Arrays) and not any(
                isinstance(leaf, np.memmap) for leaf in leaves(split.inputs)
            ):
                inputs = split.inputs
            else:
                inputs, *_ = next(split.ordered(_LOOKED_AT).as_numpy_iterator())
            arrays = self._inputs.arrays(inputs, "inputs")
            for name, array in zip(self._inputs.names, arrays, strict=True):
                values = np.asarray(array)
                if values.dtype.kind != "f" or np.isfinite(values).all():
                    continue
                bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
                raise UsageError(
                    f"{dataset.name} ({part}) has inputs for {name!r} that are not finite, first "
                    f"in example {int(bad.argmax())}, counted from 0: replace them, or leave these "
                    "examples out"
                )

    def bound(self, batches: Any) -> Any:
        """Batches in the structure of the model.

        Args:
            batches: a `tf.data.Dataset` of tuples of inputs, targets and, optionally, sample
                weights, as the splits of the data set have them.

        Returns:
            A `tf.data.Dataset`.
        """
        if not self._plain(batches.element_spec):
            return batches.map(self.batch)
        return batches

    def batch(self, inputs: Tree, targets: Tree, weights: Tree = None) -> tuple[Tree, ...]:
        """One batch in the structure of the model; sample weights may be one array for all."""
        packed = (
            self._inputs.packed(self._inputs.arrays(inputs, "inputs")),
            self._outputs.packed(self._outputs.arrays(targets, "targets")),
        )
        if weights is None:
            return packed
        if isinstance(weights, dict | tuple | list):
            weights = self._outputs.packed(self._outputs.arrays(weights, "sample weights"))
        return *packed, weights

    def _plain(self, specs: Sequence[Tree]) -> bool:
        """Whether batches are in the structure of the model: one array for one end."""
        nested = self._inputs.nested or self._outputs.nested
        return not nested and not any(isinstance(s, dict | tuple | list) for s in specs)

    def _check_input(self, tensor: keras.KerasTensor, spec: Any, data: str, count: int) -> None:
        which = f"input {tensor.name!r} of {self._name}" if count > 1 else self._name
        takes, has = tuple(tensor.shape), (None, *spec.shape)
        what = "images" if len(has) == 4 and count == 1 else "inputs"
        if not _fits(takes, has):
            raise UsageError(
                f"{which} takes {takes}, and {data} has {what} of {has}: "
                "build it with this input shape"
            )
        if takes[0] is not None:
            raise UsageError(
                f"{which} takes only batches of {takes[0]}, and the last batch of a data set may "
                "be smaller: build it with an open batch size"
            )
        expected, given = (keras.backend.standardize_dtype(x.dtype) for x in (tensor, spec))
        if _kind(expected) == _kind(given) or _kind(expected) == "float" == _kind(given, "float"):
            return
        if _kind(expected) == "integer" and given == "bool":
            return
        raise UsageError(
            f"{which} takes {expected}, and {data} has {what} of {given}: "
            f"build it with an input of {given}, or give data of {expected}"
        )

    def _check_targets(self, specs: Sequence[Tree], name: str) -> None:
        if len(specs) < 2:
            raise UsageError(
                f"{name} has inputs without targets, and a training needs both: give pairs of "
                "inputs and targets"
            )
        try:
            self._outputs.arrays(specs[1], "targets")
            if len(specs) > 2 and isinstance(specs[2], dict | tuple | list):
                self._outputs.arrays(specs[2], "sample weights")
        except UsageError as error:
            raise UsageError(f"{self._name} does not fit {name}: {error}") from None


class _Ends:
    """The inputs or the outputs of a model, with their names and structure."""

    def __init__(
        self, tensors: Sequence[keras.KerasTensor], structure: Any, names: list[str]
    ) -> None:
        # The order in which Keras flattens a dict may be another than that of its keys.
        self._structure = structure
        self._places = {id(tensor): place for place, tensor in enumerate(tensors)}
        counts = Counter(names)
        self.names = [
            name if counts[name] == 1 else f"{name}_{place}" for place, name in enumerate(names)
        ]
        self._keys = list(self.names)
        if isinstance(structure, dict):
            for key, tensor in structure.items():
                if id(tensor) in self._places:
                    self._keys[self._places[id(tensor)]] = key
        self._ambiguous = self._keys != list(structure) if isinstance(structure, dict) else False
        # Keras gives and takes one array in place of a list of one.
        self.nested = len(tensors) > 1 or isinstance(structure, dict)

    def arrays(self, tree: Tree, what: str) -> list[Any]:
        """The arrays of a tree in the order of the model."""
        names = self._keys
        if isinstance(tree, dict) and set(tree) == set(self.names):
            names = self.names
        if self._ambiguous and not isinstance(tree, dict):
            # Keras flattens a dict in the order of the alphabet.
            raise UsageError(
                f"the {what} have an order, and the model has a dict of {', '.join(names)}: give "
                "a dict with these names"
            )
        return list(data.by_name(tree, names, what).values())

    def packed(self, arrays: Sequence[Any]) -> Tree:
        """Arrays in the structure of the model; tuples in place of lists, as tf.data needs them."""
        if not self.nested:
            return arrays[0]
        return self._pack(self._structure, arrays)

    def _pack(self, structure: Any, arrays: Sequence[Any]) -> Tree:
        if isinstance(structure, dict):
            return {key: self._pack(part, arrays) for key, part in structure.items()}
        if isinstance(structure, tuple | list):
            return tuple(self._pack(part, arrays) for part in structure)
        return arrays[self._places[id(structure)]]


def _fits(takes: tuple[Any, ...], has: tuple[Any, ...]) -> bool:
    # Keras adds or drops a last axis of one.
    if len(takes) == len(has) + 1 and takes[-1] == 1:
        has = (*has, 1)
    elif len(takes) + 1 == len(has) and has[-1] == 1:
        has = has[:-1]
    return len(takes) == len(has) and all(
        own is None or own == other or other is None
        for own, other in zip(takes[1:], has[1:], strict=True)
    )


def _kind(dtype: str, integers: str = "integer") -> str:
    """What sort of values a dtype has; integers may stand for floating numbers."""
    if keras.backend.is_float_dtype(dtype):
        return "float"
    if keras.backend.is_int_dtype(dtype):
        return integers
    return dtype
