"""Raw `keras.ops` between layers: what passes channels on, and what stops them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.ops.numpy import Arccosh, Maximum

import tfprune
from tfprune.filters.rules.axes import place_after_reshape
from tfprune.filters.rules.elementwise import _POINTWISE

from ..harness import outputs, randomised, run_slim_test

Tensor = keras.KerasTensor


def conv(filters: int = 4, name: str | None = None) -> layers.Layer:
    return layers.Conv2D(filters, 3, padding="same", name=name)


def head(x: Tensor) -> Tensor:
    return layers.Dense(2)(layers.Flatten()(x))


def rows(x: Tensor, axis: int) -> Tensor:
    """The means along an axis, for what has no channels at the end, where Flatten wants them."""
    others = [each for each in range(1, len(x.shape)) if each != axis % len(x.shape)]
    return ops.mean(x, axis=others)


def between(
    operation: Callable[[Tensor], Tensor], filters: int = 4, last: bool = True
) -> keras.Model:
    """`free` may go; `held` meets what is tested, and a layer reads what comes out."""
    x = keras.Input((4, 4, 2))
    y = operation(conv(filters, name="held")(conv(name="free")(x)))
    return keras.Model(x, head(conv(3)(y) if last else y))


def joined(operation: Callable[..., Tensor], *filters: int) -> keras.Model:
    x = keras.Input((4, 4, 2))
    return keras.Model(x, head(operation(*[conv(each)(x) for each in filters])))


def merged(operation: Callable[..., Tensor]) -> keras.Model:
    return joined(operation, 4, 4)


def parts(operation: Callable[[Tensor], list[Tensor]], filters: int = 6) -> keras.Model:
    """A layer of its own reads each part."""
    x = keras.Input((4, 4, 2))
    found = operation(conv(filters, name="held")(x))
    return keras.Model(x, head(layers.Concatenate()([conv(2)(each) for each in found])))


def split_for_two_readers(x: Tensor) -> list[Tensor]:
    a, b = ops.split(x, 2, axis=-1)
    return [a, ops.relu(b)]


def pixels(x: Tensor) -> Tensor:
    """Positions in a row, and back."""
    return ops.reshape(layers.Dense(5)(ops.reshape(x, (-1, 16, 4))), (-1, 4, 4, 5))


ROW = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
COLUMN = np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1)

# Each is exact: slim equals masked.
FOLLOWED: dict[str, Callable[[], keras.Model]] = {
    # Single numbers.
    "python operators": lambda: between(lambda x: -(3 - (x + 3) * 2.0) / 4),
    "power, modulo": lambda: between(lambda x: (abs(x) + 1) ** 2 % 3),
    "number and tensor": lambda: between(lambda x: ops.maximum(0.1, ops.minimum(x, 1.5))),
    "array without channels": lambda: between(lambda x: x * COLUMN),
    "array of one number": lambda: between(lambda x: x + np.ones((1, 1), np.float32)),
    "array along channels": lambda: between(lambda x: x * ROW),
    "array along both": lambda: between(lambda x: ops.add(COLUMN * ROW, x)),
    "array by name": lambda: between(lambda x: Maximum()(x, x2=ROW)),
    "clip": lambda: between(lambda x: ops.clip(x, -0.5, 0.5)),
    "cast": lambda: between(lambda x: ops.cast(ops.cast(x, "float16"), "float32")),
    "comparison": lambda: between(lambda x: ops.where(x > 0.2, x, ops.square(x))),
    "stop gradient": lambda: between(ops.stop_gradient),
    # Several tensors.
    "add": lambda: merged(ops.add),
    "subtract": lambda: merged(ops.subtract),
    "multiply": lambda: merged(ops.multiply),
    "divide": lambda: merged(lambda a, b: ops.divide(a, ops.exp(b))),
    "maximum, minimum": lambda: merged(lambda a, b: ops.maximum(a, b) + ops.minimum(a, b)),
    "gate of one position": lambda: merged(
        lambda a, b: a * ops.sigmoid(ops.mean(b, axis=(1, 2), keepdims=True))
    ),
    "gate of lower rank": lambda: merged(lambda a, b: a + ops.max(b, axis=(0, 1, 2))),
    "with itself": lambda: between(lambda x: x * x + x),
    # Along axes.
    "mean": lambda: between(lambda x: ops.mean(x, axis=(1, 2)), last=False),
    "sum keeps dims": lambda: between(lambda x: ops.sum(x, axis=[1, -2], keepdims=True)),
    "max and min": lambda: between(lambda x: ops.max(x, 1) - ops.min(x, axis=-3), last=False),
    "deviation": lambda: between(lambda x: ops.std(x, axis=1), last=False),
    "softmax elsewhere": lambda: between(lambda x: ops.softmax(x, axis=1)),
    "cumsum elsewhere": lambda: between(lambda x: ops.cumsum(x, axis=1)),
    "roll elsewhere": lambda: between(lambda x: ops.roll(x, 1, axis=2)),
    "pooling": lambda: between(lambda x: ops.max_pool(x, 2) + ops.average_pool(x, 2)),
    "resize": lambda: between(lambda x: ops.image.resize(x, (7, 3))),
    "resize nearest": lambda: between(
        lambda x: ops.image.resize(x, (6, 3), "nearest", pad_to_aspect_ratio=True)
    ),
    # Axes.
    "transpose": lambda: between(lambda x: rows(ops.transpose(x, (0, 3, 1, 2)), 1), last=False),
    "transpose and back": lambda: between(
        lambda x: ops.transpose(ops.relu(ops.transpose(x, (0, 3, 2, 1))), [0, 3, 2, 1])
    ),
    "moveaxis": lambda: between(lambda x: ops.moveaxis(ops.moveaxis(x, -1, 1), 1, 3)),
    "moveaxis of two": lambda: between(
        lambda x: rows(ops.moveaxis(x, (1, 3), (3, 2)), 2), last=False
    ),
    "swapaxes": lambda: between(lambda x: rows(ops.swapaxes(x, 1, -1), 1), last=False),
    "expand and squeeze": lambda: between(
        lambda x: ops.squeeze(ops.tanh(ops.expand_dims(x, (1, -1))), (1, -1))
    ),
    "flip channels": lambda: between(lambda x: ops.flip(x, axis=-1) + x),
    "flip elsewhere": lambda: between(lambda x: ops.flip(x, axis=1)),
    "repeat channels": lambda: between(lambda x: ops.repeat(x, 3, axis=-1)),
    "repeat elsewhere": lambda: between(lambda x: ops.repeat(x, 2, axis=1)),
    "tile": lambda: between(lambda x: ops.tile(x, (1, 2, 1, 2))),
    "tile to a new axis": lambda: between(
        lambda x: ops.max(ops.tile(x[:, 0, 0], (2, 1, 1)), axis=0), last=False
    ),
    "broadcast": lambda: between(
        lambda x: x + ops.broadcast_to(ops.zeros_like(x[:1, :1]), (1, 4, 4, 4))
    ),
    "pad": lambda: between(lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))),
    "pad by reflection": lambda: between(
        lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    ),
    "pad channels": lambda: between(
        lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2)), constant_values=0.5)
    ),
    # Shapes that count channels.
    "reshape to positions": lambda: between(pixels),
    "reshape to a row": lambda: between(lambda x: ops.reshape(x, (-1, 64)), last=False),
    "reshape to one axis": lambda: between(lambda x: ops.reshape(x, (-1, 4, 16)), last=False),
    "reshape inside": lambda: between(
        lambda x: rows(ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (-1, 4, 16)), 1), last=False
    ),
    "reshape splits channels": lambda: between(
        lambda x: ops.reshape(x, (-1, 4, 4, 2, 3)), filters=6, last=False
    ),
    "reshape shuffles channels": lambda: between(
        lambda x: ops.reshape(ops.swapaxes(ops.reshape(x, (-1, 4, 4, 2, 3)), 3, 4), (-1, 4, 4, 6)),
        filters=6,
    ),
    "reshape to other rows": lambda: between(
        lambda x: ops.reshape(x, (-1, 32, 3)), filters=6, last=False
    ),
    # Joining and parts.
    "concatenate": lambda: joined(lambda *xs: ops.concatenate(xs, axis=-1), 4, 3, 2),
    "concatenate elsewhere": lambda: merged(lambda *xs: ops.concatenate(xs, axis=1)),
    "stack": lambda: merged(lambda *xs: ops.stack(xs, axis=1)),
    "stack last": lambda: merged(lambda *xs: rows(ops.stack(xs, axis=-1), 3)),
    "equal sections": lambda: parts(split_for_two_readers),
    "sections that meet": lambda: parts(lambda x: [ops.multiply(*ops.split(x, 2, axis=3))]),
    "split at indices": lambda: parts(lambda x: ops.split(x, [1, 4], axis=-1)),
    "split elsewhere": lambda: parts(lambda x: ops.split(x, 2, axis=1)),
    "unstack elsewhere": lambda: between(lambda x: ops.unstack(x, axis=1)[2], last=False),
    "slice of channels": lambda: parts(lambda x: [x[..., 2:], x[:, :, :, :3]]),
    "slice in the middle": lambda: parts(lambda x: [x[..., -4:-1], x]),
    "slice elsewhere": lambda: between(lambda x: x[:, 1:3, ::2]),
    "slice to fewer axes": lambda: between(lambda x: x[:, None, 1, ..., ::-1], last=False),
    "one channel": lambda: parts(lambda x: [x[..., 2] * x[..., 0], x][1:]),
    "take channels": lambda: parts(lambda x: [ops.take(x, np.array([4, 0, -3]), axis=-1), x]),
    "take one channel again": lambda: parts(lambda x: [ops.take(x, [1] * 6, axis=-1), x]),
    "take elsewhere": lambda: between(lambda x: ops.take(x, np.array([3, 1]), axis=1)),
}


@pytest.mark.parametrize("construct", FOLLOWED)
def test_followed(construct: str) -> None:
    groups = run_slim_test(FOLLOWED[construct](), dies=None, save="array" in construct)
    held = groups.producers.get("held")
    assert held is None or not groups.fixed[held].all()


@pytest.mark.slow
def test_each_number_alone() -> None:
    """What maps single numbers passes all channels on, whatever it maps zero to."""
    x = keras.Input((4,))
    found = []
    for each in _POINTWISE:
        if issubclass(each, layers.Layer):
            continue
        try:
            operation = each()
        except TypeError:
            continue  # It wants arguments, as a cast does.
        y = ops.sigmoid(layers.Dense(3)(x)) * 0.8 + 0.1
        # From 0.1 to 0.9, where all are defined but one.
        y = y + 1 if each is Arccosh else y
        found.append(ops.sigmoid(ops.cast(operation(y), "float32")))
    model = keras.Model(x, layers.Dense(2)(ops.concatenate(found, axis=-1)))
    model.get_config()
    groups = run_slim_test(model, dies=None)
    assert sum(group.removable.all() for group in groups) == len(found) > 50


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "normalize"])
def test_a_share_of_all_channels_is_inexact(name: str) -> None:
    """Slim is not masked then, the plan says so, and a dead channel is not free."""
    model = between(lambda x: getattr(ops, name)(x, axis=-1))
    run_slim_test(model, exact=False, dies=None)
    said = {each.reason for each in tfprune.channel_groups(model).trace.inexactness}
    assert said == {f"{name.replace('_', '')} spreads over all channels"}


FROZEN: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "matmul": (
        lambda: between(lambda x: ops.matmul(x, np.ones((4, 3), np.float32))),
        "matmul sums products, in an order that no rule follows",
    ),
    "matmul operator": (
        lambda: between(lambda x: x @ ops.transpose(x, (0, 1, 3, 2))),
        "matmul sums products, in an order that no rule follows",
    ),
    "einsum": (
        lambda: between(lambda x: ops.einsum("bhwc,bhwd->bcd", x, x), last=False),
        "einsum sums products, in an order that no rule follows",
    ),
    "mean over channels": (
        lambda: between(lambda x: ops.mean(x, axis=-1), last=False),
        "mean is a Mean over all channels",
    ),
    "sum over all": (
        lambda: between(lambda x: x + ops.sum(x)),
        "sum is a Sum over all channels",
    ),
    "cumsum over channels": (
        lambda: between(lambda x: ops.cumsum(x, axis=3)),
        "cumsum is a Cumsum over all channels",
    ),
    "roll over channels": (
        lambda: between(lambda x: ops.roll(x, 1, axis=3)),
        "roll is a Roll over all channels",
    ),
    "mixed by reshape": (
        lambda: between(lambda x: ops.reshape(x, (-1, 20, 4)), last=False, filters=5),
        "reshape mixes them with other axes",
    ),
    "squeeze without an axis": (
        lambda: between(lambda x: ops.squeeze(ops.mean(x, (1, 2), keepdims=True)), last=False),
        "squeeze names no axis, and would drop the channels if one were left",
    ),
    "spread over other channels": (
        lambda: joined(lambda a, b: a * b, 4, 1),
        "multiply spreads it over all channels",
    ),
    "bounds of each channel": (
        lambda: between(lambda x: ops.clip(x, [0.0, 0.1, 0.2, 0.3], 1.0)),
        "clip has bounds of its own for each channel",
    ),
    "every second channel": (
        lambda: between(lambda x: x[..., ::2]),
        "get_item takes channels that cannot be followed",
    ),
    "channels repeated unlike": (
        lambda: between(lambda x: ops.repeat(x, [1, 2, 1, 1], axis=-1)),
        "repeat repeats each channel another number of times",
    ),
    "reflected channels": (
        lambda: between(lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)), mode="reflect")),
        "pad pads channels with each other",
    ),
    "resized channels": (
        lambda: between(lambda x: ops.image.resize(ops.swapaxes(x, 2, 3), (2, 2)), last=False),
        "resize resizes the axis of the channels",
    ),
    "unstacked channels": (
        lambda: between(lambda x: ops.add(*ops.unstack(x, axis=-1)[:2]), last=False),
        "unstack gives an output to each channel",
    ),
    "no rule": (
        lambda: between(lambda x: ops.trace(x, axis1=1, axis2=2), last=False),
        "trace is a Trace, which has no rule (see tfprune.channel_rule)",
    ),
    "joined with an array": (
        lambda: between(
            lambda x: ops.concatenate([x, np.ones((3, 1, 4, 4), np.float32)], axis=1), last=False
        ),
        "concatenate reads what has no removable channels",
    ),
    "sorted channels": (
        lambda: between(lambda x: ops.sort(x, axis=-1)),
        "sort is a Sort over all channels",
    ),
}


def without_number(reason: str) -> str:
    """Keras numbers what has no name of its own from the start of the process."""
    first, _, rest = reason.partition(" ")
    return f"{first.rstrip('0123456789').rstrip('_')} {rest}"


@pytest.mark.reliability("layers that stay, each with its reason", "right")
@pytest.mark.parametrize("case", FROZEN)
def test_frozen(case: str) -> None:
    build, reason = FROZEN[case]
    groups = run_slim_test(build(), save=False, dies=None, removable=None)
    assert reason in {without_number(said) for said in groups.frozen.values()}
    assert "free" not in groups.frozen


def test_examples_never_mix() -> None:
    """With 6 of 8 channels left, `(-1, 36, 8)` would still succeed, on three quarters of them."""
    x = keras.Input((6, 6, 2))
    y = ops.reshape(layers.Conv2D(8, 1, name="a")(x), (-1, 36, 8))
    model = randomised(keras.Model(x, layers.Dense(3)(y)))
    slim = tfprune.remove_filters(model, {"a": [1, 5]})
    assert slim.get_layer("a").output.shape == (None, 6, 6, 6)
    assert slim.output_shape == (None, 36, 3)
    inputs = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)
    together = outputs(slim, [inputs])[0]
    assert together.shape == (8, 36, 3)
    np.testing.assert_allclose(outputs(slim, [inputs[:1]])[0], together[:1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "axis", "new", "found"),
    [
        ((None, 4, 4, 3), 3, (None, 16, 3), (2, 1, 1)),
        ((None, 4, 4, 3), 3, (None, 48), (1, 1, 16)),
        ((None, 3, 4, 4), 1, (None, 3, 16), (1, 1, 1)),
        ((None, 3, 4, 4), 1, (None, 12, 4), (1, 4, 1)),
        ((None, 2, 3, 4), 2, (None, 24), (1, 4, 2)),
        ((None, 4, 4, 3), 3, (None, 3), (1, 1, 1)),
        ((None, 4, 4, 6), 3, (None, 16, 2, 3), None),
        ((None, 3, None), 1, (None, 3, None), None),
    ],
)
def test_where_channels_are_found_after_a_reshape(
    old: tuple[int | None, ...],
    axis: int,
    new: tuple[int | None, ...],
    found: tuple[int, int, int] | None,
) -> None:
    assert place_after_reshape(old, axis, new) == found
    if found is not None:
        sizes = [2 if size is None else size for size in old]
        position = np.indices(sizes)[axis]
        after = position.reshape([-1 if size is None else size for size in new])
        place, inner, outer = found
        wanted = np.tile(np.repeat(np.arange(sizes[axis]), inner), outer)
        moved = np.moveaxis(after, place, -1).reshape(-1, len(wanted))
        assert (moved == wanted).all()


@pytest.mark.parametrize("after", [0, 3])
def test_an_addition_makes_a_zero_channel_audible(after: float) -> None:
    x = keras.Input((4,))
    y = layers.Dense(3, name="made")(x) + after
    model = randomised(keras.Model(x, layers.Dense(2)(y)))
    made = model.get_layer("made")
    made.kernel.assign(np.asarray(made.kernel) * [0, 1, 1])
    made.bias.assign(np.asarray(made.bias) * [0, 1, 1])
    found = tfprune.plan(model, dead=True)
    assert found.removed == ({} if after else {"made": [0]})


def test_a_zero_in_an_array_silences_its_channel() -> None:
    x = keras.Input((4,))
    y = layers.Dense(3, name="made")(x) * np.array([1.0, 0.0, 2.0], np.float32)
    found = tfprune.plan(randomised(keras.Model(x, layers.Dense(2)(y))), dead=True)
    assert found.removed == {"made": [1]}
