"""What XNNPACK runs sparse is found by its rules, and pruned alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

import tfprune
from tfprune import UsageError, zoo
from tfprune.cli import main
from tfprune.weights import prune_once
from tfprune.weights.xnnpack import sparse_layers

Change = Callable[[keras.KerasTensor], keras.KerasTensor]


def net(
    first: Change | None = None, middle: Change | None = None, last: Change | None = None, size=16
) -> keras.Model:
    """A net that can run sparse, where no part of it is replaced."""
    x = inputs = keras.Input((size, size, 3))
    if first is None:
        x = layers.ZeroPadding2D(1)(x)
        x = layers.Conv2D(8, 3, strides=2, name="first")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU(6)(x)
    else:
        x = first(x)
    x = layers.Conv2D(12, 1, activation="relu", name="one")(x)
    if middle is not None:
        x = middle(x)
    x = layers.Conv2D(8, 1, name="two")(x)
    if last is None:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
        x = layers.Flatten()(x)
    else:
        x = last(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def padded(size: int, strides: int) -> Change:
    return lambda x: layers.DepthwiseConv2D(size, strides, name="deep")(
        layers.ZeroPadding2D(size // 2)(x)
    )


def squeezed(x: keras.KerasTensor) -> keras.KerasTensor:
    scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = layers.Conv2D(4, 1, activation="relu", name="squeeze")(scale)
    scale = layers.Conv2D(12, 1, activation="sigmoid", name="excite")(scale)
    return layers.Multiply()([x, scale])


def residual(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Add()([x, layers.Dropout(0.1)(layers.DepthwiseConv2D(3, padding="same")(x))])


@pytest.mark.parametrize(
    "middle",
    [
        None,
        padded(3, 1),
        padded(3, 2),
        padded(5, 1),
        padded(5, 2),
        residual,
        squeezed,
        lambda x: layers.UpSampling2D(interpolation="bilinear")(x),
        lambda x: layers.LeakyReLU()(layers.ELU()(layers.Activation("sigmoid")(x))),
        lambda x: layers.Activation("silu")(layers.Activation("hard_silu")(x)),
        lambda x: x * (x + layers.ReLU()(x)),
    ],
)
def test_what_xnnpack_can_run_sparse_is_all_found(middle: Change | None) -> None:
    model = net(middle=middle)
    found = sparse_layers(model)
    assert found.forbidden == {}
    pointwise = [
        layer
        for layer in model.layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    ]
    assert list(found.layers) == pointwise


@pytest.mark.parametrize(
    ("middle", "said"),
    [
        (lambda x: layers.Conv2D(12, 3, name="bad", padding="same")(x), "kernel 3x3: use a 1x1"),
        (lambda x: layers.Conv2D(12, 1, 2, name="bad")(x), "strides 2x2: use a 1x1"),
        (lambda x: layers.Conv2D(12, 1, groups=2, name="bad")(x), "2 groups"),
        (lambda x: layers.Conv2D(12, 1, activation="gelu", name="bad")(x), "activation gelu"),
        (lambda x: layers.DepthwiseConv2D(3, 2, padding="same", name="bad")(x), "of odd size"),
        (lambda x: layers.DepthwiseConv2D(3, name="bad")(x), r"padding 0: put ZeroPadding2D\(1\)"),
        (lambda x: layers.DepthwiseConv2D(4, name="bad")(x), "kernel 4x4: use kernels of 3x3"),
        (
            lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="bad")(x),
            "depth_multiplier=2",
        ),
        (lambda x: layers.BatchNormalization(name="bad")(x), "no convolution without activation"),
        (lambda x: layers.MaxPooling2D(name="bad")(x), "no kernel with channels first for MaxPool"),
        (lambda x: layers.ReLU(4.0, name="bad")(x), "is several operators"),
        (lambda x: layers.ZeroPadding2D(name="bad")(x), "no depthwise convolution takes in"),
        (lambda x: layers.UpSampling2D(name="bad")(x), "use interpolation='bilinear'"),
        (lambda x: layers.Add(name="bad")([x, x, x]), "more than two inputs"),
    ],
)
def test_a_layer_that_forbids_it_is_named_with_its_reason(middle: Change, said: str) -> None:
    found = sparse_layers(net(middle=middle))
    assert found.layers == ()
    assert list(found.forbidden) == ["bad"]
    with pytest.raises(UsageError, match=f"bad: .*{said}"):
        prune_once(net(middle=middle), 0.8, policy="xnnpack")


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"first": lambda x: layers.Conv2D(8, 3, 2, padding="same", name="a")(x)}, "a", "same"),
        ({"first": lambda x: layers.Conv2D(8, 3, 2, name="a")(x)}, "a", "padding 0"),
        ({"first": lambda x: layers.Conv2D(8, 3, name="a")(x)}, "a", "with strides 1x1"),
        ({"last": lambda x: layers.GlobalMaxPooling2D(name="b")(x)}, "b", "than images"),
        ({"last": lambda x: layers.Flatten(name="b")(x)}, "b", "something else than images"),
    ],
)
def test_what_a_part_begins_and_ends_with_is_named(changes, name: str, said: str) -> None:
    found = sparse_layers(net(**changes))
    assert found.layers == ()
    assert said in found.forbidden[name]


@pytest.mark.parametrize("behind", [layers.Flatten(), layers.Dropout(0.1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_the_pooling_may_keep_its_dimensions_or_not(keepdims: bool, behind: keras.Layer) -> None:
    pool = layers.GlobalAveragePooling2D(keepdims=keepdims)
    found = sparse_layers(net(last=lambda x: layers.Flatten()(behind(pool(x)))))
    assert found.forbidden == {}
    assert [layer.name for layer in found.layers] == ["one", "two"]


@pytest.mark.parametrize(("size", "forbidden"), [(17, []), (16, ["first"]), (15, ["deep"])])
def test_same_padding_with_strides_is_the_same_on_all_sides_for_odd_sizes_only(
    size: int, forbidden: list[str]
) -> None:
    model = net(
        lambda x: layers.Conv2D(8, 3, 2, padding="same", name="first")(x),
        lambda x: layers.DepthwiseConv2D(3, 2, padding="same", name="deep")(x),
        size=size,
    )
    assert list(sparse_layers(model).forbidden) == forbidden


def test_an_input_from_elsewhere_and_an_output_in_between_forbid_it() -> None:
    other = keras.Input((8, 8, 12), name="other")
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, strides=2)(layers.ZeroPadding2D(1)(image))
    y = layers.Add(name="sum")([x, other])
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(4, 1)(y))
    assert (
        "does not come from" in sparse_layers(keras.Model([image, other], pooled)).forbidden["sum"]
    )
    z = layers.Conv2D(4, 1, name="seen")(x)
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(z)
    assert "leaves the model" in sparse_layers(keras.Model(image, [z, pooled])).forbidden["seen"]
    assert sparse_layers(keras.Model(image, pooled)).forbidden == {}


def test_the_mobilenet_of_the_zoo_runs_sparse_throughout() -> None:
    model = zoo.build("mobilenetv1", (32, 32, 3), 10, width=2, mean=[1, 2, 3], std=[1, 2, 3])
    found = sparse_layers(model)
    assert found.forbidden == {}
    assert [layer.name for layer in found.layers] == [f"block{n}_conv" for n in range(1, 14)]
    # Grey images have another first layer.
    grey = sparse_layers(zoo.build("mobilenetv1", (32, 32, 1), 10, width=2))
    assert "1 channels" in grey.forbidden["stem_conv"]


def test_the_policy_prunes_what_runs_sparse_and_nothing_else() -> None:
    model = net(middle=padded(3, 1))
    pruned = prune_once(model, 0.75, policy="xnnpack")
    zeros = {
        layer.name: float(np.mean(layer.get_weights()[0] == 0))
        for layer in pruned.layers
        if layer.get_weights()
    }
    assert {name for name, share in zeros.items() if share} == {"one", "two"}
    assert sparse_layers(pruned).zeros == 0.75
    with pytest.raises(UsageError, match="leave out all that XNNPACK can run sparse, such as one"):
        prune_once(model, 0.5, policy="xnnpack", include="logits")
    left = prune_once(model, 0.75, policy="xnnpack", exclude="one")
    assert np.all(left.get_layer("one").get_weights()[0] != 0)


@pytest.mark.parametrize(("sparsity", "warned"), [(0.6, True), (0.8, False)])
def test_training_prunes_by_the_policy_and_warns_of_too_few_zeros(sparsity, warned) -> None:
    model = net()
    model.compile("sgd", "mse")
    schedule = tfprune.polynomial_decay(0.0, sparsity, begin=0, end=4, frequency=1)
    pruner = tfprune.PruneWeights(schedule, policy="xnnpack")
    x, y = np.ones((8, 16, 16, 3), "float32"), np.ones((8, 3), "float32")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[pruner])
    assert any("XNNPACK runs sparse only" in str(each.message) for each in told) == warned
    assert sparse_layers(model).zeros == pytest.approx(sparsity, abs=0.02)
    assert np.all(model.get_layer("logits").get_weights()[0] != 0)


def test_inspect_tells_what_runs_sparse_and_what_forbids_it(tmp_path: Path) -> None:
    for name, model in {
        "good": net(),
        "bad": net(middle=layers.MaxPooling2D(name="worst")),
    }.items():
        model.save(tmp_path / f"{name}.keras")
    words = ["inspect", "--device", "wasm"]
    good = CliRunner().invoke(main, [*words, str(tmp_path / "good.keras")]).stdout
    assert "2 layers can run sparse, from one to two; 0.0% of their weights are zero" in good
    bad = CliRunner().invoke(main, [*words, str(tmp_path / "bad.keras")]).stdout
    assert "forbids sparse kernels: worst: XNNPACK has no kernel" in bad
    found = json.loads(
        CliRunner().invoke(main, [*words, str(tmp_path / "good.keras"), "--json"]).stdout
    )
    assert found["sparse"] == {"layers": ["one", "two"], "zeros": 0.0, "forbidden": {}}
