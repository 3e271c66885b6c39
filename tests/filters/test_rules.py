"""Every construct that channels can pass through, and everything that stops them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.filters.rules._common import _POINTWISE

from .harness import assert_close, examples, outputs, randomised, run_slim_test


def image(channels: int = 2, size: int = 6) -> keras.KerasTensor:
    return keras.Input((size, size, channels))


def head(x: keras.KerasTensor, units: int = 2) -> keras.KerasTensor:
    if len(x.shape) > 2:
        x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(units)(x)


def chain(*middle: layers.Layer, shape: tuple[int, ...] = (6, 6, 2)) -> keras.Model:
    """A Sequential model with a flat dense head."""
    return keras.Sequential([keras.Input(shape), *middle, layers.Flatten(), layers.Dense(2)])


def conv(filters: int = 4, size: int = 3, **options: object) -> layers.Layer:
    return layers.Conv2D(filters, size, padding="same", **options)


def merged(merges: list[layers.Layer], channels: tuple[int, ...]) -> keras.Model:
    """Each merge joins convolutions of its own."""
    x = image()
    y = [conv(4)(merge([conv(each)(x) for each in channels])) for merge in merges]
    return keras.Model(x, head(layers.Concatenate()(y) if len(y) > 1 else y[0]))


def residual_stage() -> keras.Model:
    """Two blocks with identity, then one with a projection, as in a ResNet."""

    def block(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
        y = conv(filters, strides=strides, use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(conv(filters, use_bias=False)(y))
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
            x = layers.BatchNormalization()(x)
        return layers.ReLU()(layers.Add()([x, y]))

    x = image(3)
    y = layers.ReLU()(layers.BatchNormalization()(conv(4, use_bias=False)(x)))
    for filters, strides in ((4, 1), (4, 1), (6, 2)):
        y = block(y, filters, strides)
    return keras.Model(x, head(y))


def squeeze_and_excite(keepdims: bool) -> keras.Model:
    x = image()
    y = conv(6, activation="relu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=keepdims)(y)
    gate = layers.Dense(3, activation="relu")(gate)
    gate = layers.Dense(6, activation="sigmoid")(gate)
    return keras.Model(x, head(layers.Multiply()([y, gate])))


def split_by_add() -> keras.Model:
    """A concatenation of 2 + 4 added to 6: the conv of 6 falls into two groups."""
    x = image()
    both = layers.Concatenate()([conv(2, name="two")(x), conv(4, name="four")(x)])
    y = layers.Add()([both, conv(6, name="six")(x)])
    return keras.Model(x, head(y))


def crossed_concats() -> keras.Model:
    """2 + 4 channels added to 4 + 2: four channels of a layer end up in several groups."""
    x = image()
    a, b, c, d = (conv(filters)(x) for filters in (2, 4, 4, 2))
    y = layers.Add()([layers.Concatenate()([a, b]), layers.Concatenate()([c, d])])
    return keras.Model(x, head(conv()(y)))


def shared_layer() -> keras.Model:
    one, two, shared = image(), image(), conv(5, name="shared")
    tower = conv(4, name="tower")
    y = [shared(tower(one)), shared(tower(two))]
    return keras.Model([one, two], head(layers.Concatenate()(y)))


def shared_over_two_producers() -> keras.Model:
    """What a shared layer reads at both calls goes together."""
    x, shared = image(), conv(5)
    return keras.Model(x, head(layers.Add()([shared(conv(4)(x)), shared(conv(4)(x))])))


def nested(*, sequential: bool, calls: int, size: int = 6) -> keras.Model:
    parts = [conv(5, activation="relu"), layers.BatchNormalization(), conv(4)]
    if sequential:
        inner = keras.Sequential([keras.Input((size, size, 4)), *parts], name="inner")
    else:
        y = start = keras.Input((size, size, 4))
        for part in parts:
            y = part(y)
        inner = keras.Model(start, layers.Add()([start, y]), name="inner")
    x = y = image(size=size)
    y = conv(4)(y)
    for _ in range(calls):
        y = inner(y)
    return keras.Model(x, head(y))


def nested_twice_deep() -> keras.Model:
    core = keras.Sequential([keras.Input((6, 6, 4)), conv(5), layers.ReLU()], name="core")
    start = keras.Input((6, 6, 4))
    middle = keras.Model(start, [core(start), layers.ReLU()(start)], name="middle")
    x = image()
    return keras.Model(x, head(layers.Concatenate()(middle(conv(4)(x)))))


def nested_without_weights() -> keras.Model:
    """Nothing inside the nested model couples its two calls; its Input does."""
    start = keras.Input((6, 6, 4))
    inner = keras.Model(start, layers.ReLU()(start), name="inner")
    x = image()
    y = layers.Concatenate()([conv()(inner(conv()(x))), conv()(inner(conv()(x)))])
    return keras.Model(x, head(y))


def several_inputs_and_outputs() -> keras.Model:
    picture, numbers = image(), keras.Input((3,))
    y = conv(4, activation="relu")(picture)
    flat = layers.GlobalMaxPooling2D()(y)
    z = layers.Dense(5, activation="tanh")(numbers)
    both = layers.Concatenate()([flat, z])
    return keras.Model([picture, numbers], [head(both), conv(1, name="map")(y)])


def dense_net() -> keras.Model:
    x = y = image(3)
    for _ in range(3):
        new = conv(3)(layers.ReLU()(layers.BatchNormalization()(y)))
        y = layers.Concatenate()([y, new])
    return keras.Model(x, head(y))


def inverted_residual() -> keras.Model:
    x = image()
    y = start = conv(4)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 1)(y)))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(4, 1)(y))
    return keras.Model(x, head(layers.Add()([start, y])))


def spatial(rank: int) -> keras.Model:
    """Every pooling, padding, cropping and repeating layer of a rank, between convolutions."""

    def kind(name: str, *arguments: object, **options: object) -> layers.Layer:
        return getattr(layers, f"{name}{rank}D")(*arguments, **options)

    return chain(
        kind("Conv", 4, 2, padding="same"),
        kind("MaxPooling", 2),
        kind("ZeroPadding", 1),
        kind("Conv", 4, 2, padding="same", activation="relu"),
        kind("UpSampling", 2),
        kind("AveragePooling", 2, padding="same"),
        kind("Cropping", 1),
        shape=(*[4] * rank, 2),
    )


CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "conv1d": lambda: chain(
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        layers.Conv1D(4, 3, strides=2),
        layers.Conv1D(3, 2),
        shape=(9, 2),
    ),
    "conv2d": lambda: chain(
        conv(4, dilation_rate=2), layers.Conv2D(4, 3, strides=2), layers.Conv2D(5, 1)
    ),
    "conv3d": lambda: chain(
        layers.Conv3D(4, 2, strides=2, padding="same"), layers.Conv3D(3, 2), shape=(4, 4, 4, 1)
    ),
    "mlp": lambda: chain(layers.Flatten(), layers.Dense(6, "relu"), layers.Dense(5), shape=(3, 2)),
    "dense on maps": lambda: chain(conv(4), layers.Dense(5, "relu"), layers.Dense(3)),
    "global pooling": lambda: chain(
        conv(), layers.GlobalMaxPooling2D(keepdims=True), conv(5), layers.GlobalAveragePooling2D()
    ),
    "global pooling 1d": lambda: chain(
        layers.Conv1D(4, 2), layers.GlobalMaxPooling1D(), shape=(9, 2)
    ),
    "global pooling 3d": lambda: chain(
        layers.Conv3D(4, 2), layers.GlobalAveragePooling3D(keepdims=True), shape=(3, 3, 3, 1)
    ),
    "batch norm": lambda: chain(
        layers.BatchNormalization(),
        conv(),
        layers.BatchNormalization(center=False),
        conv(3),
        layers.BatchNormalization(),
    ),
    "activation layers": lambda: chain(
        conv(),
        layers.ReLU(max_value=1.0, negative_slope=0.1),
        conv(),
        layers.LeakyReLU(),
        conv(),
        layers.ELU(),
    ),
    "only in training": lambda: chain(
        layers.Rescaling(2.0, offset=-1.0),
        conv(),
        layers.SpatialDropout2D(0.5),
        layers.Dropout(0.5),
        layers.GaussianNoise(0.1),
        layers.Identity(),
    ),
    "rescaling per channel": lambda: chain(layers.Rescaling([2.0, 0.5]), conv()),
    "spatial 1d": lambda: spatial(1),
    "spatial 2d": lambda: spatial(2),
    "spatial 3d": lambda: spatial(3),
    "upsampling bilinear": lambda: chain(
        conv(), layers.UpSampling2D(interpolation="bilinear"), conv(3)
    ),
    "merges": lambda: merged(
        [layers.Add(), layers.Subtract(), layers.Average(), layers.Multiply()], (4, 4)
    ),
    "merges of three": lambda: merged([layers.Maximum(), layers.Minimum()], (4, 4, 4)),
    "concatenate": lambda: merged([layers.Concatenate()], (4, 3, 2)),
    "concatenate other axis": lambda: merged([layers.Concatenate(axis=1)], (4, 4)),
    "spread over all channels": lambda: merged([layers.Multiply()], (4, 1)),
    "residual stage": residual_stage,
    "squeeze and excite": lambda: squeeze_and_excite(keepdims=True),
    "squeeze and excite flat": lambda: squeeze_and_excite(keepdims=False),
    "split by add": split_by_add,
    "crossed concatenations": crossed_concats,
    "densenet": dense_net,
    "inverted residual": inverted_residual,
    "depthwise": lambda: chain(
        conv(),
        layers.DepthwiseConv2D(3, strides=2, activation="relu"),
        layers.DepthwiseConv2D(2, depth_multiplier=2),
        layers.BatchNormalization(),
        conv(3),
    ),
    "depthwise 1d": lambda: chain(
        layers.Conv1D(4, 2), layers.DepthwiseConv1D(3, depth_multiplier=2), shape=(9, 2)
    ),
    "shared layer": shared_layer,
    "shared over two producers": shared_over_two_producers,
    "nested functional": lambda: nested(sequential=False, calls=2),
    "nested sequential": lambda: nested(sequential=True, calls=1),
    "nested sequential twice": lambda: nested(sequential=True, calls=2),
    "nested twice deep": nested_twice_deep,
    "nested without weights": nested_without_weights,
    "several inputs and outputs": several_inputs_and_outputs,
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    # One save of each kind of structure says as much as one of each pooling.
    save = "nested" in construct or "several" in construct or construct == "residual stage"
    run_slim_test(CONSTRUCTS[construct](), save=save)


@pytest.mark.parametrize("silent", [True, False])
def test_pointwise_activations(silent: bool) -> None:
    """A dead filter stays dead behind an activation that maps zero to zero, and only there."""
    mine = [each for each in _POINTWISE if (float(each(ops.zeros(1))[0]) == 0) == silent]
    assert len(mine) >= 5
    x = keras.Input((4,))
    parts = [layers.Dense(3, each)(x) for each in sorted(mine, key=lambda each: each.__name__)]
    model = keras.Model(x, head(layers.Concatenate()(parts)))
    groups = run_slim_test(model, dies=silent, save=False)
    assert sum(group.removable.all() for group in groups) == len(mine)


def test_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        run_slim_test(chain(conv(), layers.BatchNormalization(), layers.ReLU()), tolerance=5e-3)
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
@pytest.mark.parametrize("softmax", [layers.Softmax(), layers.Activation("log_softmax")])
def test_a_share_of_all_channels_is_inexact(softmax: layers.Layer) -> None:
    """Slim is not masked then, the plan says so, and a dead channel is not free."""
    model = chain(conv(name="free"), softmax.__class__.from_config(softmax.get_config()))
    run_slim_test(model, exact=False, dies=False)
    groups = tfprune.channel_groups(model)
    assert list(groups.frozen) == [model.layers[-1].name]


def test_what_a_softmax_hears_is_not_dead() -> None:
    """Even where nobody reads its share: without it the others' shares would grow."""
    model = randomised(chain(layers.Dense(4, "softmax"), layers.Dense(3), shape=(4,)))
    reader = model.layers[1].kernel
    reader.assign(np.asarray(reader) * [[0], [1], [1], [1]])
    assert tfprune.filters.plan(model, dead=True).removed == {}


