"""Channel ids: names for the entries of every tensor's channel axis, and what hangs on them.

Layers that make channels mint ids, merges unite them, and everything else passes them on. Which
slices of which weight go, and which config numbers shrink, all follow from the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfprune.model.graph import Call

Role = Literal["filter", "scale", "state", "input"]


@dataclass(frozen=True, eq=False)
class Channels:
    """The ids along one axis of a tensor.

    Attributes:
        shape: the tensor's shape, batch first; None where a size is open.
        axis: the axis that carries ids, counted from the front. None means that nothing is known
            of this tensor's channels yet and none of them may go, as for a model's input.
        ids: int64 (shape[axis],); an id may occur several times, as after Flatten.
        constant: float64 (shape[axis],); the value of a channel that is the same at every
            position of every example, NaN where it varies.
        linear: the layer whose weighted sums these are, with nothing done to them yet.
    """

    shape: tuple[int | None, ...]
    axis: int | None
    ids: np.ndarray
    constant: np.ndarray
    linear: keras.Layer | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __post_init__(self) -> None:
        if self.axis is not None and self.shape[self.axis] != len(self.ids):
            raise AssertionError(f"{len(self.ids)} ids for axis {self.axis} of {self.shape}")

    def varying(self) -> Channels:
        """The same ids with nothing known of their values."""
        return replace(self, constant=np.full(len(self.ids), np.nan))

    def only(self, value: float = 0.0) -> Channels:
        """The same ids; a channel whose constant is not `value` counts as varying."""
        return replace(self, constant=np.where(self.constant == value, value, np.nan))

    def mapped(self, function: Callable[..., Any]) -> Channels:
        """The same ids after a function of single numbers, applied to what is constant."""
        known = ~np.isnan(self.constant)
        if not known.any():
            return self
        inputs = keras.ops.convert_to_tensor(np.asarray(self.constant[known], np.float32))
        values = np.full(len(self), np.nan)
        values[known] = keras.ops.convert_to_numpy(function(inputs))
        # A channel that is infinite everywhere is silent to no reader.
        return replace(self, constant=np.where(np.isfinite(values), values, np.nan))

    def taken(self, index: np.ndarray) -> Channels:
        """The channels at the places `index`, int (n,), of a tensor that carries some."""
        assert self.axis is not None
        shape = (*self.shape[: self.axis], len(index), *self.shape[self.axis + 1 :])
        ids, constant = self.ids[index], self.constant[index]
        return replace(self, shape=shape, ids=ids, constant=constant, linear=None)

    def at_one_step(self) -> Channels:
        """The same ids in a tensor without the second axis, which may not carry them."""
        assert self.axis != 1
        axis = None if self.axis is None else self.axis - 1
        return replace(self, shape=(self.shape[0], *self.shape[2:]), axis=axis)

    def at_all_steps(self, shape: tuple[int | None, ...]) -> Channels:
        """The same ids in a tensor of `shape`, which has the steps as its second axis."""
        axis = None if self.axis is None else self.axis + 1
        return replace(self, shape=tuple(shape), axis=axis)


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one weight, and the ids that index it.

    Attributes:
        variable: the weight.
        axis: which of its axes, counted from the front.
        ids: int64 (variable.shape[axis],).
        role: `filter` for what makes the channel (kernel and bias), `scale` for what scales and
            shifts it, `state` for statistics, `input` for what reads it.
    """

    variable: keras.Variable
    axis: int
    ids: np.ndarray
    role: Role


@dataclass(frozen=True, eq=False)
class ConfigNumber:
    """A config entry that counts or lists channels, such as `filters` of a Conv2D.

    Attributes:
        layer: the layer or raw operation whose config it is.
        path: the keys that lead to the entry; more than one in the config of a wrapped layer, and
            beginning with `inbound_nodes` in the arguments of its calls.
        ids: the channels it counts.
        edited: from the entry and which of `ids` are kept, bool (len(ids),), to the new entry.
    """

    layer: keras.Operation
    path: tuple[str | int, ...]
    ids: np.ndarray
    edited: Callable[[Any, np.ndarray], Any]


@dataclass(frozen=True, eq=False)
class Remark:
    """Why some ids may not go, or what their going costs."""

    ids: np.ndarray
    layer: str
    reason: str


@dataclass(frozen=True, eq=False)
class Read:
    """Channels meeting the weight that reads them."""

    channels: Channels
    variable: keras.Variable
    axis: int


