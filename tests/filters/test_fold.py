"""Constants move into biases: outputs stay, units die, and errors stay below what is said."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune.filters import ChannelGroups
from tfprune.filters.fold import FoldReport, constant_units, fold_constants
from tfprune.model.graph import named_layers

from .harness import (
    assert_close,
    assert_same,
    examples,
    outputs,
    random_alive,
    randomised,
    silenced,
)
from .models import conv, head, image
from .strategies import Graph, built, described, graphs


def still(layer: layers.Layer, filters: list[int], value: float | None = None) -> None:
    """Lets filters of a layer emit a constant, through its bias or through beta."""
    variables = {variable.name: variable for variable in layer.weights}
    scale = np.asarray(variables.get("kernel", variables.get("gamma"))).copy()
    shift = variables.get("bias", variables.get("beta"))
    scale[..., filters] = 0
    variables.get("kernel", variables.get("gamma")).assign(scale)
    values = np.asarray(shift).copy()
    # Positive, so that no relu makes a zero of it.
    values[filters] = np.abs(values[filters]) + 0.1 if value is None else value
    shift.assign(values)


def folded(
    model: keras.Model, dead: dict[str, list[int]], tolerance: float = 0.0
) -> tuple[keras.Model, FoldReport]:
    """The folded model, once it is known that `dead` and nothing else can go from it for free.

    Args:
        model: a model whose layers are all alive but for constants.
        dead: layer path to the filters that are dead after folding.
        tolerance: of the borders.
    """
    before, inputs = model.get_weights(), examples(model)
    wanted = outputs(model, inputs)
    twin, report = fold_constants(model, tolerance=tolerance)
    assert tfprune.plan(twin, dead=True).removed == dead
    slim = tfprune.slim(twin, dead=True)
    assert_close(outputs(slim, inputs), outputs(twin, inputs), 1e-6)
    if not any(fold.error for fold in report.folds):
        assert_close(outputs(twin, inputs), wanted, 1e-6)
    # The original is as it was.
    assert_same(model.get_weights(), before)
    assert_same(outputs(model, inputs), wanted)
    return twin, report


def small(*after: layers.Layer, maker: layers.Layer | None = None) -> keras.Model:
    """A layer `a` of four filters, what is tested, and a head."""
    first = maker or layers.Conv2D(4, 3, name="a")
    x = image(2, 8)
    y = first(x)
    for layer in after:
        y = layer(y)
    return randomised(keras.Model(x, head(y)))


EXACT = {
    "1x1 of any padding": [layers.ReLU(), conv(3, 1, name="b")],
    "valid": [layers.ReLU(), layers.Conv2D(3, 3, name="b", activation="tanh")],
    "valid with strides": [layers.Conv2D(3, 2, strides=2, name="b")],
    "same without an overhang": [conv(3, 2, strides=2, name="b")],
    "groups": [layers.Conv2D(4, 3, groups=2, name="b")],
    "dense": [layers.Activation("sigmoid"), layers.Dense(3, name="b")],
    "flattened": [layers.ELU(), layers.Flatten(), layers.Dense(3, "relu", name="b")],
    "max pooling": [layers.MaxPooling2D(2), layers.Dense(3, name="b")],
    "padded average pooling": [
        layers.AveragePooling2D(2, 1, padding="same"),
        conv(3, 1, name="b"),
    ],
    "global pooling": [layers.GlobalAveragePooling2D(), layers.Dense(3, name="b")],
    "dropout and rescaling": [
        layers.Dropout(0.5),
        layers.Rescaling(2.0, 0.5),
        layers.Conv2D(3, 3, name="b"),
    ],
    "norm before": [layers.BatchNormalization(), layers.Conv2D(3, 3, name="b")],
    "norm after": [
        layers.Conv2D(3, 3, use_bias=False, name="b"),
        layers.BatchNormalization(name="norm"),
    ],
}


@pytest.mark.parametrize("kind", EXACT)
def test_exact(kind: str) -> None:
    after = [type(layer).from_config(layer.get_config()) for layer in EXACT[kind]]
    model = small(*after)
    filters = [1, 3] if kind == "groups" else [0, 2]
    # A group reads one channel at the place, and all of them must say the same.
    still(model.get_layer("a"), filters, 0.5)
    groups = ChannelGroups(model)
    found = np.flatnonzero(constant_units(groups))
    assert found.tolist() == np.unique(groups.producers["a"][filters]).tolist()
    twin, report = folded(model, {"a": filters})
    (fold,) = report.folds
    assert (fold.layer, fold.error, report.refused) == ("b", 0.0, {})
    assert fold.into == ("norm" if kind == "norm after" else "b")
    if kind != "flattened":
        assert fold.channels == ((1,) if kind == "groups" else (0, 2))
    assert not constant_units(ChannelGroups(twin)).any()


def test_a_norm_without_gamma_emits_beta() -> None:
    model = small(
        layers.BatchNormalization(name="norm"), layers.ReLU(), layers.Conv2D(3, 3, name="b")
    )
    still(model.get_layer("norm"), [1])
    folded(model, {"a": [1]})


def test_nothing_constant_changes_no_bit() -> None:
    model = small(layers.ReLU(), conv(3))
    model.compile("sgd", "mse")
    twin, report = fold_constants(model)
    assert_same(twin.get_weights(), model.get_weights())
    assert report == FoldReport((), {})
    assert twin.compiled
    assert not constant_units(ChannelGroups(model)).any()


def test_what_is_made_of_constants_alone_follows() -> None:
    """A chain of filters that read nothing else dies from front to back."""
    model = small(layers.Dense(3, "relu", name="b"), layers.Dense(3, name="c"))
    still(model.get_layer("a"), [0])
    kernel = np.array(model.get_layer("b").kernel)
    kernel[1:, 2], kernel[0, 2] = 0, 1.0
    model.get_layer("b").kernel.assign(kernel)
    model.get_layer("b").bias.assign([0.1, 0.2, 0.3])
    _, report = folded(model, {"a": [0], "b": [2]})
    assert [(fold.layer, fold.channels) for fold in report.folds] == [("b", (0,)), ("c", (2,))]


def test_several_readers_and_a_residual_sum() -> None:
    x = image(2, 8)
    first = conv(4, activation="relu", name="a")(x)
    total = layers.Add()([first, conv(4, activation="relu", name="other")(x)])
    left = layers.Conv2D(3, 3, name="left")(total)
    right = layers.Conv2D(3, 1, use_bias=False, name="right")(first)
    y = layers.Concatenate()([head(left), head(layers.BatchNormalization(name="norm")(right))])
    model = randomised(keras.Model(x, [y, layers.Dense(2, name="third")(layers.Flatten()(total))]))
    still(model.get_layer("a"), [0, 1])
    # Only where both are constant is the sum.
    still(model.get_layer("other"), [1, 2])
    _, report = folded(model, {"a": [1], "other": [1]})
    assert [fold.into for fold in report.folds if fold.layer == "right"] == ["norm"]
    assert {fold.layer for fold in report.folds} == {"left", "right", "third"}


def test_shared_and_nested_readers() -> None:
    start = image(4, 6)
    inner_y = layers.Conv2D(3, 3, name="in")(start)
    inner = keras.Model(start, layers.ReLU()(inner_y), name="inner")
    x = image(2, 6)
    one, other = (conv(4, activation="relu", name=name) for name in "ab")
    y = layers.Add()([inner(one(x)), inner(other(x))])
    model = randomised(keras.Model(x, head(y)))
    for value, layer in ((0.5, one), (0.5, other)):
        still(layer, [2], value)
    _, report = folded(model, {"a": [2], "b": [2]})
    assert report.folds[0].layer == "inner/in"
    # Two values of one channel fit no bias.
    still(other, [2], 0.25)
    assert folded(model, {})[1] == FoldReport((), {})


REFUSED = {
    "it has no bias": (
        [layers.Conv2D(3, 3, use_bias=False, name="b"), layers.ReLU()],
        "the layer has no bias, and is not read by a BatchNorm alone",
    ),
    "it has an activation before the norm": (
        [
            layers.Conv2D(3, 3, use_bias=False, name="b", activation="relu"),
            layers.BatchNormalization(),
        ],
        "the layer has no bias, and is not read by a BatchNorm alone",
    ),
    "the norm is along another axis": (
        [layers.Conv2D(3, 3, use_bias=False, name="b"), layers.BatchNormalization(axis=1)],
        "the layer has no bias, and is not read by a BatchNorm alone",
    ),
    "it is transposed": (
        [layers.Conv2DTranspose(3, 3, name="b")],
        "no bias of a Conv2DTranspose can stand in for it",
    ),
    "its borders": ([conv(3, 3, name="b")], "its output would be off by .* at the borders"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    after, reason = REFUSED[kind]
    model = small(*(type(layer).from_config(layer.get_config()) for layer in after))
    still(model.get_layer("a"), [0])
    _, report = folded(model, {})
    assert not report.folds
    assert list(report.refused) == ["b"]
    assert re.fullmatch(reason, report.refused["b"])


def test_a_norm_that_is_not_the_only_reader() -> None:
    x = image(2, 8)
    y = layers.Conv2D(3, 1, use_bias=False, name="b")(conv(4, name="a")(x))
    norm = layers.BatchNormalization()(y)
    for other in (head(y), y):
        model = randomised(keras.Model(x, [head(norm), other]))
        still(model.get_layer("a"), [0])
        assert list(folded(model, {})[1].refused) == ["b"]


def test_one_reader_that_refuses_keeps_a_unit_for_all() -> None:
    x = image(2, 8)
    y = conv(4, name="a")(x)
    model = randomised(keras.Model(x, [head(conv(3, 1, name="b")(y)), head(conv(3, name="c")(y))]))
    still(model.get_layer("a"), [0])
    assert folded(model, {})[1].folds == ()
    _, report = folded(model, {"a": [0]}, math.inf)
    errors = {fold.layer: fold.error for fold in report.folds}
    assert errors["b"] == 0 < errors["c"]


def test_an_image_of_open_size() -> None:
    x = keras.Input((None, None, 2))
    y = conv(3, name="b")(conv(4, name="a")(x))
    model = randomised(keras.Model(x, head(y)))
    still(model.get_layer("a"), [0])
    _, report = fold_constants(model, tolerance=math.inf)
    assert report.refused == {"b": "the layer pads images of open size"}


def test_what_is_never_dead_is_not_touched() -> None:
    """A layer norm hears a channel that is always the same."""
    model = small(layers.LayerNormalization(), layers.Dense(3))
    still(model.get_layer("a"), [0])
    assert folded(model, {})[1] == FoldReport((), {})
    model = small()
    still(named_layers(model)["a"], [0])
    still(model.layers[-1], [1])
    # The head reads the first constant; its own is an output, and nobody reads it.
    assert len(folded(model, {"a": [0]})[1].folds) == 1


def test_an_output_that_somebody_reads_is_not_touched() -> None:
    x = image(2, 8)
    y = conv(4, name="a")(x)
    model = randomised(keras.Model(x, [y, head(y)]))
    still(model.get_layer("a"), [0])
    assert folded(model, {})[1] == FoldReport((), {})


def test_zero_padding_makes_a_constant_vary() -> None:
    model = small(layers.ZeroPadding2D(1), layers.Conv2D(3, 3))
    still(model.get_layer("a"), [0])
    assert folded(model, {})[1] == FoldReport((), {})


numbers = st.integers


@settings(max_examples=15, deadline=None)
@given(
    kernel=st.tuples(numbers(1, 4), numbers(1, 5)),
    size=st.tuples(numbers(2, 7), numbers(1, 7)),
    strides=numbers(1, 3),
    dilation=numbers(1, 2),
    seed=numbers(0, 99),
)
def test_borders_are_off_by_what_is_said_and_no_more(
    kernel: tuple[int, int], size: tuple[int, int], strides: int, dilation: int, seed: int
) -> None:
    x = keras.Input((*size, 1))
    y = layers.Conv2D(3, 1, name="a")(x)
    reader = layers.Conv2D(
        2,
        kernel,
        strides,
        padding="same",
        # TensorFlow has no strides and dilation at once.
        dilation_rate=dilation if strides == 1 else 1,
    )
    model = randomised(keras.Model(x, reader(y)), seed)
    still(model.get_layer("a"), [0, 2])
    inputs = examples(model)
    twin, report = fold_constants(model, tolerance=math.inf)
    off = np.abs(outputs(twin, inputs)[0] - outputs(model, inputs)[0])
    (fold,) = report.folds
    # The bound is reached: nothing smaller would do.
    np.testing.assert_allclose(off.max(), fold.error, rtol=1e-4, atol=1e-5)
    assert fold_constants(model, tolerance=sum_of_errors(model))[1] == report
    # Where the kernel lies on the image, nothing is off.
    reach = [(width - 1) * (dilation if strides == 1 else 1) for width in kernel]
    inner = off[:, reach[0] : -reach[0] or None, reach[1] : -reach[1] or None]
    assert inner.max(initial=0) < 1e-5
    exact, report = fold_constants(model)
    assert_close(outputs(exact, inputs), outputs(model, inputs), 1e-6)
    assert bool(report.folds) == (fold.error == 0)


def sum_of_errors(model: keras.Model) -> float:
    """What both constants are off alone, added up."""
    found = 0.0
    for channel in (0, 2):
        one = keras.models.clone_model(model)
        one.set_weights(model.get_weights())
        variable = one.layers[-1].kernel
        kernel = np.array(variable)
        kernel[:, :, 2 - channel] = 0
        variable.assign(kernel)
        (fold,) = fold_constants(one, tolerance=math.inf)[1].folds
        found += fold.error
    return found * (1 + 1e-6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_causal_borders(dilation: int) -> None:
    x = keras.Input((7, 2))
    y = layers.Conv1D(3, 1, name="a")(x)
    reader = layers.Conv1D(2, 3, padding="causal", dilation_rate=dilation)
    model = randomised(keras.Model(x, reader(y)))
    still(model.get_layer("a"), [1])
    twin, report = fold_constants(model, tolerance=math.inf)
    inputs = examples(model)
    off = np.abs(outputs(twin, inputs)[0] - outputs(model, inputs)[0])
    assert off[:, 2 * dilation :].max() < 1e-6
    np.testing.assert_allclose(off.max(), report.folds[0].error, rtol=1e-5)


def test_a_tolerance_folds_the_least_harmful_first() -> None:
    model = small(conv(3, name="b"))
    still(model.get_layer("a"), [0, 1, 2], 1.0)
    variable = model.get_layer("b").kernel
    # The error grows with the weights: 1, 10 and 100 parts.
    kernel = np.array(variable)
    kernel[:, :, :3] = np.array([1e-1, 1e-3, 1e-2])[:, None]
    variable.assign(kernel)
    # In a corner five of nine taps lie outside.
    for tolerance, filters in (
        (4e-3, []),
        (0.02, [1]),
        (0.06, [1, 2]),
        (0.54, [1, 2]),
        (9, [0, 1, 2]),
    ):
        _, report = folded(model, {"a": filters} if filters else {}, tolerance)
        assert sum(fold.error for fold in report.folds) <= tolerance
        assert bool(report.refused) == (len(filters) < 3)


def test_a_tolerance_below_zero() -> None:
    with pytest.raises(tfprune.UsageError) as error:
        fold_constants(small(), tolerance=-1)
    assert str(error.value) == "tolerance=-1 is not an error to allow: give 0 or more"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
@settings(
    max_examples=6,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(graphs())
def test_any_graph(graph: Graph) -> None:
    model = randomised(built(graph))
    note("\n".join(described(model)))
    groups = ChannelGroups(model)
    alive = random_alive(groups, np.random.default_rng(len(graph.steps)))
    shifts = {id(each): np.array(each) for each in model.weights if each.name in ("bias", "beta")}
    with silenced(groups, alive, {"filter", "scale"}):
        # What goes only weighs nothing: biases and betas stay.
        for variable in model.weights:
            if id(variable) in shifts:
                variable.assign(shifts[id(variable)])
        inputs = examples(model)
        wanted = outputs(model, inputs)
        twin, report = fold_constants(model)
        assert not any(fold.error for fold in report.folds)
        assert_close(outputs(twin, inputs), wanted, 1e-4)
        assert_close(outputs(tfprune.slim(twin, dead=True), inputs), wanted, 1e-4)
        constant = constant_units(ChannelGroups(model))
        twin, report = fold_constants(model, tolerance=math.inf)
        if not report.refused:
            assert ChannelGroups(twin).dead()[constant].all()