def dead_first_channel(*after: layers.Layer) -> keras.Model:
    """The first filter of `made` is zero, its bias is not."""
    model = randomised(chain(conv(name="made"), *after, conv(name="reader")))
    made = model.get_layer("made")
    made.kernel.assign(np.asarray(made.kernel) * [0, 1, 1, 1])
    return model


@pytest.mark.parametrize("padded", [False, True])
def test_zero_padding_makes_a_constant_vary(padded: bool) -> None:
    """BatchNorm takes a constant to zero, but not the zeros around it."""
    padding = [layers.ZeroPadding2D(1)] if padded else []
    model = dead_first_channel(*padding, layers.BatchNormalization(name="norm"))
    norm, bias = model.get_layer("norm"), np.asarray(model.get_layer("made").bias)
    norm.moving_mean.assign(bias)
    norm.beta.assign(np.zeros(4))
    found = tfprune.filters.plan(model, dead=True)
    assert found.removed == ({} if padded else {"made": [0]})
    inputs = examples(model)
    assert_close(outputs(tfprune.filters.rebuild(found), inputs), outputs(model, inputs), 1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_zero_gamma_is_dead_only_with_a_zero_beta(beta: float) -> None:
    model = randomised(chain(conv(name="made"), layers.BatchNormalization(name="norm"), conv()))
    norm = model.get_layer("norm")
    norm.gamma.assign([0.0, 1.0, 1.0, 1.0])
    norm.beta.assign([beta, 1.0, 1.0, 1.0])
    found = tfprune.filters.plan(model, dead=True)
    assert found.removed == ({} if beta else {"made": [0]})


def test_the_plan_says_what_is_inexact() -> None:
    model = chain(conv(name="a"), conv(name="b", activation="softmax"), conv(name="c"))
    plans = [tfprune.filters.plan(model, filters=share) for share in (1.0, 0.5)]
    assert plans[0].inexact == {}
    assert plans[1].inexact == {"b": "softmax spreads over all channels"}


def test_channels_first() -> None:
    """Convolutions do not run so on a CPU; their slim weights equal those of channels last."""

    def build(data_format: str) -> keras.Model:
        first = data_format == "channels_first"
        kind = {"data_format": data_format}
        return keras.Sequential(
            [
                keras.Input((2, 6, 6) if first else (6, 6, 2)),
                layers.Conv2D(4, 3, name="a", **kind),
                layers.BatchNormalization(axis=1 if first else -1),
                layers.DepthwiseConv2D(2, depth_multiplier=2, **kind),
                layers.MaxPooling2D(**kind),
                layers.Conv2D(5, 1, name="b", activation="relu", **kind),
                layers.Flatten(**kind),
                layers.Dense(2),
            ]
        )

    last, first = build("channels_last"), randomised(build("channels_first"))
    last.set_weights(first.get_weights())
    slims = [tfprune.remove_filters(each, {"a": [1], "b": [0, 3]}) for each in (last, first)]
    assert slims[1].layers[0].output.shape == (None, 3, 4, 4)
    for one, other in zip(slims[0].get_weights(), slims[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_flatten_puts_channel_i_mod_c_at_i() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2)
    flat = np.asarray(layers.Flatten(data_format="channels_first")(x))[0]
    np.testing.assert_array_equal(flat, [x.reshape(4, 6)[i % 4, i // 4] for i in range(24)])


@keras.saving.register_keras_serializable(package="tests")
class Halve(layers.Layer):
    def call(self, x: object) -> object:
        return x / 2


@keras.saving.register_keras_serializable(package="tests")
class OwnConv(layers.Conv2D):
    pass


def doubled(x: object) -> object:
    return x * 2


def frozen_between(*middle: layers.Layer) -> keras.Model:
    """`free` may go; `held` meets what is tested."""
    return chain(conv(name="free"), conv(name="held"), *middle)


def raw(operation: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    x = image()
    y = operation(conv(name="held")(conv(name="free")(x)))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))


def called_on_the_input_too(first: bool) -> keras.Model:
    start = keras.Input((6, 6, 2))
    inner = keras.Model(start, layers.ReLU()(start), name="inner")
    x = image()
    y = conv(2, name="held")(conv(name="free")(x))
    calls = [inner(x), inner(y)] if first else [inner(y), inner(x)]
    return keras.Model(x, head(conv(name="last")(layers.Concatenate()(calls))))


def spread_from_the_input() -> keras.Model:
    x = image(3)
    y = layers.Multiply()([x, conv(1, name="held")(conv(name="free")(x))])
    return keras.Model(x, head(y))


def spread_over_others() -> keras.Model:
    x = image()
    y = conv(name="free")(x)
    return keras.Model(x, head(conv()(layers.Multiply()([y, conv(1, name="held")(y)]))))


def along_another_axis() -> keras.Model:
    x = keras.Input((5, 4))
    y = layers.Dense(4, name="held")(layers.Dense(3, name="free")(x))
    y = layers.BatchNormalization(axis=1, name="norm")(y)
    return keras.Model(x, head(layers.Dense(3)(layers.GlobalMaxPooling1D()(y))))


FROZEN: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "custom layer": (
        lambda: frozen_between(Halve(name="mine")),
        "mine is a Halve, which has no rule",
    ),
    "lambda": (
        lambda: frozen_between(layers.Lambda(lambda x: x + 1, name="mine")),
        "mine is a Lambda, which has no rule",
    ),
    "subclass of a known layer": (
        lambda: frozen_between(OwnConv(3, 1, name="mine")),
        "mine is a OwnConv, which has no rule",
    ),
    "grouped convolution": (
        lambda: frozen_between(conv(4, groups=2, name="mine")),
        "mine is a convolution in 2 groups",
    ),
    "custom activation": (
        lambda: frozen_between(layers.Activation(doubled)),
        "the activation doubled is not known to act on each channel alone",
    ),
    "lambda as activation": (
        lambda: chain(conv(name="free"), conv(name="held", activation=lambda x: x * 2)),
        "the activation <lambda> is not known to act on each channel alone",
    ),
    "raw addition": (lambda: raw(lambda x: x + 3), "add is a Add, which has no rule"),
    "raw reshape": (
        lambda: raw(lambda x: ops.reshape(x, (-1, 36, 4))),
        "reshape is a Reshape, which has no rule",
    ),
    "rescaling per channel": (
        lambda: frozen_between(layers.Rescaling([1.0, 2.0, 3.0, 4.0], name="mine")),
        "mine is a Rescaling, which has no rule",
    ),
    "spread over the input": (spread_from_the_input, "multiply spreads it over all channels"),
    "spread over other channels": (
        spread_over_others,
        "multiply spreads it over all channels",
    ),
    "nested, then on the input": (
        lambda: called_on_the_input_too(first=False),
        "inner reads what has no removable channels",
    ),
    "nested, first on the input": (
        lambda: called_on_the_input_too(first=True),
        "inner is also called on what has no removable channels",
    ),
    "norm along another axis": (
        along_another_axis,
        "norm reads axis 1 of a tensor whose channels lie elsewhere",
    ),
}


@pytest.mark.filterwarnings("ignore:.*being serialized includes a `lambda`:UserWarning")
@pytest.mark.parametrize("case", FROZEN)
def test_frozen(case: str) -> None:
    build, reason = FROZEN[case]
    model = build()
    groups = run_slim_test(model, save=False)
    said = groups.frozen["held"]
    assert without_number(said) == reason
    assert "free" not in groups.frozen
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.remove_filters(model, {"held": [0]})
    assert str(error.value) == f"filter 0 of layer 'held' cannot go: {said}"


def without_number(reason: str) -> str:
    """Keras numbers what has no name of its own from the start of the process."""
    first, _, rest = reason.partition(" ")
    return f"{first.rstrip('0123456789').rstrip('_')} {rest}"


def test_glu_is_frozen() -> None:
    """It halves the channels, which Keras' own shape inference does not see; no such model runs."""
    model = chain(layers.Dense(6, name="held", activation="glu"), shape=(4,))
    said = tfprune.channel_groups(model).frozen["held"]
    assert said == "the activation glu is not known to act on each channel alone"


def test_flatten_of_an_open_size_is_frozen() -> None:
    x = keras.Input((None, None, 2))
    model = keras.Model(x, layers.Flatten(name="flat")(conv(name="held")(x)))
    assert tfprune.channel_groups(model).frozen == {"held": "flat flattens a tensor of open size"}


def test_a_partly_frozen_layer_says_how_much_of_it() -> None:
    x = image()
    a, b = conv(2, name="a")(x), conv(4, name="b")(x)
    both = layers.Add()([layers.Concatenate()([a, b]), conv(6, name="c")(x)])
    model = keras.Model(x, [head(both), Halve(name="mine")(a)])
    groups = run_slim_test(model)
    reason = "mine is a Halve, which has no rule"
    assert groups.frozen["a"] == reason
    assert groups.frozen["c"] == f"2 of 6: {reason}"
    assert "b" not in groups.frozen


@keras.saving.register_keras_serializable(package="tests")
class Scale(layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: object) -> object:
        return x * self.factor


def test_a_rule_of_ones_own() -> None:
    from tfprune.filters.rules.registry import _RULES

    @tfprune.channel_rule(Scale)
    def scale(trace, layer, x):
        x = trace.along(x, -1)
        trace.weight(layer.factor, 0, x, "scale")
        return trace.passed(x)

    try:
        groups = run_slim_test(chain(conv(name="a"), Scale(), conv(name="b")))
        assert set(groups.frozen) == {groups.model.layers[-1].name}
    finally:
        del _RULES[Scale]


def test_names_of_inputs_and_outputs_stay() -> None:
    x, n = keras.Input((6, 6, 2), name="picture"), keras.Input((3,), name="numbers")
    y = layers.Concatenate()([layers.GlobalMaxPooling2D()(conv()(x)), layers.Dense(4)(n)])
    answers = {"one": layers.Dense(2, name="p")(y), "two": layers.Dense(1, name="q")(y)}
    model = randomised(keras.Model({"picture": x, "numbers": n}, answers))
    slim = tfprune.slim(model, filters=0.5)
    assert [each.name for each in slim.inputs] == [each.name for each in model.inputs]
    pictures, numbers = sorted(examples(model), key=lambda each: -each.ndim)
    found = slim({"picture": pictures, "numbers": numbers})
    assert sorted(found) == ["one", "two"]
    assert outputs(slim, {"picture": pictures, "numbers": numbers})[0].shape == (3, 2)