class Trace:
    """What channel rules record while a model is walked.

    Rules call `produce`, `unite`, `along`, `weight`, `number`, `freeze` and `inexact`; `call` is
    the call they are answering for.
    """

    call: Call

    def __init__(self) -> None:
        self.count = 0
        self.producers: dict[int, tuple[keras.Layer, np.ndarray]] = {}
        self.slices: dict[tuple[int, int], Slice] = {}
        self.numbers: dict[tuple[int, tuple[str | int, ...]], ConfigNumber] = {}
        self.reads: list[Read] = []
        self.normalized: set[int] = set()
        self.frozen: list[Remark] = []
        self.inexactness: list[Remark] = []
        self._edges: list[tuple[np.ndarray, np.ndarray]] = []
        self._entered: dict[int, Channels] = {}
        self._wrapper: tuple[keras.Layer, tuple[str, ...]] | None = None

    # -- what rules return ---------------------------------------------------------------------

    def opaque(self, shape: tuple[int | None, ...]) -> Channels:
        """A tensor of which nothing may go, whichever axis is asked for."""
        return Channels(tuple(shape), None, np.empty(0, np.int64), np.empty(0))

    def produce(self, axis: int, constant: np.ndarray | None = None) -> Channels:
        """The channels that the current layer makes; the same ids at each of its calls.

        Args:
            axis: the channel axis of the layer's output; negative counts from the back.
            constant: float (channels,), the value of each channel that is constant, else NaN.
        """
        shape = tuple(self.call.outputs[0].shape)
        axis %= len(shape)
        layer = self.call.operation if self._wrapper is None else self._wrapper[0]
        if id(layer) not in self.producers:
            self.producers[id(layer)] = (layer, self._mint(shape[axis]))
        ids = self.producers[id(layer)][1]
        values = np.full(len(ids), np.nan) if constant is None else constant
        return Channels(shape, axis, ids, values, linear=layer)

    def passed(self, channels: Channels, axis: int | None = None) -> Channels:
        """The same channels in the shape of the current call's output.

        Args:
            channels: what comes in.
            axis: the channel axis of the output where it moved.
        """
        shape = tuple(self.call.outputs[0].shape)
        if channels.axis is None:
            return self.opaque(shape)
        axis = channels.axis if axis is None else axis
        return replace(channels, shape=shape, axis=axis, linear=None)

    def along(self, channels: Channels, axis: int) -> Channels:
        """The ids along the axis that a rule needs.

        Where `channels` carries ids along another axis those are frozen, and where it carries
        none, frozen ones are minted: channels without a rule must not be removed.
        """
        axis %= len(channels.shape)
        if channels.axis == axis:
            return channels
        layer = self.call.operation.name
        self.freeze(channels, f"{layer} reads axis {axis} of a tensor whose channels lie elsewhere")
        ids = self._mint(channels.shape[axis])
        minted = Channels(channels.shape, axis, ids, np.full(len(ids), np.nan))
        self.freeze(minted, f"{layer} reads what has no removable channels")
        return minted

    def entered(self, tensor: keras.KerasTensor, channels: Channels) -> Channels:
        """The channels that a nested model finds at its input, alike at each of its calls.

        Args:
            tensor: the input of the nested model.
            channels: what the current call gives it.
        """
        first = self._entered.setdefault(id(tensor), channels)
        if first.axis is None:
            name = self.call.operation.name
            self.freeze(channels, f"{name} is also called on what has no removable channels")
            return channels
        channels = self.along(channels, first.axis)
        if channels is not first:
            self.unite(first, channels)
        layer = tensor._keras_history.operation
        self._number(layer, ("batch_shape",), first.ids, sized(first.axis))
        return channels

    @contextmanager
    def within(self, call: Call, *path: str) -> Iterator[None]:
        """While it lasts, rules answer for a layer that the current one wraps.

        Args:
            call: the call of the wrapped layer.
            path: where its config lies in that of the wrapper.
        """
        before = self.call, self._wrapper
        layer, prefix = self._wrapper or (self.call.operation, ())
        self.call, self._wrapper = call, (layer, (*prefix, *path))
        yield
        self.call, self._wrapper = before

    @property
    def wrapped(self) -> bool:
        """Whether rules answer for a layer inside another one."""
        return self._wrapper is not None

    # -- what rules record ---------------------------------------------------------------------

    def unite(self, first: Channels, second: Channels) -> None:
        """Makes channels inseparable, pair by pair."""
        self._edges.append((first.ids, second.ids))

    def weight(self, variable: keras.Variable, axis: int, channels: Channels, role: Role) -> None:
        """Says that `channels` index an axis of a weight."""
        axis %= len(variable.shape)
        if role == "input":
            self.reads.append(Read(channels, variable, axis))
        known = self.slices.setdefault(
            (id(variable), axis), Slice(variable, axis, channels.ids, role)
        )
        if known.ids is not channels.ids:
            # A shared layer: one weight serves both calls, so their channels go together.
            self._edges.append((known.ids, channels.ids))

    def normalize(self, channels: Channels) -> None:
        """Says that the scale and shift of `channels` are taken out here, as by BatchNorm.

        For layers whose own weights set the scale anew. The filters of the linear layer right
        before then have a direction but no scale: ten times the filter is the same filter.
        """
        tensor = self.call.inputs[0]
        if channels.linear is None or not hasattr(tensor, "_keras_history"):
            return
        read = [
            node
            for node in tensor._keras_history.operation._outbound_nodes
            if any(each is tensor for each in node.input_tensors)
        ]
        # Another reader of the tensor sees the scale.
        if len(read) == 1:
            self.normalized.update(id(weight) for weight in channels.linear.weights)

    def number(self, key: str, channels: Channels, axis: int | None = None) -> None:
        """Says that a config entry of the current layer counts `channels`.

        Args:
            key: the entry, an int or a shape.
            channels: what it counts.
            axis: where it is a shape, which of its axes counts them.
        """
        layer, path = self._config(key)
        self._number(layer, path, channels.ids, counted if axis is None else sized(axis))

    def listed(self, key: str, channels: Channels) -> None:
        """Says that a config entry of the current layer lists one number for each of `channels`.

        An entry of one number stands for all of them and stays.
        """
        layer, path = self._config(key)
        self._number(layer, path, channels.ids, listed)

    def edit(
        self, channels: Channels, edited: Callable[[Any, np.ndarray], Any], *path: str | int
    ) -> None:
        """Says how what the current operation was told follows from which of `channels` live.

        Args:
            channels: what it depends on.
            edited: from the entry and which of `channels` are kept, bool (len(channels),), to the
                new entry.
            *path: the keys that lead to the entry in the operation's config; beginning with
                `inbound_nodes`, in the arguments of its calls.
        """
        operation, prefix = self._config(path[0])
        self._number(operation, (*prefix, *path[1:]), channels.ids, edited)

    def _config(self, key: str | int) -> tuple[keras.Operation, tuple[str | int, ...]]:
        if self._wrapper is None:
            return self.call.operation, (key,)
        return self._wrapper[0], (*self._wrapper[1], key)

    def _number(
        self,
        layer: keras.Operation,
        path: tuple[str | int, ...],
        ids: np.ndarray,
        edited: Callable[[Any, np.ndarray], Any],
    ) -> None:
        known = self.numbers.setdefault((id(layer), path), ConfigNumber(layer, path, ids, edited))
        if known.ids is not ids:
            # A shared layer: one number serves both calls, so their channels go together.
            self._edges.append((known.ids, ids))

    def freeze(self, channels: Channels, reason: str) -> None:
        """Forbids the removal of `channels`; `reason` completes "cannot go, because ..."."""
        self.frozen.append(Remark(channels.ids, self._name(), reason))

    def inexact(self, channels: Channels, reason: str) -> None:
        """Says that removing `channels` is not the same as silencing them."""
        self.inexactness.append(Remark(channels.ids, self._name(), reason))

    # -- what planners read --------------------------------------------------------------------

    def components(self) -> np.ndarray:
        """Int (count,): for each id the number of the removable unit it belongs to."""
        if not self._edges:
            return np.arange(self.count)
        rows = np.concatenate([first for first, _ in self._edges])
        columns = np.concatenate([second for _, second in self._edges])
        shape = (self.count, self.count)
        graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=shape)
        return connected_components(graph, directed=False)[1]

    def _mint(self, count: int | None) -> np.ndarray:
        if count is None:
            raise AssertionError("a channel axis has an open size")
        ids = np.arange(self.count, self.count + count)
        self.count += count
        return ids

    def _name(self) -> str:
        return self.call.operation.name if hasattr(self, "call") else ""


