"""Which layers XNNPACK runs sparse, and which layer of a model forbids it.

XNNPACK is what runs float TFLite files on phones and in browsers. It has sparse kernels for 1x1
convolutions on ARM, in WebAssembly, and on x86 without AVX. They read channels first, so they are
used for a whole part of a net, from a first convolution to a global average pooling, where all
layers between exist in that layout, and where more than two thirds of the weights of its 1x1
convolutions are zero. TFLite asks for them only where a file stores weights without their zeros, as
the format `tflite-sparse` does.

Source:
    Elsen et al. 2020, Fast Sparse ConvNets, https://arxiv.org/abs/1911.09723; the rules are those
    of `xnn_subgraph_rewrite_for_nchw` in XNNPACK.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.ops.numpy import Add, Multiply

from tfprune.errors import UsageError
from tfprune.model.activations import is_activation
from tfprune.model.graph import Call, calls
from tfprune.vocabulary import Policy
from tfprune.weights.selection import Kernel, Picks, kernels

LEAST_ZEROS = 2 / 3
"""The share of zeros in 1x1 convolutions that must be exceeded."""

# Activations with a kernel for channels first. gelu and tanh have none; others are not known to.
_ACTIVATIONS = ("linear", "relu", "relu6", "sigmoid", "elu", "leaky_relu", "silu", "hard_silu")
ACTIVATION_LAYERS = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
# The converter removes them.
NOTHING = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.ActivityRegularization,
)
_RANK = 4


@dataclass(frozen=True)
class SparseLayers:
    """What XNNPACK can run sparse of a model.

    Attributes:
        layers: the 1x1 convolutions that it can run sparse.
        forbidden: layers that keep it from doing so, each with the reason and what to do.
    """

    layers: tuple[keras.layers.Layer, ...]
    forbidden: dict[str, str]

    @property
    def zeros(self) -> float:
        """The share of zeros in the kernels of the layers, together; 0 without any."""
        kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in self.layers]
        size = sum(kernel.size for kernel in kernels)
        return sum(int((kernel == 0).sum()) for kernel in kernels) / size if size else 0.0


def sparse_layers(model: keras.Model) -> SparseLayers:
    """Finds the layers that XNNPACK can run sparse, and those that forbid it.

    Example:
        ```python
        found = sparse_layers(model)
        [layer.name for layer in found.layers]  # ["block1_conv", "block2_conv", ...]
        found.forbidden  # {"pool": "XNNPACK has no kernel with channels first for MaxPooling2D..."}
        ```

    Args:
        model: a functional or built Sequential model.

    Returns:
        The layers; none where one of them forbids it, since layers of a part run sparse together.

    Raises:
        UsageError: the model has no graph.
    """
    parts, forbidden = Graph(model).judged()
    found = [call.operation for part in parts for call in part if is_pointwise(call.operation)]
    return SparseLayers(tuple(dict.fromkeys(found)), forbidden)


def kernels_of(
    model: keras.Model, include: Picks, exclude: Picks, policy: Policy | None
) -> list[Kernel]:
    """The kernels that picks and a policy choose together; see `prunable`.

    Raises:
        UsageError: the policy leaves nothing to prune; the message names the first layer that
            forbids it.
    """
    chosen = kernels(model, include, exclude)
    if policy is None:
        return chosen
    found = sparse_layers(model)
    if not found.layers:
        name, reason = next(iter(found.forbidden.items()))
        raise UsageError(f"policy={policy!r}: XNNPACK can run nothing sparse: {name}: {reason}")
    sparse = {id(layer.kernel) for layer in found.layers}
    chosen = [kernel for kernel in chosen if id(kernel.variable) in sparse]
    if not chosen:
        raise UsageError(
            f"policy={policy!r}: include and exclude leave out all that XNNPACK can run sparse, "
            f"such as {found.layers[0].name}: correct them"
        )
    return chosen


class Graph:
    """The calls of a model, and what XNNPACK makes of each.

    Args:
        model: a functional or built Sequential model.

    Attributes:
        calls: in the order in which they are computed.
    """

    def __init__(self, model: keras.Model) -> None:
        self.calls: list[Call] = list(calls(model))
        self._producer = {id(out): call for call in self.calls for out in call.outputs}
        self._readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                self._readers.setdefault(id(tensor), []).append(call)
        self._ends = {id(tensor) for tensor in model.outputs}

    def producer(self, tensor: Any) -> Call | None:
        """The call that makes a tensor; None for an input of the model."""
        return self._producer.get(id(tensor))

    def readers(self, call: Call) -> list[Call]:
        """The calls that read what a call makes."""
        return [reader for out in call.outputs for reader in self._readers.get(id(out), [])]

    def is_read_by(self, call: Call, reader: Call) -> bool:
        """Whether one call, and no other, reads what a call makes."""
        readers = self.readers(call)
        return len(readers) == 1 and readers[0] is reader

    def is_output(self, call: Call) -> bool:
        """Whether the model gives what a call makes."""
        return any(id(out) in self._ends for out in call.outputs)

    def judged(self) -> tuple[list[list[Call]], dict[str, str]]:
        """The parts that can run sparse, and the layers that forbid it in others, with reasons."""
        starts = [call for call in self.calls if self.why_no_start(call) == ""]
        if not starts:
            return [], self.no_start()
        able: list[list[Call]] = []
        found: dict[str, str] = {}
        for part in self.parts(starts):
            reasons = self.forbidden(part)
            found |= reasons
            if not reasons:
                able.append(part)
        return able, found

    def why_no_start(self, call: Call) -> str:
        """Why a call cannot begin a part; empty where it can."""
        return _why_no_start(self, call)

    def why_not(self, call: Call) -> str:
        """Why a call has no kernel for channels first; empty where it has one."""
        return _why_not(self, call)

    def is_pointwise(self, call: Call) -> bool:
        """Whether a call is a convolution that can have a sparse kernel."""
        return is_pointwise(call.operation)

    def is_pooling(self, call: Call) -> bool:
        """Whether a call is a global average pooling."""
        return isinstance(call.operation, keras.layers.GlobalAveragePooling2D)

    def padded(self, call: Call) -> int | None:
        """The rows and columns of zeros that a layer before it adds on each side, for it alone."""
        before = self.producer(call.inputs[0])
        if before is None or not isinstance(before.operation, keras.layers.ZeroPadding2D):
            return None
        sides = {side for pair in before.operation.padding for side in pair}
        alone = self.is_read_by(before, call) and not self.is_output(before)
        return sides.pop() if len(sides) == 1 and alone else None

    def no_start(self) -> dict[str, str]:
        """Why no layer begins a part that can run sparse, of the layer that comes closest."""
        for call in self.calls:
            if isinstance(call.operation, keras.layers.Conv2D):
                return {call.operation.name: self.why_no_start(call)}
        name = self.calls[0].operation.name if self.calls else "the model"
        return {name: "no Conv2D begins the net, so nothing can run sparse"}

    def parts(self, starts: Sequence[Call]) -> Iterator[list[Call]]:
        """All calls behind the starts, up to global poolings, as connected parts."""
        # Poolings end a part where nothing behind them leads back into it.
        behind: dict[int, Call] = {}
        begins = {id(call) for call in starts}
        waiting = list(starts)
        while waiting:
            call = waiting.pop()
            if id(call) in behind:
                continue
            behind[id(call)] = call
            if id(call) in begins or (self.why_not(call) == "" and not self._leaves(call)):
                waiting += self.readers(call)
        left = [call for call in self.calls if id(call) in behind]
        while left:
            part = {id(left[0])}
            grown = True
            while grown:
                grown = False
                for call in left:
                    near = self.readers(call) + [
                        made for x in call.inputs if (made := self.producer(x)) is not None
                    ]
                    if id(call) not in part and any(
                        id(each) in part and id(each) in behind for each in near
                    ):
                        part.add(id(call))
                        grown = True
            yield [call for call in left if id(call) in part]
            left = [call for call in left if id(call) not in part]

    def _is_pixel(self, call: Call) -> bool:
        """Whether a call gives one number a channel, which a pooling does in either form."""
        shape = call.outputs[0].shape
        return self.is_pooling(call) or (len(shape) == _RANK and tuple(shape[1:3]) == (1, 1))

    def _leaves(self, call: Call) -> bool:
        """Whether a part may end here: one pixel has the same layout either way."""
        return self._is_pixel(call) and not any(
            self.why_not(reader) == "" for reader in self.readers(call)
        )

    def forbidden(self, part: Sequence[Call]) -> dict[str, str]:
        """The layers of a part that forbid it, with reasons."""
        inside = {id(call) for call in part}
        found: dict[str, str] = {}
        for call in part:
            name = call.operation.name
            starts = self.why_no_start(call) == ""
            reason = "" if starts else self.why_not(call)
            if not reason and not starts:
                for tensor in call.inputs:
                    made = self.producer(tensor)
                    if made is None or id(made) not in inside:
                        reason = (
                            "it also reads what does not come from the first convolution: XNNPACK "
                            "needs all of its inputs from there"
                        )
            if not reason and not self._is_pixel(call) and self.is_output(call):
                reason = "its output leaves the model: end with GlobalAveragePooling2D()"
            if reason:
                found[name] = reason
        if not found and not any(self.is_pooling(call) for call in part):
            found[part[-1].operation.name] = (
                "no global average pooling follows: end with GlobalAveragePooling2D()"
            )
        if not found and not any(self.is_pointwise(call) for call in part):
            found[part[0].operation.name] = "no 1x1 convolution follows it"
        return found


def is_pointwise(layer: Any) -> bool:
    """Whether a layer is a 1x1 convolution.

    Args:
        layer: any layer or operation.
    """
    return type(layer) is keras.layers.Conv2D and tuple(layer.kernel_size) == (1, 1)


def _why_no_start(graph: Graph, call: Call) -> str:
    """Why a call cannot begin a part; empty where it can."""
    layer = call.operation
    advice = (
        "begin with ZeroPadding2D(1) and Conv2D(filters, 3, strides=2, padding='valid') on 3 "
        "channels"
    )
    if type(layer) is not keras.layers.Conv2D:
        return f"a {type(layer).__name__} cannot begin what runs sparse: {advice}"
    wrong = _common(layer)
    if not wrong and (tuple(layer.kernel_size), tuple(layer.strides)) != ((3, 3), (2, 2)):
        wrong = f"kernel {_by(layer.kernel_size)} with strides {_by(layer.strides)}"
    if not wrong and (call.inputs[0].shape[-1] != 3 or layer.groups != 1):
        wrong = f"{call.inputs[0].shape[-1]} channels in {layer.groups} groups"
    if not wrong:
        wrong = _padding(graph, call, 1)
    return f"{wrong}: {advice}" if wrong else ""


def _why_not(graph: Graph, call: Call) -> str:
    """Why a call has no kernel for channels first; empty where it has one."""
    layer = call.operation
    kind = type(layer)
    if kind is keras.layers.ZeroPadding2D:
        followers = graph.readers(call)
        fused = len(followers) == 1 and isinstance(
            followers[0].operation, keras.layers.DepthwiseConv2D
        )
        return "" if fused else "padding that no depthwise convolution takes in: remove it"
    if kind is keras.layers.GlobalAveragePooling2D:
        return ""
    if any(len(x.shape) != _RANK for x in (*call.inputs, *call.outputs)):
        return "it reads or gives something else than images: put it behind the pooling"
    if kind in NOTHING:
        return ""
    if kind is keras.layers.Conv2D:
        return _why_no_convolution(layer)
    if kind is keras.layers.DepthwiseConv2D:
        return _why_no_depthwise(graph, call)
    if kind is keras.layers.BatchNormalization:
        return _why_not_folded(graph, call)
    if kind is keras.layers.Activation:
        return unknown_activation(layer)
    if kind in ACTIVATION_LAYERS:
        odd = "its kind of ReLU is several operators: use ReLU or ReLU(max_value=6)"
        return odd if odd_relu(layer) else ""
    if kind in (keras.layers.Add, keras.layers.Multiply):
        return "" if len(call.inputs) == 2 else "it has more than two inputs: use several"
    if kind in (Add, Multiply):
        return "" if len(call.inputs) == 2 else "it has a number: put it into a convolution"
    if kind is keras.layers.UpSampling2D:
        pixels = min(size or 0 for size in call.inputs[0].shape[1:3])
        if layer.interpolation == "bilinear" and pixels > 1:
            return ""
        return "it is resized in another way: use interpolation='bilinear' on more than a pixel"
    return f"XNNPACK has no kernel with channels first for {kind.__name__}: replace it"


def _why_no_convolution(layer: Any) -> str:
    wrong = _common(layer)
    if not wrong and tuple(layer.kernel_size) != (1, 1):
        wrong = f"kernel {_by(layer.kernel_size)}"
    if not wrong and tuple(layer.strides) != (1, 1):
        wrong = f"strides {_by(layer.strides)}"
    if not wrong and layer.groups != 1:
        wrong = f"{layer.groups} groups"
    if wrong:
        return f"{wrong}: use a 1x1 convolution with strides 1, or a depthwise one"
    return ""


def _why_no_depthwise(graph: Graph, call: Call) -> str:
    layer: Any = call.operation
    wrong = _common(layer)
    if not wrong and layer.depth_multiplier != 1:
        wrong = f"depth_multiplier={layer.depth_multiplier}"
    if not wrong and tuple(layer.kernel_size) not in ((3, 3), (5, 5)):
        wrong = f"kernel {_by(layer.kernel_size)}"
    if not wrong and tuple(layer.strides) not in ((1, 1), (2, 2)):
        wrong = f"strides {_by(layer.strides)}"
    if wrong:
        return f"{wrong}: use kernels of 3x3 or 5x5, and strides 1 or 2"
    return _padding(graph, call, layer.kernel_size[0] // 2)


def _padding(graph: Graph, call: Call, wanted: int) -> str:
    """Why the padding is not the same on all sides; empty where it is."""
    layer: Any = call.operation
    padded = graph.padded(call)
    if layer.padding == "same":
        # XNNPACK turns "same" into numbers where they depend on no size of the image, and the
        # format tflite-sparse does where they are the same on all sides.
        odd = all(size is not None and size % 2 for size in call.inputs[0].shape[1:3])
        before = graph.producer(call.inputs[0])
        alone = before is None or type(before.operation) is not keras.layers.ZeroPadding2D
        if alone and (tuple(layer.strides) == (1, 1) or odd):
            return ""
        return (
            f"padding='same' with strides {_by(layer.strides)}: use ZeroPadding2D({wanted}) and "
            "padding='valid', or images of odd size"
        )
    if padded == wanted:
        return ""
    return f"padding {padded or 0}: put ZeroPadding2D({wanted}) before it, for it alone"


def _why_not_folded(graph: Graph, call: Call) -> str:
    """BatchNorm runs as a part of the convolution before it."""
    before = graph.producer(call.inputs[0])
    linear = (
        before is not None
        and type(before.operation) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and is_activation(before.operation.activation, "linear")
    )
    if linear and before is not None and graph.is_read_by(before, call):
        return ""
    return "no convolution without activation stands right before it, to take it in: move it there"


def _common(layer: Any) -> str:
    wrong = wrong_form(layer)
    if not wrong and tuple(layer.dilation_rate) != (1, 1):
        wrong = f"dilation {_by(layer.dilation_rate)}"
    return wrong or unknown_activation(layer)


def wrong_form(layer: Any) -> str:
    """Why XNNPACK cannot run numbers such as those of a layer sparse; empty where it can.

    Args:
        layer: a convolution, a pooling or a Dense layer.
    """
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return "channels_first"
    return "" if layer.compute_dtype == "float32" else str(layer.compute_dtype)


def odd_relu(layer: Any) -> bool:
    """Whether a ReLU is not one operator of TFLite.

    Args:
        layer: of a type of `ACTIVATION_LAYERS`.
    """
    if type(layer) is not keras.layers.ReLU:
        return False
    return bool(layer.threshold or layer.negative_slope or layer.max_value not in (None, 6))


def unknown_activation(layer: Any) -> str:
    """Why XNNPACK has no sparse kernel before an activation; empty where it has one.

    Args:
        layer: one that has an activation function.
    """
    if is_activation(layer.activation, *_ACTIVATIONS):
        return ""
    name = getattr(layer.activation, "__name__", "a function of its own")
    return f"activation {name}: use one of {', '.join(_ACTIVATIONS)}"


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
