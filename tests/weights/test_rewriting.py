"""What is rewritten for XNNPACK's sparse kernels runs sparse, and gives the same outputs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import tfprune
from tests.tables import slow
from tfprune.cli import main
from tfprune.model.counting import count_macs
from tfprune.weights import prune_once
from tfprune.weights.rewriting import _before, _places, rewrites
from tfprune.weights.xnnpack import sparse_layers

Change = Callable[[Any], Any]


def drawn(model: keras.Model, seed: int = 0) -> keras.Model:
    """A model whose weights are all drawn, so that none is where another would do."""
    random = np.random.default_rng(seed)
    model.set_weights(
        [
            random.uniform(0.5, 1.5, weight.shape)
            if weight.name == "moving_variance"
            else random.normal(0, 0.5, weight.shape)
            for weight in model.weights
        ]
    )
    return model


def net(
    middle: Change | None = None,
    first: Change | None = None,
    last: Change | None = None,
    size: tuple[int | None, int | None] = (13, 12),
    channels: int = 3,
) -> keras.Model:
    """A net that runs sparse as far as its parts are not replaced."""
    x = inputs = keras.Input((*size, channels))
    if first is None:
        x = layers.Conv2D(6, 3, strides=2, padding="valid", name="first")(
            layers.ZeroPadding2D(1, name="pad")(x)
        )
    else:
        x = first(x)
    x = layers.Conv2D(8, 1, activation="relu", name="one")(x)
    x = x if middle is None else middle(x)
    x = layers.Conv2D(6, 1, name="two")(x)
    if last is None:
        x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    else:
        x = last(x)
    return drawn(keras.Model(inputs, x))


def assert_same(model: keras.Model, rewritten: keras.Model, rtol: float = 2e-5) -> None:
    random = np.random.default_rng(1)
    shapes = [(2, *(side or 13 for side in x.shape[1:])) for x in model.inputs]
    x = [random.normal(0, 1, shape).astype("float32") for shape in shapes]
    for one, other in zip(
        keras.tree.flatten(model(x if len(x) > 1 else x[0])),
        keras.tree.flatten(rewritten(x if len(x) > 1 else x[0])),
        strict=True,
    ):
        expected = np.asarray(one)
        np.testing.assert_allclose(
            np.asarray(other), expected, rtol=0, atol=rtol * max(np.abs(expected).max(), 1e-3)
        )


def assert_rewritten(model: keras.Model) -> keras.Model:
    """A model runs sparse after it was rewritten, and not before; its outputs stay the same."""
    assert sparse_layers(model).forbidden
    rewritten = tfprune.rewrite_for_xnnpack(model)
    found = sparse_layers(rewritten)
    assert found.forbidden == {}
    assert found.layers
    assert [layer.name for layer in found.layers] == list(rewrites(model).layers)
    assert_same(model, rewritten)
    return rewritten


def same(x: Any) -> Any:
    """A first convolution whose zeros are on all sides for images of odd size only."""
    return layers.Conv2D(6, 3, 2, padding="same", name="first")(x)


def squeezed_by_dense(x: Any) -> Any:
    scale = layers.GlobalAveragePooling2D(name="squeeze")(x)
    scale = layers.Dense(4, "relu", name="down")(scale)
    scale = layers.Dense(8, "hard_sigmoid", name="up")(layers.Dropout(0.1)(scale))
    return layers.Multiply()([x, layers.Reshape((1, 1, 8), name="pixel")(scale)])


def squeezed_by_convolutions(x: Any) -> Any:
    scale = layers.Reshape((1, 1, 8), name="pixels")(layers.GlobalAveragePooling2D()(x))
    scale = layers.Conv2D(4, 1, activation="silu")(scale)
    return layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(scale)])


def deep(size: Any = 3, strides: int = 1, **options: Any) -> Change:
    return lambda x: layers.DepthwiseConv2D(size, strides, **options)(x)


def preactivated(x: Any) -> Any:
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.Add()([x, x])))
    return layers.Add()([x, layers.Conv2D(8, 1)(y)])


MIDDLES: dict[str, Change] = {
    "strides": deep(3, 2, padding="same"),
    "wide strides": deep(5, 2, padding="same", activation="hard_sigmoid"),
    "one-sided padding": lambda x: deep(3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)),
    "even kernel": deep((2, 4), 1, padding="same"),
    "single column": deep((3, 1), 1, padding="same"),
    "dilation": deep(3, 1, padding="same", dilation_rate=2),
    "groups": lambda x: layers.Conv2D(8, 3, 2, padding="same", groups=8)(x),
    "strides of a 1x1": lambda x: layers.Conv2D(8, 1, 2, activation="relu6")(x),
    "norm": preactivated,
    "three": lambda x: layers.Add()([x, layers.ReLU()(x), layers.ELU()(x)]),
    "product": lambda x: layers.Multiply()([x, layers.ReLU()(x), x]),
    "average": lambda x: layers.AveragePooling2D((3, 2), 2)(
        layers.ZeroPadding2D(((1, 1), (0, 0)))(x)
    ),
    "leaky": lambda x: layers.ReLU(negative_slope=0.2)(x),
    "capped": lambda x: layers.ReLU(0.7)(x),
    "hard sigmoid": lambda x: layers.Activation("hard_sigmoid")(x),
    "hard sigmoid of numbers": lambda x: layers.ReLU(6.0)(x + 3.0) * (1 / 6),
    "numbers": lambda x: 1.5 - (x - 0.5) / 3,
    "rescaling": lambda x: layers.Rescaling(0.3, 0.2)(x),
    "raw hard sigmoid": lambda x: ops.hard_sigmoid(x),
    "dense": lambda x: layers.Dense(8, "relu")(x),
    "separable": lambda x: layers.SeparableConv2D(8, 3, 2, padding="same", activation="relu")(x),
    "squeeze by Dense": squeezed_by_dense,
    "squeeze by convolutions": squeezed_by_convolutions,
}


def test_all_of_them_in_one_net_are_rewritten_exactly() -> None:
    def middle(x: Any) -> Any:
        for name, change in MIDDLES.items():
            # These want images of certain sizes.
            if name not in ("one-sided padding", "average"):
                x = change(x)
            if min(x.shape[1:3]) < 4:
                x = layers.UpSampling2D(interpolation="bilinear")(x)
        return x

    assert_rewritten(net(middle, same))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIDDLES)
def test_what_lies_in_the_middle_is_rewritten_exactly(name: str) -> None:
    size = (12, 12) if name == "one-sided padding" else (13, 12)
    assert_rewritten(net(MIDDLES[name], same, size=size))


@pytest.mark.parametrize(
    ("first", "size", "channels"),
    [
        (same, (12, 12), 3),
        (same, (12, 13), 3),
        (same, (12, 12), 1),
        (lambda x: layers.Conv2D(6, 2, 2, activation="relu", name="first")(x), (12, 12), 3),
        (
            lambda x: layers.Conv2D(6, 3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x / 255.0)),
            (12, 12),
            3,
        ),
    ],
)
def test_the_first_convolution_is_rewritten_exactly(
    first: Change, size: Any, channels: int
) -> None:
    assert_rewritten(net(first=first, size=size, channels=channels))


@pytest.mark.parametrize(
    "last",
    [
        lambda x: layers.Dense(3)(layers.Flatten()(layers.AveragePooling2D((7, 6), name="p")(x))),
        lambda x: layers.Flatten()(layers.Reshape((1, 1, 6))(
            layers.GlobalAveragePooling2D(keepdims=True)(layers.ReLU(2.0)(x))
        )),
    ],
)  # fmt: skip
def test_the_end_is_rewritten_exactly(last: Change) -> None:
    assert_rewritten(net(last=last))


def windows_of(x: np.ndarray, weights: np.ndarray, dilation: int, stride: int, pads: Any) -> Any:
    """The sums of a convolution along one axis."""
    x = np.pad(x, pads)
    extent = dilation * (len(weights) - 1) + 1
    begins = range(0, len(x) - extent + 1, stride)
    return np.array([weights @ x[begin : begin + extent : dilation] for begin in begins])


def test_windows_have_their_place_in_those_of_symmetric_padding_or_none() -> None:
    """All small cases along one axis, against sums that are computed one by one."""
    found = 0
    for size, kernel, dilation, stride, before, after, same, mirrored in itertools.product(
        range(4, 8), range(1, 6), (1, 2), (1, 2), range(3), range(3), (False, True), (False, True)
    ):
        if dilation > 1 and stride > 1:
            continue
        extent = dilation * (kernel - 1) + 1
        if size + before + after < extent:
            continue
        begin = _before(size, extent, stride, (before, after), same, mirrored)
        if isinstance(begin, str):
            continue
        # TensorFlow adds to the zeros that are there already.
        padded = size + before + after
        own = max((-(-padded // stride) - 1) * stride + extent - padded, 0) if same else 0
        x, weights = np.arange(1.0, size + 1) ** 2, np.arange(1.0, kernel + 1) ** 3
        expected = windows_of(
            x, weights, dilation, stride, (before + own // 2, after + own - own // 2)
        )
        for square in (3, 5):
            places = _places(begin, kernel, dilation, square, mirrored)
            if places is None:
                continue
            found += 1
            whole = np.zeros(square)
            whole[list(places)] = weights
            image = x[::-1] if mirrored else x
            given = windows_of(image, whole, 1, stride, (square // 2, square // 2))
            np.testing.assert_array_equal(given[::-1] if mirrored else given, expected)
    assert found > 300


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(13, 28), st.integers(13, 28)),
    st.sampled_from([(3, 3), (5, 5), (1, 1), (2, 3), (3, 5)]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_strides_of_images_of_any_size_are_rewritten_exactly_or_refused(
    size: Any, kernel: Any, strides: int, mirrored: bool
) -> None:
    model = net(deep(kernel, strides, padding="same"), same if mirrored else None, size=size)
    found = rewrites(model)
    assert found.layers or not mirrored
    if found.layers:
        assert sparse_layers(found.model).forbidden == {}
        assert_same(model, found.model)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: net(lambda x: layers.MaxPooling2D(name="bad")(x)), "bad: XNNPACK has no kernel"),
        (
            lambda: net(lambda x: layers.Conv2D(8, 3, padding="same", name="bad")(x)),
            "bad: kernel 3x3",
        ),
        (lambda: net(lambda x: layers.ReLU(0.5, 0.1, name="bad")(x)), "bad: its kind of ReLU"),
        (
            lambda: net(lambda x: layers.AveragePooling2D(3, 1, "same", name="bad")(x)),
            "bad: XNNPACK has no kernel with channels first for AveragePooling2D",
        ),
        (lambda: net(deep(7, 1, padding="same", name="deep")), "deep: kernel 7x7"),
        (
            lambda: net(deep(3, 1, padding="valid", name="deep")),
            "deep: its output has another size than its input: use padding='same', or ZeroPadd",
        ),
        (lambda: net(size=(None, None), first=None), "nothing"),
        (
            lambda: net(
                size=(None, None),
                first=same,
            ),
            "first: padding='same' with strides 2x2",
        ),
        (
            lambda: net(first=lambda x: layers.Conv2D(6, 7, 2, padding="same", name="first")(x)),
            "first: kernel 7x7",
        ),
        (lambda: net(last=lambda x: layers.Flatten(name="flat")(x)), "flat: "),
    ],
)  # fmt: skip
def test_what_cannot_be_rewritten_is_told_with_its_reason(model: Any, said: str) -> None:
    if said == "nothing":
        assert rewrites(model()).changes == {}
        return
    with pytest.raises(tfprune.UsageError, match="no exact rewriting changes that: " + said):
        tfprune.rewrite_for_xnnpack(model())


def test_a_part_that_cannot_be_rewritten_is_warned_of() -> None:
    x = inputs = keras.Input((12, 12, 3))
    good, bad = (layers.Conv2D(6, 3, 2, padding="same", name=name)(x) for name in "ab")
    good = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1, name="sparse")(good))
    bad = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(name="worst")(bad))
    model = drawn(keras.Model(inputs, layers.Concatenate()([good, bad])))
    with pytest.warns(UserWarning, match="a part of the model cannot run sparse: worst: XNNPACK"):
        rewritten = tfprune.rewrite_for_xnnpack(model)
    assert [layer.name for layer in sparse_layers(rewritten).layers] == ["sparse"]
    # What cannot run sparse anyway stays as it is.
    assert rewritten.get_layer("b").padding == "same"
    assert_same(model, rewritten)


def test_what_runs_sparse_already_stays_as_it_is() -> None:
    model = net(lambda x: layers.DepthwiseConv2D(3, padding="same")(x + layers.ReLU()(x)))
    assert sparse_layers(model).forbidden == {}
    rewritten = tfprune.rewrite_for_xnnpack(model)
    assert rewritten.get_config()["layers"] == model.get_config()["layers"]
    for one, other in zip(model.weights, rewritten.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_and_shared_layers_keep_one_weight_and_their_names() -> None:
    x = inner = keras.Input((6, 6, 8))
    shared = layers.DepthwiseConv2D(3, 1, "same", name="shared")
    x = layers.Conv2D(8, 1, name="inner_conv")(shared(layers.BatchNormalization(name="bn")(x)))
    block = keras.Model(inner, shared(x), name="block")
    model = net(block, same, size=(12, 12))
    rewritten = assert_rewritten(model)
    names = [layer.name for layer in rewritten.layers]
    assert {"shared", "inner_conv", "bn", "one", "two", "logits"} <= set(names)
    assert names.count("shared") == 1
    kernel = np.asarray(block.get_layer("shared").kernel)
    # Mirrored once, not twice.
    np.testing.assert_array_equal(rewritten.get_layer("shared").kernel, kernel[::-1, ::-1])
    np.testing.assert_array_equal(
        rewritten.get_layer("inner_conv").kernel, block.get_layer("inner_conv").kernel
    )


def test_a_shared_layer_of_two_forms_is_refused() -> None:
    shared = layers.DepthwiseConv2D(3, 2, "same", name="shared")
    model = net(lambda x: shared(shared(x)), size=(13, 13))
    # Both images begin where a kernel that is mirrored has its zeros.
    assert assert_rewritten(model).get_layer("shared").kernel.shape == (3, 3, 8, 1)
    model = net(lambda x: shared(shared(x)), size=(22, 22))
    with pytest.raises(tfprune.UsageError, match="shared: it is called more than once"):
        tfprune.rewrite_for_xnnpack(model)


def test_zeros_stay_and_the_rewritten_model_trains_saves_and_loads(tmp_path: Path) -> None:
    model = net(preactivated, same, size=(12, 12))
    model = prune_once(model, 0.5)
    rewritten = tfprune.rewrite_for_xnnpack(model)
    one = rewritten.get_layer("one").kernel
    np.testing.assert_array_equal(one, model.get_layer("one").kernel)
    sparse = prune_once(rewritten, 0.8, policy="xnnpack")
    assert sparse_layers(sparse).zeros > 2 / 3
    frozen = sparse.get_layer("norm_identity")
    before = [np.asarray(weight) for weight in frozen.weights]
    sparse.compile("adam", "mse")
    x, y = np.ones((8, 12, 12, 3), "float32"), np.ones((8, 3), "float32")
    sparse.fit(x, y, verbose=0, callbacks=[tfprune.weights.KeepZeros()])
    np.testing.assert_array_equal(frozen.weights[0], before[0])
    sparse.save(tmp_path / "sparse.keras")
    loaded = tfprune.load(tmp_path / "sparse.keras")
    assert sparse_layers(loaded).forbidden == {}
    assert_same(sparse, loaded, rtol=1e-7)
    again = tfprune.rewrite_for_xnnpack(loaded)
    assert [layer.name for layer in again.layers] == [layer.name for layer in loaded.layers]


@pytest.mark.parametrize(
    ("name", "sparse", "macs"),
    [
        slow("MobileNet", 14, 1.0),
        slow("MobileNetV2", 34, 1.0),
        slow("MobileNetV3Small", 42, 1.1),
        slow("EfficientNetB0", 64, 1.01),
    ],
)
def test_nets_of_keras_applications_run_sparse_after_it(
    name: str, sparse: int, macs: float
) -> None:
    options: dict[str, Any] = {"alpha": 0.35} if name.startswith("MobileNetV2") else {}
    if name == "MobileNet":
        options = {"alpha": 0.25}
    model = getattr(keras.applications, name)((64, 64, 3), weights=None, classes=3, **options)
    rewritten = assert_rewritten(model)
    assert len(sparse_layers(rewritten).layers) == sparse
    before, after = count_macs(model).macs, count_macs(rewritten).macs
    assert 1 <= after / before <= macs


def _run(*words: Any) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands_tell_and_do_it(tmp_path: Path) -> None:
    model = net(
        lambda x: deep(3, 2, name="deep")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)),
        same,
        size=(12, 12),
    )
    path, output = tmp_path / "net.keras", tmp_path / "out.keras"
    model.save(path)
    said = _run("inspect", "--device", "wasm", path)
    assert "forbids sparse kernels: first: padding='same' with strides 2x2" in said
    assert "can be rewritten exactly: first: reads the image rotated by 180 degrees" in said
    assert "after `tfprune rewrite`, 2 layers can run sparse, from one to two\n" in said
    found = json.loads(_run("inspect", "--device", "wasm", path, "--json"))["rewritable"]
    assert (found["layers"], found["left"]) == (["one", "two"], {})
    assert list(found["changes"]) == ["first", "deep"]
    told = _run("rewrite", path, "-o", output)
    macs = f"{count_macs(model).macs:,}"
    assert told == f"{output}: 2 layers can run sparse, from one to two, {macs} MACs to {macs}\n"
    assert_same(model, tfprune.load(output))


def test_inspect_tells_what_cannot_be_rewritten(tmp_path: Path) -> None:
    net(lambda x: layers.MaxPooling2D(name="worst")(x)).save(tmp_path / "net.keras")
    said = _run("inspect", "--device", "wasm", tmp_path / "net.keras")
    assert "cannot be rewritten exactly: worst\n" in said
    assert "after `tfprune rewrite`" not in said
