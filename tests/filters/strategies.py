"""Random functional graphs out of all that has a channel rule, for hypothesis.

A graph is drawn as a list of steps of a few small numbers. Every list can be built, whatever is
left out of it: a step that needs a second tensor of some shape makes one where there is none. So
hypothesis shrinks a failing graph to the fewest and simplest steps that fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

from tfprune.model.graph import calls, is_graph

Tensor = keras.KerasTensor


@dataclass(frozen=True)
class Step:
    """One step: what is done, to the how-manieth last tensor, with which other, how."""

    kind: str
    on: int
    other: int
    number: int

    def __repr__(self) -> str:
        return f"{self.kind}({self.on}, {self.other}, {self.number})"


@dataclass(frozen=True)
class Graph:
    """A random graph, which `build` makes a model of."""

    steps: tuple[Step, ...]

    @property
    def exact(self) -> bool:
        """Whether slim has to equal masked."""
        return not any(step.kind in INEXACT for step in self.steps)


@dataclass
class Builder:
    """The tensors there are, all (None, height, width, channels), the latest first."""

    inputs: list[Tensor]
    tensors: list[Tensor]
    read: set[int] = field(default_factory=set)

    def pick(self, index: int) -> Tensor:
        return self.use(self.tensors[index % len(self.tensors)])

    def use(self, tensor: Tensor) -> Tensor:
        self.read.add(id(tensor))
        return tensor

    def like(self, x: Tensor, index: int, channels: int | None = None) -> Tensor:
        """Another tensor of the size of `x`, made from it where there is none."""
        wanted = x.shape[-1] if channels is None else channels
        found = [
            each
            for each in self.tensors
            if each is not x
            and each.shape[1:-1] == x.shape[1:-1]
            and (channels is None or each.shape[-1] == wanted)
        ]
        if channels is None and found:
            return self.use(found[index % len(found)])
        found = [each for each in found if each.shape[-1] == wanted]
        return self.use(found[index % len(found)]) if found else layers.Conv2D(wanted, 1)(x)

    def add(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self.tensors.insert(0, tensor)


Make = Callable[[Builder, Tensor, Step], None]
KINDS: dict[str, Make] = {}
INEXACT = {"layer_norm", "softmax"}


def kind(make: Make) -> Make:
    """Registers a kind of step under the name of its function."""
    KINDS[make.__name__] = make
    return make


def same(build: Builder, x: Tensor, step: Step) -> Tensor:
    """A tensor of the very shape of `x`."""
    return build.like(x, step.other, x.shape[-1])


def chosen(step: Step, *options: object) -> object:
    return options[step.number % len(options)]


def filters(step: Step) -> int:
    return 2 + step.number % 4


def conv(count: int, size: int = 1, **options: object) -> layers.Layer:
    return layers.Conv2D(count, size, padding="same", **options)


# -- layers ------------------------------------------------------------------------------------


@kind
def convolution(build: Builder, x: Tensor, step: Step) -> None:
    activation = chosen(step, None, "relu", "tanh", "sigmoid", "gelu")
    build.add(conv(filters(step), 3, activation=activation, use_bias=step.other % 2 == 0)(x))


@kind
def activation(build: Builder, x: Tensor, step: Step) -> None:
    layer = chosen(
        step,
        layers.ReLU(),
        layers.Activation("silu"),
        layers.LeakyReLU(),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Dropout(0.5),
        layers.Rescaling(0.5, offset=0.1),
    )
    build.add(layer(x))


@kind
def batch_norm(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.BatchNormalization(scale=step.number % 3 != 2, center=step.number % 3 != 1)(x))


@kind
def layer_norm(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.LayerNormalization()(x))


@kind
def depthwise(build: Builder, x: Tensor, step: Step) -> None:
    copies = 1 + step.number % 2 if x.shape[-1] < 8 else 1
    build.add(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=copies)(x))


@kind
def separable(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.SeparableConv2D(filters(step), 3, padding="same", activation="relu")(x))


@kind
def transposed(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.Conv2DTranspose(filters(step), 3, padding="same")(x))


@kind
def grouped(build: Builder, x: Tensor, step: Step) -> None:
    groups = math.gcd(x.shape[-1], 2 + step.number % 3)
    build.add(conv(groups * (1 + step.other % 3), 3, groups=groups)(x))


@kind
def dense(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.Dense(filters(step), chosen(step, None, "relu"))(x))


@kind
def pooling(build: Builder, x: Tensor, step: Step) -> None:
    layer = chosen(
        step,
        layers.MaxPooling2D(2, padding="same"),
        layers.AveragePooling2D(2, padding="same"),
        layers.ZeroPadding2D(((0, 1), (1, 0))),
        layers.UpSampling2D(2) if x.shape[1] < 4 else layers.Cropping2D(1),
    )
    build.add(layer(x))


@kind
def residual(build: Builder, x: Tensor, step: Step) -> None:
    y = layers.BatchNormalization()(conv(filters(step), 3, activation="relu")(x))
    build.add(layers.Add()([x, conv(x.shape[-1])(y)]))


@kind
def merge(build: Builder, x: Tensor, step: Step) -> None:
    layer = chosen(
        step,
        layers.Add(),
        layers.Multiply(),
        layers.Average(),
        layers.Maximum(),
        layers.Minimum(),
        layers.Subtract(),
        layers.Concatenate(axis=1),
    )
    build.add(layer([x, same(build, x, step)]))


@kind
def concatenate(build: Builder, x: Tensor, step: Step) -> None:
    build.add(layers.Concatenate()([x, build.like(x, step.other)]))


@kind
def squeeze_and_excite(build: Builder, x: Tensor, step: Step) -> None:
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Dense(filters(step), "relu")(gate)
    build.add(layers.Multiply()([x, layers.Dense(x.shape[-1], "sigmoid")(gate)]))


@kind
def shared(build: Builder, x: Tensor, step: Step) -> None:
    """One layer reads two tensors."""
    layer = conv(filters(step), 3, activation="relu")
    build.add(layer(x), layer(same(build, x, step)))


@kind
def nested(build: Builder, x: Tensor, step: Step) -> None:
    """A model of its own, called once or twice."""
    start = keras.Input(x.shape[1:])
    y = layers.BatchNormalization()(conv(x.shape[-1], 3, activation="relu")(start))
    inner = chosen(
        step,
        lambda: keras.Model(start, layers.Add()([start, conv(x.shape[-1])(y)])),
        lambda: keras.Sequential([keras.Input(x.shape[1:]), conv(filters(step)), layers.ReLU()]),
        lambda: keras.Model(start, [y, ops.relu(start) * 2]),
    )()
    for each in [x, same(build, x, step)][: 1 + step.other % 2]:
        build.add(*keras.tree.flatten(inner(each)))


@kind
def another_input(build: Builder, x: Tensor, step: Step) -> None:
    build.inputs.append(keras.Input(build.inputs[0].shape[1:]))
    build.add(conv(filters(step))(build.inputs[-1]))


# -- raw operations ----------------------------------------------------------------------------


@kind
def arithmetic(build: Builder, x: Tensor, step: Step) -> None:
    y = chosen(
        step,
        lambda: x + 0.5,
        lambda: 1 - x * 2.0,
        lambda: ops.maximum(x, -0.5) / 2,
        lambda: -abs(x),
        lambda: x + same(build, x, step),
        lambda: x * ops.sigmoid(same(build, x, step)),
        lambda: ops.where(x > same(build, x, step), x, 0.25),
    )()
    build.add(y)


@kind
def array(build: Builder, x: Tensor, step: Step) -> None:
    shape = chosen(step, (x.shape[-1],), (x.shape[1], 1, 1), x.shape[2:], (1,))
    values = np.linspace(0.5, 1.5, math.prod(shape)).reshape(shape).astype(np.float32)
    build.add(x * values if step.other % 2 else ops.subtract(values, x))


@kind
def raw_activation(build: Builder, x: Tensor, step: Step) -> None:
    build.add(chosen(step, ops.relu, ops.relu6, ops.silu, ops.tanh, ops.square, ops.hard_swish)(x))


@kind
def softmax(build: Builder, x: Tensor, step: Step) -> None:
    # Over one channel Keras warns.
    y = x if x.shape[-1] > 1 else build.use(ops.concatenate([x, x], axis=-1))
    build.add(chosen(step, ops.softmax, layers.Softmax())(layers.Concatenate()([y, y])))


@kind
def reduction(build: Builder, x: Tensor, step: Step) -> None:
    reduce = chosen(step, ops.mean, ops.max, ops.sum, ops.min)
    build.add(x * ops.sigmoid(reduce(x, axis=(1, 2), keepdims=True)))


@kind
def over_channels(build: Builder, x: Tensor, step: Step) -> None:
    """What freezes."""
    y = chosen(
        step,
        lambda: x * ops.sigmoid(ops.mean(x, axis=-1, keepdims=True)),
        lambda: ops.cumsum(x, axis=-1),
        lambda: ops.matmul(x, np.eye(x.shape[-1], dtype=np.float32)),
        lambda: ops.reshape(ops.reshape(x, (-1, math.prod(x.shape[1:]), 1)), (-1, *x.shape[1:])),
    )()
    build.add(y)


@kind
def raw_concatenate(build: Builder, x: Tensor, step: Step) -> None:
    build.add(
        chosen(
            step,
            lambda: ops.concatenate([x, build.like(x, step.other)], axis=-1),
            lambda: ops.concatenate([same(build, x, step), x], axis=1),
            lambda: ops.max(ops.stack([x, same(build, x, step)], axis=-2), axis=-2),
        )()
    )


@kind
def split(build: Builder, x: Tensor, step: Step) -> None:
    size = x.shape[-1]
    if size < 2:
        return build.add(ops.negative(x))
    cut = 1 + step.other % (size - 1)
    found = chosen(
        step,
        lambda: ops.split(x, 2 if size % 2 == 0 else size, axis=-1),
        lambda: ops.split(x, [cut], axis=-1),
        lambda: [x[..., :cut], x[:, :, :, cut:]],
        lambda: [ops.take(x, np.arange(size)[::-1], axis=-1)],
    )()
    return build.add(*found)


@kind
def order(build: Builder, x: Tensor, step: Step) -> None:
    """Axes and channels change places."""
    height, width, size = x.shape[1:]
    y = chosen(
        step,
        lambda: ops.flip(x, axis=-1),
        lambda: ops.transpose(ops.relu(ops.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1)),
        lambda: ops.reshape(ops.reshape(x, (-1, height * width, size)), (-1, height, width, size)),
        lambda: ops.repeat(x, 2, axis=-1) if size < 8 else ops.flip(x, axis=1),
        lambda: ops.swapaxes(x, 1, 2),
        lambda: ops.squeeze(ops.expand_dims(x, 1), 1),
        lambda: ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, step.other % 2))),
        lambda: ops.image.resize(x, (3, 4)),
        lambda: layers.Reshape((height, width, size))(layers.Reshape((-1, size))(x)),
        lambda: layers.Permute((2, 1, 3))(x),
    )()
    build.add(y)


# -- graphs ------------------------------------------------------------------------------------

NUMBERS = st.integers(0, 9)


@st.composite
def graphs(draw: st.DrawFn, most: int = 7) -> Graph:
    """Graphs of up to `most` steps."""
    step = st.builds(Step, st.sampled_from(list(KINDS)), st.integers(0, 3), NUMBERS, NUMBERS)
    return Graph(tuple(draw(st.lists(step, min_size=1, max_size=most))))


def built(graph: Graph) -> keras.Model:
    """The model of a graph: what no step reads, goes to a head or is an output itself."""
    # Names count from zero, so that a graph is called the same each time it is built.
    keras.backend.clear_session()
    x = keras.Input((4, 4, 2))
    build = Builder([x], [conv(4, 3)(x)])
    for step in graph.steps:
        KINDS[step.kind](build, build.pick(step.on), step)
    unread = [each for each in build.tensors if id(each) not in build.read]
    pooled = [
        layers.Flatten()(each) if graph.steps[0].other % 2 else layers.GlobalMaxPooling2D()(each)
        for each in unread
    ]
    last = layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    outputs = [layers.Dense(2)(last)]
    if graph.steps[-1].other % 4 == 3:
        outputs.append(unread[0])
    # A list of one input would be asked for as a list.
    return keras.Model(build.inputs if len(build.inputs) > 1 else x, outputs)


TOLD = ("filters", "units", "groups", "axis", "newshape", "depth_multiplier", "activation")


def described(model: keras.Model, indent: str = "") -> Iterator[str]:
    """A model's calls, one a line, the calls of nested models indented below."""
    for call in calls(model):
        graph = is_graph(call.operation)
        config = {} if graph else call.operation.get_config()
        told = "".join(f" {key}={config[key]}" for key in TOLD if config.get(key) is not None)
        read = ", ".join(each._keras_history.operation.name for each in call.inputs)
        shapes = ", ".join(str(tuple(each.shape)) for each in call.outputs)
        yield f"{indent}{call.operation.name}({read}){told} -> {shapes}"
        if graph:
            yield from described(call.operation, indent + "    ")
