from __future__ import annotations

import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import UsageError, zoo

CIFAR = (32, 32, 3)
TINY: dict[str, dict] = {
    name: {"width": 2, **({"blocks": (1, 1)} if name == "vgg" else {})}
    for name in zoo.NAMES
    if name not in ("resnet32", "resnet44", "resnet56", "resnet110")
}


def tiny(name: str, **changes) -> keras.Model:
    return zoo.build(name, **{"input_shape": (8, 8, 1), "classes": 10, **TINY[name], **changes})


def size(weights: list) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def kernels(model: keras.Model) -> list:
    return [weight for weight in model.trainable_weights if weight.name == "kernel"]


def test_listing_the_names_does_not_import_keras():
    code = "import sys, tfprune.zoo; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Frankle & Carbin 2019, figure 2: 38K, 260K and 1.1M weights in convolutions, 4.3M, 2.4M in all.
@pytest.mark.parametrize(
    ("name", "convolutional", "everything"),
    [
        ("conv2", 38_592, 4_300_992),
        ("conv4", 259_776, 2_425_024),
        ("conv6", 1_144_512, 2_261_184),
    ],
)
def test_lottery_ticket_nets_have_the_published_weights(name, convolutional, everything):
    model = zoo.build(name, CIFAR, 10)
    assert size([weight for weight in kernels(model) if weight.ndim == 4]) == convolutional
    assert size(kernels(model)) == everything


# He et al. 2016, table 6, says 0.27M, 0.46M, 0.66M, 0.85M and 1.7M with parameter-free shortcuts.
@pytest.mark.parametrize(
    ("depth", "published"),
    [
        (20, 269_722),
        (32, 464_154),
        pytest.param(44, 658_586, marks=pytest.mark.slow),
        pytest.param(56, 853_018, marks=pytest.mark.slow),
        pytest.param(110, 1_727_962, marks=pytest.mark.slow),
    ],
)
def test_resnets_have_the_published_parameters_and_two_projections(depth, published):
    model = zoo.build(f"resnet{depth}", CIFAR, 10)
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert size(model.trainable_weights) == published + projections
    convolutions = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and "shortcut" not in layer.name
    ]
    # The depth in the name counts the dense layer too.
    assert len(convolutions) + 1 == depth


def test_vgg16_has_the_published_parameters_but_for_the_biases():
    model = zoo.build("vgg", CIFAR, 10, width=64, blocks=(2, 2, 3, 3, 3))
    biases = sum(n * 64 * m for n, m in zip((2, 2, 3, 3, 3), (1, 2, 4, 8, 8), strict=True))
    assert size(model.trainable_weights) == 14_728_266 - biases
    assert model.get_layer("block5_pool").output.shape == (None, 1, 1, 512)


# Howard et al. 2017, table 1: 4.2 million.
@pytest.mark.parametrize("width", [8, 32])
def test_mobilenets_have_the_published_parameters(width):
    model = zoo.build("mobilenetv1", (224, 224, 3), 1000, width=width)
    reference = keras.applications.MobileNet(alpha=width / 32, weights=None)
    assert size(model.trainable_weights) == size(reference.trainable_weights)
    assert width != 32 or size(model.trainable_weights) == 4_231_976
    assert model.get_layer("global_pool").output.shape == (None, 1, 1, 32 * width)


@pytest.mark.parametrize("name", TINY)
def test_a_model_comes_back_from_its_file(name, tmp_path):
    mean, std = np.float32([100, 120, 140]), np.float32([60, 0, 64])
    model = tiny(name, input_shape=(8, 8, 3), mean=mean, std=std)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("normalize").scale == model.get_layer("normalize").scale
    np.testing.assert_array_equal(loaded(pixels), model(pixels))


