"""Recurrent layers: their units are channels, which their own recurrent kernels read too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import layers

from tfprune.filters.channels import Channels, Trace, float_values
from tfprune.filters.rules.elementwise import not_pointwise
from tfprune.filters.rules.linear import silent_or_constant
from tfprune.filters.rules.registry import channel_rule, refuse, refusing
from tfprune.model.activations import is_pointwise
from tfprune.model.layer_table import TypeTable

_SIZE: TypeTable[str] = TypeTable(
    {
        layers.SimpleRNN: "units",
        layers.GRU: "units",
        layers.LSTM: "units",
        layers.ConvLSTM1D: "filters",
        layers.ConvLSTM2D: "filters",
        layers.ConvLSTM3D: "filters",
    }
)


@channel_rule(*_SIZE)
def recurrent(trace: Trace, layer: Any, x: Channels, *states: Channels) -> Sequence[Channels]:
    """A unit takes its column of every gate, and its row of the recurrent kernel, with it."""
    shapes = [tuple(tensor.shape) for tensor in trace.call.outputs]
    axis = _channel_axis(layer, shapes[0], steps=layer.return_sequences)
    made = trace.produce(axis)
    _freeze_coupled(trace, layer, made)
    for state in states:
        trace.unite(made, trace.along(state, _channel_axis(layer, state.shape, steps=False)))
    made = _cell(trace, layer, x, made, starts_at_zero=not states)
    trace.number(_SIZE[type(layer)], made)
    after = [
        replace(made, shape=shape, axis=_channel_axis(layer, shape, steps=False))
        for shape in shapes[1:]
    ]
    return [made, *after]


def _channel_axis(layer: Any, shape: Sequence[int | None], *, steps: bool) -> int:
    first = getattr(layer, "data_format", None) == "channels_first"
    return 1 + steps if first else len(shape) - 1


def _freeze_coupled(trace: Trace, layer: Any, made: Channels) -> None:
    """Freezes the units of a layer whose units depend on each other in a way without a rule."""
    if layer.stateful:
        trace.freeze(made, f"{layer.name} keeps its state between batches")
    for activation in (layer.activation, getattr(layer, "recurrent_activation", None)):
        if not is_pointwise(activation):
            trace.freeze(made, not_pointwise(activation))


def _cell(
    trace: Trace, layer: Any, x: Channels, made: Channels, *, starts_at_zero: bool
) -> Channels:
    """Records the weights of a recurrent layer that reads `x` and makes `made`."""
    x = trace.along(x, _channel_axis(layer, x.shape, steps=True))
    cell = layer.cell
    kernel, recurrent_kernel = float_values(cell.kernel), float_values(cell.recurrent_kernel)
    gates = kernel.shape[-1] // len(made)
    by_gate = replace(
        made,
        shape=(gates * len(made),),
        axis=0,
        ids=np.tile(made.ids, gates),
        constant=np.tile(made.constant, gates),
    )
    trace.weight(cell.kernel, -2, x, "input")
    trace.weight(cell.kernel, -1, by_gate, "filter")
    trace.weight(cell.recurrent_kernel, -1, by_gate, "filter")
    bias = np.zeros(len(by_gate))
    if cell.use_bias:
        trace.weight(cell.bias, -1, by_gate, "filter")
        # A GRU has a bias for either kernel.
        bias = np.abs(float_values(cell.bias)).reshape(-1, len(bias)).max(axis=0)
    heard = silent_or_constant(kernel, bias, x.constant)
    itself = np.abs(recurrent_kernel).sum(axis=tuple(range(recurrent_kernel.ndim - 1)))
    silent = ((heard == 0) & (itself == 0)).reshape(gates, -1).all(axis=0)
    # A state of zeros meets a candidate of activation(0), which must be zero too.
    zero = replace(made, constant=np.zeros(len(made)))
    rests = is_pointwise(layer.activation) and (zero.mapped(layer.activation).constant == 0).all()
    known = silent & rests & starts_at_zero
    made = replace(made, constant=np.where(known, 0.0, np.nan), linear=None)
    trace.weight(cell.recurrent_kernel, -2, made, "input")
    return made


@channel_rule(layers.Bidirectional)
def bidirectional(trace: Trace, layer: Any, x: Channels, *states: Channels) -> Sequence[Channels]:
    """The units of the two directions go pair by pair."""
    ways = (layer.forward_layer, layer.backward_layer)
    everything = (x, *states)
    if any(_SIZE.of(way) is None for way in ways):
        kind = type(ways[0]).__name__
        return refuse(trace, f"wraps a {kind}, which has no rule", *everything)
    if states or any(way.return_state for way in ways):
        return refuse(trace, "hands on its state", *everything)
    if ways[0].cell.kernel.shape != ways[1].cell.kernel.shape:
        return refuse(trace, "has directions of different sizes", *everything)
    if getattr(ways[0], "data_format", None) == "channels_first":
        return refuse(trace, "joins its directions along another axis", *everything)
    shapes = [tuple(tensor.shape) for tensor in trace.call.outputs]
    axis = _channel_axis(ways[0], shapes[0], steps=ways[0].return_sequences)
    made = trace.produce(axis)
    size = getattr(ways[0], _SIZE[type(ways[0])])
    halves = []
    for way, key, ids in zip(ways, ("layer", "backward_layer"), _split(made, size), strict=True):
        part = Channels((size,), 0, ids, np.full(size, np.nan))
        _freeze_coupled(trace, way, part)
        inner = replace(trace.call, operation=way)
        with trace.within(inner, key, "config"):
            trace.number(_SIZE[type(way)], part)
        halves.append(_cell(trace, way, x, part, starts_at_zero=True))
    trace.unite(*halves)
    if layer.merge_mode == "concat":
        constant = np.concatenate([half.constant for half in halves])
        return [replace(made, constant=constant, linear=None)]
    silent = np.where((halves[0].constant == 0) & (halves[1].constant == 0), 0.0, np.nan)
    return [replace(made, shape=shape, constant=silent, linear=None) for shape in shapes]


def _split(made: Channels, size: int) -> tuple[np.ndarray, np.ndarray]:
    # Unless they are concatenated, both directions end up in the same channels.
    return made.ids[:size], made.ids[-size:]


channel_rule(layers.RNN)(refusing("is an RNN around a cell, which has no rule"))