def counted(entry: Any, kept: np.ndarray) -> int:
    """An entry that counts channels, when some are kept."""
    return int(kept.sum())


def listed(entry: Any, kept: np.ndarray) -> Any:
    """An entry with one number a channel, or one for all of them."""
    if isinstance(entry, dict):
        # Some layers serialise an array, others make a list of it.
        entry = keras.saving.deserialize_keras_object(entry)
    return np.compress(kept, entry, axis=-1).tolist() if np.size(entry) > 1 else entry


def sized(axis: int) -> Callable[[Any, np.ndarray], tuple[int, ...]]:
    """For an entry that is a shape whose `axis` counts channels."""

    def edited(entry: Any, kept: np.ndarray) -> tuple[int, ...]:
        # None stands for whatever comes in, and shrinks by itself.
        sizes = list(entry)
        sizes[axis] = None if sizes[axis] is None else int(kept.sum())
        return tuple(sizes)

    return edited


def float_values(variable: Any) -> np.ndarray:
    """A variable's value as float64, so that analysis loses nothing to rounding."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def agreed(constants: np.ndarray) -> np.ndarray:
    """The constant that all of several channels share, NaN where they differ or vary.

    Args:
        constants: float (tensors, channels).
    """
    return np.where((constants == constants[0]).all(axis=0), constants[0], np.nan)