@pytest.mark.parametrize("name", TINY)
def test_every_layer_has_a_name_that_does_not_depend_on_the_process(name):
    first, second = tiny(name), tiny(name)
    names = [layer.name for layer in first.layers]
    assert names == [layer.name for layer in second.layers]
    assert names[:2] == ["image", "normalize"]
    assert names[-1] == "logits"
    assert first.name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_same_seed_same_weights_without_the_global_state(name):
    # Keras' unseeded initializers draw from Python's global state.
    before = random.getstate()
    first = tiny(name, seed=5).get_weights()
    keras.utils.set_random_seed(2)
    second = tiny(name, seed=5).get_weights()
    keras.utils.set_random_seed(0)
    assert random.getstate() == before
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", TINY)
def test_layers_and_seeds_start_differently(name):
    drawn = [
        kernel.numpy().ravel()[:8].tobytes()
        for seed in (0, 1)
        for kernel in kernels(tiny(name, seed=seed))
    ]
    assert len(set(drawn)) == len(drawn)


@settings(max_examples=5, deadline=None)
@given(
    name=st.sampled_from(sorted(TINY)),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 4),
    classes=st.integers(1, 12),
)
def test_any_image_size_gives_one_logit_a_class(name, height, width, channels, classes):
    model = tiny(name, input_shape=(height, width, channels), classes=classes)
    logits = model(np.zeros((3, height, width, channels), np.float32))
    assert logits.shape == (3, classes)


def test_pixels_are_normalised_inside():
    mean, std = [100.0, 120.0, 140.0], [60.0, 0.0, 64.0]
    model = tiny("conv2", input_shape=(8, 8, 3), mean=mean, std=std)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    # A constant channel is shifted, not blown up.
    expected = (pixels - mean) / [60.0, 1.0, 64.0]
    np.testing.assert_allclose(model.get_layer("normalize")(pixels), expected, atol=1e-5)


def test_without_figures_pixels_go_to_minus_one_and_one():
    normalize = tiny("conv2").get_layer("normalize")
    np.testing.assert_allclose(normalize(np.float32([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)


def test_logits_are_not_squashed():
    assert tiny("vgg").layers[-1].activation is keras.activations.linear


def test_width_scales_every_layer():
    assert tiny("conv4", width=3).get_layer("block2_conv1").filters == 6
    assert tiny("conv4", width=3).get_layer("dense1").units == 12
    assert tiny("resnet20", width=3).get_layer("stage3_block1_conv2").filters == 12
    blocks = tiny("vgg", width=3, blocks=(1, 1, 1, 1, 1))
    filters = [blocks.get_layer(f"block{i}_conv1").filters for i in range(1, 6)]
    assert filters == [3, 6, 12, 24, 24]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet-20", {}, "unknown model 'resnet-20': did you mean 'resnet20'?"),
        ("vgg", {"widht": 3}, "unknown option 'widht' of vgg: did you mean 'width'?"),
        ("conv2", {"modules": 3}, "unknown option 'modules' of conv2"),
        ("resnet20", {"depth": 8}, "unknown option 'depth' of resnet20"),
        ("resnet20", {"blocks": (1,)}, "unknown option 'blocks' of resnet20"),
        ("vgg", {"width": 0}, "width is 0 and must be a whole number of 1 or more"),
        ("vgg", {"width": 1.5}, "width is 1.5 and must be a whole number of 1 or more"),
        ("vgg", {"blocks": ()}, "the number of blocks is 0"),
        ("vgg", {"blocks": (2, 0)}, "a number in blocks is 0"),
        ("vgg", {"classes": 0}, "classes is 0"),
        ("vgg", {"input_shape": (8, 8)}, r"input_shape=\(8, 8\) must be \(height, width"),
        ("vgg", {"input_shape": (8, 0, 1)}, "a size in input_shape is 0"),
        ("vgg", {"mean": [1.0]}, "mean and std must both be given, with 1 figures"),
        ("vgg", {"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "mean and std must both be given"),
        ("vgg", {"seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_an_impossible_model_is_one_line(name, changes, message):
    options = {"input_shape": (8, 8, 1), "classes": 10, **changes}
    with pytest.raises(UsageError, match=message) as error:
        zoo.build(name, **options)
    assert "\n" not in str(error.value)
