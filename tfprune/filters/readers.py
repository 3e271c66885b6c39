"""Who reads the channels of a model, what is constant there, and where a constant could go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tfprune.filters.borders import border_error
from tfprune.filters.channels import Channels, Read, agreed, float_values
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.rules.arguments import channel_axis
from tfprune.model.activations import is_activation
from tfprune.model.graph import calls, functional, is_graph, named_layers

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)


@dataclass(frozen=True, eq=False)
class Reader:
    """A weight that reads channels, at all of its calls.

    Attributes:
        path: of the layer that owns it.
        layer: that layer.
        variable: the weight.
        kernel: its value, float64.
        axis: which of its axes meets the channels, counted from the front.
        inputs: the channels it meets, one entry a call.
        units: int (channels,).
        constant: float (channels,), the value that a channel has at every call, position and
            example, else NaN.
        heard: bool (channels,), whether a channel that is not always zero meets weights that are
            not.
        into: path of the layer that can hold constants for it, None where there is none.
        refusal: why there is none.
    """

    path: str
    layer: Any
    variable: keras.Variable
    kernel: np.ndarray
    axis: int
    inputs: tuple[Channels, ...]
    units: np.ndarray
    constant: np.ndarray
    heard: np.ndarray
    into: str | None
    refusal: str

    def shifts(self, chosen: np.ndarray) -> np.ndarray:
        """What each tap of the kernel makes of some constants.

        Args:
            chosen: bool (channels,), which of them; all must be constant.

        Returns:
            float (*kernel_size, filters), or (units,) of a dense layer.
        """
        return np.tensordot(
            self.constant[chosen], np.compress(chosen, self.kernel, self.axis), (0, self.axis)
        )

    def error(self, chosen: np.ndarray) -> float:
        """How far off the output is at the borders when the channels `chosen` are in the bias."""
        if type(self.layer) not in _CONVOLUTIONS:
            return 0.0
        shifts = self.shifts(chosen)
        return max(border_error(self.layer, _sizes(each), shifts) for each in self.inputs)


def readers(groups: ChannelGroups) -> list[Reader]:
    """Every weight of a model that reads channels."""
    reads: dict[int, list[Read]] = {}
    for read in groups.trace.reads:
        # No rule reads two axes of one weight.
        reads.setdefault(id(read.variable), []).append(read)
    owners = {
        id(variable): (path, layer)
        for path, layer in named_layers(groups.model).items()
        for variable in layer.weights
    }
    norms = _norms(groups.model)
    return [_reader(groups, *owners[key], found, norms) for key, found in reads.items()]


def _reader(
    groups: ChannelGroups, path: str, layer: Any, reads: Sequence[Read], norms: dict[str, str]
) -> Reader:
    variable, axis = reads[0].variable, reads[0].axis
    kernel = float_values(variable)
    inputs = tuple(read.channels for read in reads)
    constants = np.stack([each.constant for each in inputs])
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    into = path if getattr(layer, "use_bias", False) else norms.get(path)
    refusal = ""
    if type(layer) not in (layers.Dense, *_CONVOLUTIONS):
        refusal = f"no bias of a {type(layer).__name__} can stand in for it"
    elif into is None:
        refusal = "the layer has no bias, and is not read by a BatchNorm alone"
    elif type(layer) in _CONVOLUTIONS and layer.padding != "valid" and any(map(_open, inputs)):
        refusal = "the layer pads images of open size"
    return Reader(
        path=path,
        layer=layer,
        variable=variable,
        kernel=kernel,
        axis=axis,
        inputs=inputs,
        units=groups.unit[inputs[0].ids],
        constant=agreed(constants),
        heard=(kernel != 0).any(axis=others) & (constants != 0).any(axis=0),
        into=None if refusal else into,
        refusal=refusal,
    )


def _sizes(channels: Channels) -> list[int]:
    """The sizes of an image, without batch and channels, 0 where one is open."""
    sizes = enumerate(channels.shape)
    return [size or 0 for place, size in sizes if place not in (0, channels.axis)]


def _open(channels: Channels) -> bool:
    return 0 in _sizes(channels)


def _norms(model: keras.Model, prefix: str = "") -> dict[str, str]:
    """The path of each layer whose weighted sums one BatchNorm alone reads, to the BatchNorm's.

    Args:
        model: one level of a model.
        prefix: what every path begins with.
    """
    level = list(calls(model))
    returned = {id(tensor) for tensor in functional(model).outputs}
    found: dict[str, str] = {}
    for operation in functional(model).operations:
        if is_graph(operation):
            found |= _norms(operation, f"{prefix}{operation.name}/")
        if not is_activation(getattr(operation, "activation", None), "linear"):
            continue
        made = [call.outputs[0] for call in level if call.operation is operation]
        reading = [call for call in level if any(each is made[0] for each in call.inputs)]
        if len(made) != 1 or len(reading) != 1 or id(made[0]) in returned:
            continue
        norm, rank = reading[0].operation, len(made[0].shape)
        alone = type(norm) is layers.BatchNormalization and len(norm._inbound_nodes) == 1
        if alone and norm.axis % rank == channel_axis(operation, rank):
            found[prefix + operation.name] = prefix + norm.name
    return found
