"""What a model or a file takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from tfprune.errors import UsageError
from tfprune.model.graph import functional, output_activation


@dataclass(frozen=True)
class Output:
    """One output of a model or a file.

    Attributes:
        name: its name in Keras, or in the file.
        shape: of one example; None for an open size.
        activation: see `tfprune.model.graph.output_activation`; None where it is not known.
    """

    name: str
    shape: tuple[int | None, ...]
    activation: str | None = None

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
    """

    where: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    structure: Any

    @property
    def names(self) -> list[str]:
        """The names of the outputs."""
        return [output.name for output in self.outputs]


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
    names = output_names(model)
    outputs = tuple(
        Output(name, tuple(tensor.shape[1:]), output_activation(tensor))
        for name, tensor in zip(names, model.outputs, strict=True)
    )
    places = iter(range(len(outputs)))
    try:
        structure = keras.tree.map_structure(lambda _: next(places), functional(model).output)
    except UsageError:
        # A call of its own: it is called as it is.
        structure = 0 if len(outputs) == 1 else list(range(len(outputs)))
    return Ends(where, tuple(x.name for x in model.inputs), outputs, structure)


def output_names(model: keras.Model) -> list[str]:
    """The names of a built model's outputs, in order; Sequential models keep them inside."""
    names = getattr(model, "output_names", None) or functional(model).output_names
    return list(names)
