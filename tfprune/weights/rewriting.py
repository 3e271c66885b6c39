"""Rewrites a model so that XNNPACK's sparse kernels can run it, with the same outputs.

The kernels take few forms of layers (`tfprune.weights.xnnpack`). What has another form and computes
the same in one of theirs is rewritten:

- Strided windows with `padding="same"` begin at the first pixel where the size of the image is
  even, and one pixel before it where it is odd. The kernels know the second only. Where the image
  is mirrored, windows that began at the first pixel end at the last one, and so begin one pixel
  before. So a net for images of even size computes the same on the mirrored image, with mirrored
  kernels; its global average pooling gives the same for both.
- A depthwise kernel of 3x3 that begins elsewhere is a part of one of 5x5.
- What works on each pixel alone, such as BatchNorm behind a sum, is a part of a depthwise
  convolution of 3x3 that has one weight in its middle.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers
from keras.src.ops.nn import HardSigmoid
from keras.src.ops.numpy import Add, Divide, Flip, Multiply, Subtract, TrueDivide

from tfprune.errors import UsageError
from tfprune.model.activations import is_activation
from tfprune.model.graph import Call, functional
from tfprune.model.inlining import Arguments, inlined, rebuilt, separated, unused_name
from tfprune.weights.xnnpack import (
    ACTIVATION_LAYERS,
    NOTHING,
    Graph,
    odd_relu,
    unknown_activation,
    wrong_form,
)

_FRAMES: tuple[tuple[int, ...], ...] = ((), (1, 2), (1,), (2,))
"""The axes that may be mirrored, the simplest first."""
# Of the convolution that begins a part, and of depthwise ones.
_FIRST_SIZES = (3,)
_SIZES = (3, 5)
_COLOURS = 3
_IMAGE = 4
_FIXED = "float32"


def rewrite_for_xnnpack(model: keras.Model) -> keras.Model:
    """Rewrites what keeps XNNPACK from running a model sparse, as far as outputs stay the same.

    Example:
        ```python
        model = keras.applications.MobileNet((96, 96, 3), weights=None)
        rewritten = tfprune.rewrite_for_xnnpack(model)
        sparse = tfprune.weights.prune_once(rewritten, 0.8, policy="xnnpack")
        ```

    Phones and browsers run zeros faster only where each layer of a net has the form that XNNPACK
    knows. These forms are made of others:

    - strided convolutions with `padding="same"` or one-sided padding: symmetric padding; for
      images of even size the whole net computes on the mirrored image, with mirrored kernels, or a
      depthwise kernel of 3x3 becomes a part of one of 5x5, with 25/9 of its multiplications;
    - 1x1 convolutions with strides: a depthwise convolution picks the pixels before them;
    - depthwise convolutions of other kernels up to 5x5, dilated ones, convolutions of as many
      groups as channels, average poolings: depthwise convolutions of 3x3 or 5x5;
    - BatchNorm that no convolution takes in, numbers that are added or multiplied, hard sigmoid,
      ReLU with another maximum: a frozen depthwise convolution with one weight for each channel;
    - sums and products of more than two, separable convolutions, Dense on images, squeeze and
      excitation with Dense or Reshape, and poolings over whole images: the same in other layers.

    Weights stay, zeros too, and so do the names of layers. Nested models become parts of one
    graph. A layer that is called twice stays one layer. The result can be trained; the layers that
    only move or scale pixels are frozen.

    Args:
        model: a functional or built Sequential model; it is not changed.

    Returns:
        A new, uncompiled functional model with the same outputs up to float rounding.

        A warning names the layers that forbid it in other parts of the model.

    Raises:
        UsageError: XNNPACK could run nothing sparse of the rewritten model either; the message
            names the first layer that forbids it. Or the model has no graph.
    """
    found = rewrites(model)
    if not found.layers:
        name, reason = next(iter(found.left.items()))
        raise UsageError(
            f"model {model.name!r}: XNNPACK can run nothing sparse, and no exact rewriting changes "
            f"that: {name}: {reason}"
        )
    if found.left:
        told = "; ".join(f"{name}: {reason}" for name, reason in found.left.items())
        warnings.warn(
            f"rewrite_for_xnnpack: a part of the model cannot run sparse: {told}", stacklevel=2
        )
    return found.model


def rewrites(model: keras.Model) -> Rewrites:
    """Finds what `rewrite_for_xnnpack` would change of a model.

    Example:
        ```python
        found = rewrites(model)
        found.changes  # {"conv_dw_2": "gets ZeroPadding2D(1) of its own and padding='valid'"}
        ```

    Args:
        model: a functional or built Sequential model; it is not changed.

    Raises:
        UsageError: the model has no graph.
    """
    flat = inlined(model)
    tried = [_Rewritable(flat, mirrored) for mirrored in _FRAMES]
    return Rewrites(flat, max(tried, key=lambda graph: graph.worth))


class Rewrites:
    """What can be rewritten of a model.

    Attributes:
        changes: what becomes of layers, by name, in the parts that can run sparse then.
        left: layers that forbid it in other parts, with reasons.
        layers: the names of the layers that can run sparse then.
    """

    def __init__(self, flat: keras.Model, graph: _Rewritable) -> None:
        self._flat = flat
        self._graph = graph
        self._changes = graph.changes()
        self.changes = {
            call.operation.name: change.said
            for call in graph.calls
            if (change := self._changes.get(id(call.outputs[0]))) is not None and change.said
        }
        self.left = graph.left
        self.layers = tuple(dict.fromkeys(call.operation.name for call in graph.pointwise()))

    @functools.cached_property
    def model(self) -> keras.Model:
        """The rewritten model."""
        writer = _Writer(operation.name for operation in functional(self._flat).operations)

        def emit(call: Call, arguments: Arguments) -> Any:
            tensors = [x for x in keras.tree.flatten(arguments) if isinstance(x, keras.KerasTensor)]
            writer.known |= {id(old): new for old, new in zip(call.inputs, tensors, strict=True)}
            change = self._changes.get(id(call.outputs[0]))
            if change is None:
                return call.operation(*arguments[0], **arguments[1])
            return change.make(writer, tensors)

        return rebuilt(self._flat, emit, self._flat.name)


# -- what stands in place of a call ----------------------------------------------------------------


Make: TypeAlias = "Callable[[_Writer, list[Any]], Any]"


@dataclass(frozen=True)
class _Change:
    """What stands in place of a call.

    Attributes:
        said: it in words, behind the name of the layer; empty where only a kernel is mirrored.
        make: calls it on the tensors of the new graph.
        form: what becomes of the layer's own weights and config; None where they stay. A layer that
            is called twice must have one form.
        macs: how many multiplications it adds.
    """

    said: str
    make: Make
    form: Hashable = None
    macs: int = 0


class _Writer:
    """Makes layers of the new graph.

    Attributes:
        known: tensors of the new graph, by the ids of those that they stand for.
    """

    def __init__(self, names: Any) -> None:
        self.known: dict[int, Any] = {}
        self._names = set(names)
        self._made: dict[Any, Any] = {}

    def name(self, wanted: str) -> str:
        """A name that no layer has yet."""
        name = unused_name(wanted, self._names)
        self._names.add(name)
        return name

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for a key before, or else is made now."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def framed(self, x: Any, size: int, strides: Sequence[int], name: str) -> Any:
        """An image with the zeros around it that strided windows need."""
        if tuple(strides) == (1, 1):
            return x
        return layers.ZeroPadding2D(size // 2, name=self.name(f"{name}_pad"))(x)

    def pixelwise(
        self,
        x: Any,
        name: str,
        *,
        scale: float = 1.0,
        offset: float = 0.0,
        activation: str | None = None,
    ) -> Any:
        """Each number times one, plus another one: a frozen depthwise convolution."""
        kernel = np.zeros((3, 3))
        kernel[1, 1] = scale
        return self.frozen(x, name, kernel, (1, 1), offset, activation)

    def frozen(
        self,
        x: Any,
        name: str,
        kernel: np.ndarray,
        strides: Sequence[int],
        offset: float = 0.0,
        activation: str | None = None,
    ) -> Any:
        """A frozen depthwise convolution with the same kernel, square and odd, on each channel."""
        size, channels = len(kernel), x.shape[-1]
        name = self.name(name)
        layer = layers.DepthwiseConv2D(
            size,
            strides,
            _padding(strides),
            use_bias=bool(offset),
            activation=activation,
            trainable=False,
            dtype=_FIXED,
            name=name,
        )
        made = layer(self.framed(x, size, strides, name))
        weights = [np.repeat(kernel[:, :, None, None], channels, axis=2)]
        layer.set_weights([*weights, *([np.full(channels, offset)] if offset else [])])
        return made

    def activated(self, layer: Any, x: Any, split: bool, new: Callable[[], Any]) -> Any:
        """Calls what stands in place of a layer, made once, with its activation.

        Args:
            layer: that of the old graph.
            x: what it reads.
            split: whether its activation is to be made of layers.
            new: makes what stands in its place.
        """
        made = self.once(id(layer), new)
        if not split:
            return made(x)
        made.activation = keras.activations.linear
        return self.hard_sigmoid(made(x), layer.name)

    def hard_sigmoid(self, x: Any, name: str) -> Any:
        """relu6(x + 3) / 6."""
        x = self.pixelwise(x, f"{name}_add", offset=3.0, activation="relu6")
        return self.pixelwise(x, f"{name}_scale", scale=1 / 6)


def _padding(strides: Sequence[int]) -> str:
    return "same" if tuple(strides) == (1, 1) else "valid"


@dataclass(frozen=True)
class _Windows:
    """Where a kernel lies in a square one of odd size, whose padding is half of it on each side.

    Attributes:
        size: of the square one.
        rows: the places of the kernel's rows in it; descending where the image is mirrored.
        columns: the places of the kernel's columns.
    """

    size: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def is_same(self) -> bool:
        """Whether the kernel stays as it is."""
        return self.rows == self.columns == tuple(range(self.size))

    @property
    def has_form(self) -> bool:
        """Whether the kernel stays as it is, or is mirrored."""
        return len(self.rows) == len(self.columns) == self.size

    def filled(self, kernel: Any) -> np.ndarray:
        """The square kernel.

        Args:
            kernel: (rows, columns, ...).
        """
        values = np.asarray(keras.ops.convert_to_numpy(kernel))
        square = np.zeros((self.size, self.size, *values.shape[2:]), values.dtype)
        square[np.ix_(self.rows, self.columns)] = values
        return square


def _places(
    before: int, kernel: int, dilation: int, size: int, mirrored: bool
) -> tuple[int, ...] | None:
    """Where the weights of a kernel are in a kernel with symmetric padding, along one axis.

    Args:
        before: from `_before`.
        kernel: how many weights there are.
        dilation: their distance.
        size: of the kernel with symmetric padding.
        mirrored: whether the image is mirrored along the axis.

    Returns:
        A place for each weight; None where it is too small for them.
    """
    start = size // 2 - before
    places = tuple(start + dilation * tap for tap in range(kernel))
    if places[0] < 0 or places[-1] >= size:
        return None
    return places[::-1] if mirrored else places


def _before(
    size: int | None,
    extent: int,
    stride: int,
    pads: tuple[int, int],
    same: bool,
    mirrored: bool,
) -> int | str:
    """How far before the image the first window begins, in pixels.

    Args:
        size: of the image along an axis; None where it is open.
        extent: of a window.
        stride: 1 or 2.
        pads: zeros around the image, beside those of "same".
        same: whether the layer itself adds zeros.
        mirrored: whether the image is mirrored along the axis.

    Returns:
        The number, less than 0 where the first window begins inside; or why the windows cannot be
        those of symmetric padding.
    """
    if stride == 1:
        # The count of windows must be the size of the image.
        added = sum(pads) + (extent - 1) * same
        before = pads[0] + (extent - 1) // 2 * same
        if added != extent - 1:
            return "its output has another size than its input"
        return extent - 1 - before if mirrored else before
    if size is None:
        return "the size of its image is open, so that its zeros are not known"
    padded = size + sum(pads)
    count = -(-padded // stride) if same else (padded - extent) // stride + 1
    before = pads[0]
    if same:
        before += max((count - 1) * stride + extent - padded, 0) // 2
    if count != -(-size // stride):
        return "it has another number of windows than symmetric padding gives"
    return (count - 1) * stride + extent - size - before if mirrored else before


# -- which calls can be rewritten ------------------------------------------------------------------


class _Rewritable(Graph):
    """The calls of a flat model, and what can become of each.

    Args:
        model: from `inlined`.
        mirrored: the axes along which the image is mirrored, of 1 and 2.

    Attributes:
        able: the parts of which all calls can run sparse.
        left: the layers that forbid it in others, with reasons.
    """

    def __init__(self, model: keras.Model, mirrored: tuple[int, ...]) -> None:
        super().__init__(model)
        self._mirrored = mirrored
        self._count = Counter(id(call.operation) for call in self.calls)
        self._known: dict[tuple[bool, int], _Change | str | None] = {}
        self.able, self.left = self._settled()

    @property
    def worth(self) -> tuple[int, bool, int, int]:
        """More is better: layers that run sparse, that a part begins, fewer multiplications."""
        begun = any(self.why_no_start(call) == "" for call in self.calls)
        macs = sum(change.macs for change in self.changes().values())
        return len(self.pointwise()), begun, -macs, -len(self._mirrored)

    def pointwise(self) -> list[Call]:
        """The calls of 1x1 convolutions, as they will be, in the parts that can run sparse."""
        return [call for part in self.able for call in part if self.is_pointwise(call)]

    def changes(self) -> dict[int, _Change]:
        """What is changed in the parts that can run sparse, by the id of the output."""
        found: dict[int, _Change] = {}
        for part in self.able:
            for call in part:
                change = self._change(call)
                if isinstance(change, _Change):
                    found[id(call.outputs[0])] = change
        return found

    def _settled(self) -> tuple[list[list[Call]], dict[str, str]]:
        """The parts, less those that share a layer with what is not rewritten."""
        able, left = self.judged()
        while True:
            inside = Counter(id(call.operation) for part in able for call in part)
            torn = [
                (part, call)
                for part in able
                for call in part
                if inside[id(call.operation)] != self._count[id(call.operation)]
                and isinstance(change := self._change(call), _Change)
                and change.form is not None
            ]
            if not torn:
                return able, left
            for part, call in torn:
                left[call.operation.name] = _SHARED
                able = [each for each in able if each is not part]

    def _change(self, call: Call) -> _Change | str | None:
        """What becomes of a call of a part."""
        return self._begun(call) if self.why_no_start(call) == "" else self._inside(call)

    def why_no_start(self, call: Call) -> str:
        """Why a call cannot begin a part, rewritten or not; empty where it can."""
        found = self._begun(call)
        return found if isinstance(found, str) else ""

    def why_not(self, call: Call) -> str:
        """Why a call cannot be inside of a part, rewritten or not; empty where it can."""
        found = self._inside(call)
        return found if isinstance(found, str) else ""

    def is_pointwise(self, call: Call) -> bool:
        """Whether a call is, or becomes, a convolution that can have a sparse kernel."""
        layer = call.operation
        if type(layer) is layers.Conv2D:
            return tuple(layer.kernel_size) == (1, 1) and layer.groups == 1
        return type(layer) in (layers.Dense, layers.SeparableConv2D)

    def is_pooling(self, call: Call) -> bool:
        """Whether a call is, or becomes, a global average pooling."""
        return super().is_pooling(call) or _pools_whole(call)

    def _begun(self, call: Call) -> _Change | str | None:
        return self._memo(call, True, lambda other: self._start(other))

    def _inside(self, call: Call) -> _Change | str | None:
        return self._memo(call, False, lambda other: self._middle(other))

    def _memo(
        self, call: Call, begins: bool, find: Callable[[Call], _Change | str | None]
    ) -> _Change | str | None:
        if (begins, id(call)) not in self._known:
            same = [each for each in self.calls if each.operation is call.operation]
            found = {id(each): find(each) for each in same}
            forms = {
                each.form if isinstance(each, _Change) else None
                for each in found.values()
                if not isinstance(each, str)
            }
            for each in same:
                told = found[id(each)]
                torn = len(forms) > 1 and not isinstance(told, str)
                self._known[begins, id(each)] = _SHARED if torn else told
        return self._known[begins, id(call)]

    # -- the first convolution --

    def _start(self, call: Call) -> _Change | str | None:
        base = super().why_no_start(call)
        layer: Any = call.operation
        if not base and not self._mirrored:
            return None
        if type(layer) is not layers.Conv2D or layer.groups != 1 or wrong_form(layer):
            return base
        channels, split = call.inputs[0].shape[-1], _split(layer)
        if tuple(layer.strides) != (2, 2) or channels not in (1, _COLOURS):
            return base
        if unknown_activation(layer) and not split:
            return base
        windows = self._windows(call, layer, _FIRST_SIZES)
        if isinstance(windows, str):
            return base or windows
        source, _ = self._unpadded(call)
        said = []
        if self._mirrored:
            said.append(f"reads the image {_ROTATED[self._mirrored]}, and so do those behind it")
        if channels != _COLOURS:
            said.append("reads the one channel of its image three times, twice with zeros")
        if base and channels == _COLOURS:
            said.append(_said_windows(windows, layer))

        def make(writer: _Writer, _: list[Any]) -> Any:
            x = writer.known[id(source)]
            if channels != _COLOURS:
                x = layers.Concatenate(name=writer.name(f"{layer.name}_colours"))([x] * _COLOURS)
            for axis in self._mirrored:
                # Some runtimes of TFLite reverse one axis at a time.
                flip = Flip(axis)
                flip.name = writer.name(f"{layer.name}_flip")
                x = flip(x)
            x = writer.framed(x, windows.size, layer.strides, layer.name)
            return writer.activated(layer, x, split, lambda: _first(layer, windows))

        form = ("first", windows, channels)
        return _Change("; ".join(filter(None, said)), make, form)

    # -- what lies behind it --

    def _middle(self, call: Call) -> _Change | str | None:
        kind = type(call.operation)
        if kind is layers.ZeroPadding2D:
            return self._zeros(call)
        base = super().why_not(call)
        if kind is layers.DepthwiseConv2D:
            return self._depthwise(call, base)
        in_line = kind is not layers.GlobalAveragePooling2D and self._excites(call)
        if not base and not in_line:
            return None
        images = all(len(x.shape) == _IMAGE for x in (*call.inputs, *call.outputs))
        rule = _RULES.get(kind) if images or in_line else None
        return base if rule is None else rule(self, call, base)

    def _zeros(self, call: Call) -> str | None:
        """Padding has no part in the new model where those behind it have their own."""
        for reader in self.readers(call):
            if _is_first(reader) and self.why_no_start(reader) == "":
                continue
            if not _takes_padding(reader):
                return super().why_not(call) or "padding that no depthwise convolution takes in"
            if reason := self.why_not(reader):
                return f"padding that {reader.operation.name} cannot take in: {reason}"
        return "its zeros leave the model" if self.is_output(call) else None

    def _unpadded(self, call: Call) -> tuple[Any, tuple[tuple[int, int], tuple[int, int]]]:
        """The image before all padding, and the zeros that are put around it."""
        source = call.inputs[0]
        pads = np.zeros((2, 2), int)
        while (made := self.producer(source)) is not None:
            layer: Any = made.operation
            if type(layer) is not layers.ZeroPadding2D or layer.data_format != "channels_last":
                break
            pads += np.array(layer.padding)
            source = made.inputs[0]
        (top, bottom), (left, right) = pads.tolist()
        return source, ((top, bottom), (left, right))

    def _windows(self, call: Call, layer: Any, sizes: Sequence[int]) -> _Windows | str:
        """The square kernel that the windows of a layer are a part of; or why there is none."""
        kernel = tuple(getattr(layer, "kernel_size", None) or layer.pool_size)
        dilation = tuple(getattr(layer, "dilation_rate", (1, 1)))
        strides = tuple(layer.strides)
        if strides not in ((1, 1), (2, 2)):
            return f"strides {strides[0]}x{strides[1]}: use strides 1 or 2"
        source, pads = self._unpadded(call)
        extents = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
        begins: list[int] = []
        for axis in (0, 1):
            before = _before(
                source.shape[1 + axis],
                extents[axis],
                strides[axis],
                pads[axis],
                layer.padding == "same",
                1 + axis in self._mirrored,
            )
            if isinstance(before, str):
                most = max(kernel) // 2
                return f"{before}: use padding='same', or ZeroPadding2D({most}) for it alone"
            begins.append(before)
        for size in sizes:
            rows, columns = (
                _places(
                    begins[axis], kernel[axis], dilation[axis], size, 1 + axis in self._mirrored
                )
                for axis in (0, 1)
            )
            if rows is not None and columns is not None:
                return _Windows(size, rows, columns)
        if max(extents) > sizes[-1]:
            return f"kernel {kernel[0]}x{kernel[1]}: use kernels of up to {sizes[-1]}x{sizes[-1]}"
        return (
            f"its windows are not a part of a kernel of {sizes[-1]}x{sizes[-1]} with "
            f"ZeroPadding2D({sizes[-1] // 2}): use images of odd size"
        )

    def _depthwise(self, call: Call, base: str) -> _Change | str | None:
        layer: Any = call.operation
        if not base and not self._mirrored:
            return None
        if wrong_form(layer) or layer.depth_multiplier != 1:
            return base
        if unknown_activation(layer) and not _split(layer):
            return base
        windows = self._windows(call, layer, _SIZES)
        if isinstance(windows, str):
            return windows
        if not base and windows.is_same:
            return None
        return self._moved(call, windows, lambda: _depthwise(layer, windows), base)

    def _moved(self, call: Call, windows: _Windows, new: Callable[[], Any], base: str) -> _Change:
        """A layer with other windows, and padding of its own."""
        layer: Any = call.operation
        split = _split(layer)
        source, _ = self._unpadded(call)

        def make(writer: _Writer, _: list[Any]) -> Any:
            x = writer.known[id(source)]
            x = writer.framed(x, windows.size, layer.strides, layer.name)
            return writer.activated(layer, x, split, new)

        taps = windows.size**2 - len(windows.rows) * len(windows.columns)
        said = _said_windows(windows, layer) if base else ""
        if type(layer) is layers.Conv2D:
            said = f"becomes a DepthwiseConv2D, and {said}"
        return _Change(said, make, ("windows", windows), taps * _numbers(call.outputs[0]))

    def _convolution(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        split, channels = _split(layer), call.inputs[0].shape[-1]
        if wrong_form(layer) or (unknown_activation(layer) and not split):
            return base
        if layer.groups == channels == layer.filters and layer.groups > 1:
            windows = self._windows(call, layer, _SIZES)
            if isinstance(windows, str):
                return windows
            return self._moved(call, windows, lambda: _depthwise(layer, windows), base)
        if tuple(layer.kernel_size) != (1, 1) or layer.groups != 1:
            return base
        if tuple(layer.strides) == (1, 1):
            return self._activated(call) if split else base
        picks = self._windows(call, layer, _FIRST_SIZES)
        if isinstance(picks, str):
            return base
        source, _ = self._unpadded(call)

        def make(writer: _Writer, _: list[Any]) -> Any:
            x = writer.known[id(source)]
            picked = picks.filled(np.ones((1, 1)))
            x = writer.frozen(x, f"{layer.name}_pick", picked, (2, 2))
            return writer.activated(layer, x, split, lambda: _unstrided(layer))

        said = "reads a depthwise convolution of 3x3 that picks its pixels, and has strides 1"
        pixels = _numbers(call.outputs[0]) // layer.filters
        return _Change(said, make, "unstrided", 9 * channels * pixels)

    def _activated(self, call: Call) -> _Change:
        """A layer whose hard sigmoid is a part of frozen convolutions behind it."""
        layer: Any = call.operation

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            return writer.activated(layer, tensors[0], True, lambda: layer)

        return _Change(_SPLIT, make, "split", 18 * _numbers(call.outputs[0]))

    def _pooling(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        if wrong_form(layer):
            return base
        if _pools_whole(call):

            def pool(_: _Writer, tensors: list[Any]) -> Any:
                return layers.GlobalAveragePooling2D(keepdims=True, name=layer.name)(tensors[0])

            return _Change("becomes GlobalAveragePooling2D(keepdims=True)", pool)
        windows = self._windows(call, layer, _SIZES)
        # An average leaves the zeros of "same" out.
        if isinstance(windows, str) or _adds_zeros(call):
            return base
        source, _ = self._unpadded(call)

        def make(writer: _Writer, _: list[Any]) -> Any:
            part = np.full(layer.pool_size, 1 / np.prod(layer.pool_size))
            x = writer.known[id(source)]
            return writer.frozen(x, f"{layer.name}_mean", windows.filled(part), layer.strides)

        said = f"becomes a depthwise convolution of {windows.size}x{windows.size}"
        return _Change(said, make, None, windows.size**2 * _numbers(call.outputs[0]))

    def _separable(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        split = _split(layer)
        if wrong_form(layer) or layer.depth_multiplier != 1:
            return base
        if unknown_activation(layer) and not split:
            return base
        windows = self._windows(call, layer, _SIZES)
        if isinstance(windows, str):
            return windows
        source, _ = self._unpadded(call)

        def make(writer: _Writer, _: list[Any]) -> Any:
            def parts() -> tuple[Any, Any]:
                first, second = separated(layer)
                first.name, second.name = writer.name(f"{layer.name}_depthwise"), layer.name
                return _depthwise(first, windows), second

            first, second = writer.once(("separated", id(layer)), parts)
            x = writer.known[id(source)]
            x = first(writer.framed(x, windows.size, layer.strides, layer.name))
            return writer.activated(layer, x, split, lambda: second)

        taps = windows.size**2 - len(windows.rows) * len(windows.columns)
        pixels = _numbers(call.outputs[0]) // layer.filters
        macs = taps * pixels * call.inputs[0].shape[-1]
        said = "becomes a DepthwiseConv2D and a Conv2D of 1x1"
        return _Change(said, make, ("separated", windows), macs)

    def _norm(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        if layer.axis not in (-1, _IMAGE - 1):
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            return layer(writer.pixelwise(tensors[0], f"{layer.name}_identity"))

        said = "reads a depthwise convolution that changes nothing, and takes it in"
        return _Change(said, make, None, 9 * _numbers(call.outputs[0]))

    def _merged(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        if len(call.inputs) < 2:
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            x, *others = tensors
            for each in others[:-1]:
                name = writer.name(f"{layer.name}_part")
                x = type(layer)(dtype=layer.dtype_policy, name=name)([x, each])
            return layer([x, others[-1]])

        return _Change(f"becomes {len(call.inputs) - 1} of two inputs each", make)

    def _activation(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        if not isinstance(layer, HardSigmoid) and not _split(layer):
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            return writer.hard_sigmoid(tensors[0], layer.name)

        return _Change(
            _SPLIT.replace("gets", "becomes"), make, None, 18 * _numbers(call.outputs[0])
        )

    def _relu(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        slope, most = float(layer.negative_slope or 0), layer.max_value
        if layer.threshold or (slope and most is not None) or most == 0:
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            (x,) = tensors
            if most is None:
                return layers.LeakyReLU(slope, name=layer.name)(x)
            x = writer.pixelwise(x, f"{layer.name}_down", scale=6 / most)
            x = layers.ReLU(6.0, name=layer.name)(x)
            return writer.pixelwise(x, f"{layer.name}_up", scale=most / 6)

        if most is None:
            return _Change(f"becomes LeakyReLU({slope:g})", make)
        said = "becomes ReLU(6) between two depthwise convolutions that scale"
        return _Change(said, make, None, 18 * _numbers(call.outputs[0]))

    def _number(self, call: Call, base: str) -> _Change | str:
        found = _line(call)
        if found is None:
            return base
        scale, offset = found
        name = call.operation.name

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            return writer.pixelwise(tensors[0], f"{name}_pixels", scale=scale, offset=offset)

        said = "becomes a depthwise convolution of 3x3"
        return _Change(said, make, None, 9 * _numbers(call.outputs[0]))

    # -- squeeze and excitation without dimensions of one --

    def _excites(self, call: Call) -> bool:
        """Whether a call lies between a pooling and a Reshape that makes a pixel of its output."""
        ahead: Call | None = call
        while ahead is not None and not _makes_pixel(ahead):
            readers = self.readers(ahead)
            linked = len(readers) == 1 and not self.is_output(ahead) and _links(ahead)
            ahead = readers[0] if linked else None
        return ahead is not None and self._pool_before(call) is not None

    def _pool_before(self, call: Call) -> Call | None:
        """The pooling whose numbers a call reads, in a line."""
        made = self.producer(call.inputs[0])
        while made is not None and not isinstance(made.operation, layers.GlobalAveragePooling2D):
            alone = len(self.readers(made)) == 1 and not self.is_output(made)
            made = self.producer(made.inputs[0]) if alone and _links(made) else None
        return made if made is not None and not made.operation.keepdims else None

    def _pixel(self, call: Call, writer: _Writer, given: Any) -> Any:
        """What a call reads, as a pixel."""
        made = self.producer(call.inputs[0])
        if made is None or not isinstance(made.operation, layers.GlobalAveragePooling2D):
            return given
        # Another reader may want its numbers without dimensions of one.
        alone = len(self.readers(made)) == 1 and not self.is_output(made)
        name = made.operation.name

        def pool() -> Any:
            named = name if alone else writer.name(f"{name}_pixel")
            layer = layers.GlobalAveragePooling2D(keepdims=True, name=named)
            return layer(writer.known[id(made.inputs[0])])

        return writer.once(("pixel", id(made.outputs[0])), pool)

    def _dense(self, call: Call, base: str) -> _Change | str:
        layer: Any = call.operation
        image, split = len(call.inputs[0].shape) == _IMAGE, _split(layer)
        if wrong_form(layer) or (unknown_activation(layer) and not split):
            return base
        if not image and not self._excites(call):
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            x = tensors[0] if image else self._pixel(call, writer, tensors[0])
            return writer.activated(layer, x, split, lambda: _pointwise(layer))

        return _Change("becomes a Conv2D of 1x1", make, "pointwise")

    def _linked(self, call: Call, base: str) -> _Change | str:
        """A layer of a line of numbers, which works on a pixel as it does on numbers."""
        if _makes_pixel(call) and call.inputs[0].shape == call.outputs[0].shape:
            return _Change("is left out: it changes nothing", lambda _, tensors: tensors[0])
        if not self._excites(call):
            return self._beside(call, base)
        layer: Any = call.operation
        split = type(layer) is layers.Activation and _split(layer)
        if type(layer) is layers.Activation and unknown_activation(layer) and not split:
            return base
        if isinstance(layer, ACTIVATION_LAYERS) and odd_relu(layer):
            return base

        def make(writer: _Writer, tensors: list[Any]) -> Any:
            x = self._pixel(call, writer, tensors[0])
            if split:
                return writer.hard_sigmoid(x, layer.name)
            return x if _makes_pixel(call) else layer(x)

        said = "is left out: numbers stay pixels" if _makes_pixel(call) else ""
        return _Change(said, make)

    def _beside(self, call: Call, base: str) -> _Change | str:
        """The same kinds of layers on images."""
        kind = type(call.operation)
        if kind is layers.ReLU:
            return self._relu(call, base)
        return self._activation(call, base) if kind is layers.Activation else base


_RULES: dict[type, Callable[[_Rewritable, Call, str], _Change | str]] = {
    layers.Conv2D: _Rewritable._convolution,
    layers.AveragePooling2D: _Rewritable._pooling,
    layers.SeparableConv2D: _Rewritable._separable,
    layers.BatchNormalization: _Rewritable._norm,
    layers.Add: _Rewritable._merged,
    layers.Multiply: _Rewritable._merged,
    layers.Dense: _Rewritable._dense,
    layers.Reshape: _Rewritable._linked,
    layers.Activation: _Rewritable._linked,
    HardSigmoid: _Rewritable._activation,
    layers.Rescaling: _Rewritable._number,
    **dict.fromkeys((Add, Subtract, Multiply, Divide, TrueDivide), _Rewritable._number),
    **dict.fromkeys((*ACTIVATION_LAYERS, *NOTHING), _Rewritable._linked),
}
"""What becomes of a call that is not as it must be, by the type of its layer."""

_SHARED = (
    "it is called more than once, and its calls need different forms: give each a layer of its own"
)
_SPLIT = "gets its hard sigmoid from two depthwise convolutions"
_ROTATED = {
    (1, 2): "rotated by 180 degrees",
    (1,): "flipped from top to bottom",
    (2,): "flipped from left to right",
}


def _split(layer: Any) -> bool:
    """Whether the activation of a layer is made of layers."""
    return bool(is_activation(layer.activation, "hard_sigmoid"))


def _is_first(call: Call) -> bool:
    """Whether a call has the type of layer that begins a part."""
    return type(call.operation) is layers.Conv2D


def _takes_padding(call: Call) -> bool:
    """Whether a call, as it is rewritten, has the padding before it as its own."""
    layer: Any = call.operation
    if type(layer) is layers.Conv2D:
        return tuple(layer.strides) == (2, 2) or layer.groups > 1
    if type(layer) is layers.AveragePooling2D:
        return not _pools_whole(call)
    return type(layer) in (layers.DepthwiseConv2D, layers.SeparableConv2D)


def _pools_whole(call: Call) -> bool:
    """Whether a call averages whole images."""
    layer: Any = call.operation
    if type(layer) is not layers.AveragePooling2D:
        return False
    before, after = call.inputs[0].shape[1:3], call.outputs[0].shape[1:3]
    return tuple(layer.pool_size) == tuple(before) and tuple(after) == (1, 1)


def _adds_zeros(call: Call) -> bool:
    """Whether a pooling looks at pixels outside of the image."""
    layer: Any = call.operation
    if layer.padding != "same":
        return False
    for size, window, stride in zip(
        call.inputs[0].shape[1:3], layer.pool_size, layer.strides, strict=True
    ):
        if size is None or (-(-size // stride) - 1) * stride + window > size:
            return True
    return False


def _makes_pixel(call: Call) -> bool:
    """Whether a call gives the numbers that it reads as one pixel."""
    shape = tuple(call.outputs[0].shape[1:])
    return isinstance(call.operation, layers.Reshape) and shape[:2] == (1, 1) and len(shape) == 3


def _links(call: Call) -> bool:
    """Whether a call computes the same on one pixel as on its numbers."""
    kinds = (layers.Dense, layers.Activation, *ACTIVATION_LAYERS, *NOTHING)
    return type(call.operation) in kinds and len(call.inputs[0].shape) == _IMAGE - 2


def _line(call: Call) -> tuple[float, float] | None:
    """What a call multiplies each number by, and what it adds then; None for other calls."""
    operation: Any = call.operation
    if type(operation) is layers.Rescaling:
        numbers = (operation.scale, operation.offset)
        if any(np.ndim(each) for each in numbers):
            return None
        return float(operation.scale), float(operation.offset)
    if len(call.inputs) != 1:
        return None
    x, y = keras.tree.flatten((call.args, dict(call.kwargs)))[:2]
    first = isinstance(x, keras.KerasTensor)
    number = y if first else x
    if isinstance(number, keras.Variable) or np.ndim(number) or not np.isfinite(number):
        return None
    value = float(number)
    if isinstance(operation, Add):
        return 1.0, value
    if isinstance(operation, Subtract):
        return (1.0, -value) if first else (-1.0, value)
    if isinstance(operation, Multiply):
        return value, 0.0
    return (1 / value, 0.0) if first and value else None


def _numbers(tensor: Any) -> int:
    """How many numbers a tensor of one example has; open sizes count as one."""
    return math.prod(size or 1 for size in tensor.shape[1:])


def _said_windows(windows: _Windows, layer: Any) -> str:
    """What becomes of a convolution, in words behind its name."""
    said = []
    if not windows.has_form:
        taps = len(windows.rows) * len(windows.columns)
        share = f", with {windows.size**2}/{taps} of its multiplications"
        said.append(f"its kernel becomes a part of one of {windows.size}x{windows.size}{share}")
    if tuple(layer.strides) == (1, 1):
        said.append("it gets padding='same'")
    else:
        said.append(f"it gets ZeroPadding2D({windows.size // 2}) of its own and padding='valid'")
    return ", and ".join(said)


# -- layers in their new form; those of the flat model change in place where they can --------------


def _depthwise(layer: Any, windows: _Windows) -> Any:
    """A depthwise convolution, or one of as many groups as channels, with other windows."""
    kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel))
    own = type(layer) is layers.DepthwiseConv2D
    kernel = windows.filled(kernel if own else np.swapaxes(kernel, 2, 3))
    if own and windows.has_form:
        layer.padding = _padding(layer.strides)
        layer.kernel.assign(kernel)
        return layer
    prefix = "depthwise" if own else "kernel"
    made = layers.DepthwiseConv2D(
        windows.size,
        layer.strides,
        _padding(layer.strides),
        depthwise_initializer=getattr(layer, f"{prefix}_initializer"),
        depthwise_regularizer=getattr(layer, f"{prefix}_regularizer"),
        depthwise_constraint=getattr(layer, f"{prefix}_constraint"),
        **_shared(layer),
    )
    return _filled(made, kernel.shape[2], kernel, layer)


def _first(layer: Any, windows: _Windows) -> Any:
    """The convolution that begins a part."""
    kernel = windows.filled(layer.kernel)
    if windows.has_form and kernel.shape[2] == _COLOURS:
        layer.padding = "valid"
        layer.kernel.assign(kernel)
        return layer
    zeros = np.zeros((*kernel.shape[:2], _COLOURS - kernel.shape[2], kernel.shape[3]), kernel.dtype)
    kernel = np.concatenate([kernel, zeros], axis=2)
    made = layers.Conv2D(
        layer.filters, windows.size, layer.strides, **_shared(layer), **_kernel_options(layer)
    )
    return _filled(made, _COLOURS, kernel, layer)


def _unstrided(layer: Any) -> Any:
    layer.strides = (1, 1)
    layer.padding = "valid"
    return layer


def _pointwise(layer: Any) -> Any:
    """The 1x1 convolution that computes as a Dense layer does."""
    kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel))[None, None]
    made = layers.Conv2D(layer.units, 1, **_shared(layer), **_kernel_options(layer))
    return _filled(made, kernel.shape[2], kernel, layer)


def _kernel_options(layer: Any) -> dict[str, Any]:
    names = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
    return {name: getattr(layer, name) for name in names}


def _shared(layer: Any) -> dict[str, Any]:
    names = (
        *("name", "trainable", "activation", "use_bias", "bias_initializer", "bias_regularizer"),
        *("bias_constraint", "activity_regularizer"),
    )
    return {**{name: getattr(layer, name) for name in names}, "dtype": layer.dtype_policy}


def _filled(made: Any, channels: int, kernel: np.ndarray, layer: Any) -> Any:
    """A new layer with a kernel, and the bias of the layer in whose place it stands."""
    made.build((None, None, None, channels))
    made.set_weights([kernel, *([layer.bias] if layer.use_bias else [])])
    return made
