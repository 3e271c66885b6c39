"""What a model or a file takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from tfprune.data.splits import Tree, by_name
from tfprune.errors import UsageError
from tfprune.model.graph import functional, output_activation


@dataclass(frozen=True)
class Output:
    """One output of a model or a file.

    Attributes:
        name: its key where the model gives a dict, else its name in Keras, or in the file.
        shape: of one example; None for an open size.
        activation: see `tfprune.model.graph.output_activation`; None where it is not known.
        keras_name: its name in Keras, after which exported files call it.
    """

    name: str
    shape: tuple[int | None, ...]
    activation: str | None = None
    keras_name: str = ""

    @property
    def channels(self) -> int | None:
        """The size of the last axis."""
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True, eq=False)
class Ends:
    """What a model or a file takes and gives.

    Attributes:
        where: what messages call it.
        inputs: the names of its inputs, in order.
        outputs: its outputs, in order.
        structure: the numbers of the outputs, nested as the model nests them.
        ordered: whether the outputs have an order that a person sees: a dict is flattened by its
            keys.
    """

    where: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    structure: Any
    ordered: bool = True

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [output.name for output in self.outputs]

    @property
    def keras_names(self) -> list[str]:
        """The names of the outputs in Keras."""
        return [output.keras_name or output.name for output in self.outputs]

    def arrays(self, tree: Tree, what: str) -> list[Any]:
        """The arrays of a tree, one for each output, in the order of the outputs.

        Args:
            tree: one array; several in the order of the outputs; or a dict by their names.
            what: what they are, for messages.

        Raises:
            UsageError: they are others than the outputs.
        """
        names = self.names
        if isinstance(tree, dict) and set(tree) == set(self.keras_names):
            names = self.keras_names
        elif not isinstance(tree, dict) and not self.ordered:
            raise UsageError(
                f"the {what} have an order, and {self.where} gives a dict of {', '.join(names)}: "
                "give a dict with these names"
            )
        return list(by_name(tree, names, what).values())


def ends_of(model: keras.Model) -> Ends:
    """What a model takes and gives.

    Raises:
        UsageError: the model is not built.
    """
    where = f"model {model.name!r}"
    if not getattr(model, "outputs", None):
        raise UsageError(
            f"{where} has no output yet: give a functional model, or a Sequential one that was "
            "built with its input shape"
        )
    keras_names = output_names(model)
    names = [
        name if keras_names.count(name) == 1 else f"{name}_{place}"
        for place, name in enumerate(keras_names)
    ]
    places, ordered = iter(range(len(names))), True
    try:
        nested = functional(model).output
    except UsageError:
        # A call of its own: it is called as it is.
        nested = model.outputs[0] if len(names) == 1 else list(model.outputs)
    structure = keras.tree.map_structure(lambda _: next(places), nested)
    if isinstance(nested, dict):
        for key, place in structure.items():
            if isinstance(place, int):
                names[place] = key
        ordered = len(names) == 1 or names == list(nested)
    outputs = tuple(
        Output(name, tuple(tensor.shape[1:]), output_activation(tensor), keras_name)
        for name, keras_name, tensor in zip(names, keras_names, model.outputs, strict=True)
    )
    inputs = tuple(x.name for x in model.inputs)
    return Ends(where, inputs, outputs, structure, ordered)


def output_names(model: keras.Model) -> list[str]:
    """The names of a built model's outputs, in order; Sequential models keep them inside."""
    names = getattr(model, "output_names", None) or functional(model).output_names
    return list(names)
