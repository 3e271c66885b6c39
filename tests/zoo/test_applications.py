from __future__ import annotations

import importlib
import inspect
import random
import re
import subprocess
import sys
import urllib.error
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune import TfpruneError, UsageError, zoo
from tfprune.zoo import applications, papers
from tfprune.zoo.catalogue import KERAS_APPLICATIONS, NETS, options_of

SHAPE = (32, 32, 3)
# What this package decides for every net of Keras.
DECIDED = {
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
    "include_preprocessing",
}
# What they do to the top, which is left out; the option `dropout` of this package replaces them.
OF_THE_TOP = {"dropout", "dropout_rate"}


def parameters(function) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def small(seed: int = 0, **options) -> keras.Model:
    options = {"alpha": 0.35, "weights": "random", **options}
    return zoo.build("MobileNetV2", SHAPE, 3, seed=seed, **options)


@pytest.fixture(scope="module")
def plain() -> keras.Model:
    """Nobody may change it."""
    return small()


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def below_the_logits(model: keras.Model) -> keras.Model:
    return keras.Model(model.inputs[0], model.get_layer("logits").input)


def preprocess_input(name: str):
    module = getattr(keras.applications, name).__module__.rpartition(".")[2]
    return importlib.import_module(f"keras.applications.{module}").preprocess_input


def keras_net(name: str, **options) -> keras.Model:
    return getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=SHAPE, pooling="avg", **options
    )


def test_names_are_those_of_the_installed_keras():
    offered = {name for name, value in vars(keras.applications).items() if callable(value)}
    assert set(zoo.APPLICATIONS) == offered
    assert len(zoo.APPLICATIONS) == len(offered)
    assert not set(zoo.APPLICATIONS) & set(zoo.NAMES)


@pytest.mark.parametrize("name", zoo.APPLICATIONS)
def test_options_are_those_of_the_installed_keras(name):
    offered = set(parameters(getattr(keras.applications, name))) - DECIDED - OF_THE_TOP
    assert set(options_of(name)) == offered | {"weights", "dropout", "trainable"}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_options_are_those_of_the_nets_of_the_papers(name):
    net = NETS[name]
    function = getattr(papers, net.function)
    offered = {
        key
        for key, argument in parameters(function).items()
        if argument.kind is argument.KEYWORD_ONLY
    }
    assert set(options_of(name)) == offered - {"mean", "std", "seed", "name"} - set(net.fixed)


def test_options_of_the_top_change_nothing_below_it():
    plain = [layer.name for layer in keras_net("MobileNet").layers if "dropout" in layer.name]
    dropping = (
        keras_net("MobileNet", dropout=0.9).layers
        + keras_net("MobileNetV3Small", dropout_rate=0.9).layers
    )
    assert plain == [layer.name for layer in dropping if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.parametrize("name", zoo.APPLICATIONS)
def test_the_smallest_size_is_that_of_keras(name):
    less = KERAS_APPLICATIONS[name].smallest - 1
    with pytest.raises(ValueError, match=rf"must be at least {less + 1}x{less + 1};"):
        getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=(less, less, 3)
        )


@pytest.mark.parametrize("name", zoo.APPLICATIONS)
def test_the_input_stage_is_preprocess_input(name):
    side = KERAS_APPLICATIONS[name].smallest
    # Figures of the data do not matter where there is a convention.
    stage = keras.Model(
        *applications.preprocessed_input(name, (side, side, 3), [1.0] * 3, [2.0] * 3)
    )
    pixels = images(2, side, side, 3)
    expected = preprocess_input(name)(pixels.copy())
    np.testing.assert_allclose(stage(pixels), expected, atol=2e-5)


@pytest.mark.parametrize("name", zoo.APPLICATIONS)
def test_images_in_grey_are_normalised_by_the_data_where_a_net_knows_colours_alone(name):
    side = KERAS_APPLICATIONS[name].smallest
    stage = keras.Model(*applications.preprocessed_input(name, (side, side, 1), [100.0], [50.0]))
    pixels = images(2, side, side, 1)
    expected = {"tf": pixels / 127.5 - 1, "inside": pixels}
    if name.startswith(("ConvNeXt", "DenseNet", "VGG")) or re.fullmatch(r"ResNet\d+", name):
        expected = {KERAS_APPLICATIONS[name].convention: (pixels - 100) / 50}
    convention = KERAS_APPLICATIONS[name].convention
    np.testing.assert_allclose(stage(pixels), expected[convention], atol=1e-5)


# Colours by themselves, colours turned round, and scaled inside.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MobileNet", {"alpha": 0.25, "depth_multiplier": 2}),
        ("VGG16", {}),
        ("MobileNetV3Small", {"minimalistic": True, "alpha": 0.5}),
    ],
)
def test_a_file_gives_the_features_of_the_net_in_keras(name, options, tmp_path):
    net = keras_net(name, **options)
    net.save_weights(tmp_path / "net.weights.h5")
    model = zoo.build(name, SHAPE, 3, weights=tmp_path / "net.weights.h5", **options)
    pixels = images(2, *SHAPE)
    expected = net(preprocess_input(name)(pixels.copy()))
    assert float(keras.ops.std(expected)) > 0
    np.testing.assert_allclose(below_the_logits(model)(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Keras finds these weights where it looks for ImageNet's."""

    def publish(net: keras.Model) -> Path:
        path = tmp_path / "published.weights.h5"
        net.save_weights(path)
        monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
        return path

    return publish


def test_imagenet_weights_are_the_default_and_the_logits_are_new(published):
    net = keras_net("MobileNet", alpha=0.25)
    published(net)
    model = zoo.build("MobileNet", SHAPE, 3, alpha=0.25)
    *weights, kernel, bias = model.get_weights()
    for one, expected in zip(weights, net.get_weights(), strict=True):
        np.testing.assert_array_equal(one, expected)
    untrained = zoo.build("MobileNet", SHAPE, 3, alpha=0.25, weights="random")
    np.testing.assert_array_equal(kernel, untrained.get_layer("logits").kernel)
    assert np.abs(kernel).max() > 0 == np.abs(bias).max()


@pytest.mark.slow
def test_efficientnet_reads_the_published_file_like_imagenet(published):
    net = keras_net("EfficientNetB0")
    # What the published file holds: the deviation in place of the variance.
    normalization = next(layer for layer in net.layers if layer.name.startswith("normalization"))
    normalization.adapt_mean.assign([0.485, 0.456, 0.406])
    normalization.adapt_variance.assign([0.229, 0.224, 0.225])
    path = published(net)
    pixels = images(2, *SHAPE)
    of_file, of_keras = (
        below_the_logits(zoo.build("EfficientNetB0", SHAPE, 3, weights=weights))
        for weights in (path, "imagenet")
    )
    np.testing.assert_allclose(of_file(pixels), of_keras(pixels), rtol=1e-3, atol=1e-5)
    stage = keras.Model(of_file.inputs[0], of_file.get_layer("normalization").output)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(stage(pixels), expected, atol=1e-4)


@pytest.mark.slow
def test_same_seed_same_model_whatever_was_built_before():
    options = {"alpha": 0.25, "weights": "random", "dropout": 0.3}
    before = random.getstate()
    first = zoo.build("MobileNet", SHAPE, 3, seed=5, **options)
    keras.utils.set_random_seed(2)
    second = zoo.build("MobileNet", SHAPE, 3, seed=5, **options)
    keras.utils.set_random_seed(0)
    assert random.getstate() == before
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]
    assert [layer.name for layer in first.operations] == [layer.name for layer in second.operations]
    # Variables include the states of the dropout.
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    other = zoo.build("MobileNet", SHAPE, 3, seed=6, **options)
    kernels = [model.get_layer("conv1").kernel.numpy() for model in (first, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


@pytest.mark.slow
def test_layers_have_the_names_of_a_fresh_process():
    # These names of Keras' count what was built before.
    for _ in range(2):
        model = zoo.build("MobileNetV3Small", SHAPE, 3, weights="random")
        names = [operation.name for operation in model.operations]
        assert names[:4] == ["image", "rescaling", "conv", "conv_bn"]
        numbers = sorted(
            int(re.sub(r"\D", "", name) or 0) for name in names if "activation" in name
        )
        assert numbers == list(range(len(numbers))) != []
        assert names[-1] == "logits"
        owners = {variable.path.split("/")[0] for variable in model.variables}
        assert owners <= set(names)


def test_layers_of_one_net_start_differently(plain):
    kernels = [weight for weight in plain.trainable_weights if weight.name == "kernel"]
    starts = {kernel.numpy().ravel()[:8].tobytes() for kernel in kernels}
    assert len(starts) == len(kernels)


def test_the_model_gives_logits_and_is_flat(plain):
    assert plain(images(2, *SHAPE)).shape == (2, 3)
    assert plain.name == "MobileNetV2"
    assert [layer.name for layer in plain.layers[:3]] == ["image", "normalize", "Conv1"]
    assert not any(isinstance(layer, keras.Model) for layer in plain.layers)
    assert plain.layers[-1].activation is keras.activations.linear


def test_dropout_comes_before_the_logits_only_where_asked_for(plain):
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in plain.layers)
    dropping = small(dropout=0.25)
    assert (dropping.layers[-2].name, dropping.layers[-2].rate) == ("dropout", 0.25)
    kernels = [model.get_layer("logits").kernel for model in (plain, dropping)]
    np.testing.assert_array_equal(*kernels)


@pytest.mark.slow
def test_a_model_loads_without_tfprune(plain, tmp_path):
    pixels = images(2, *SHAPE)
    np.save(tmp_path / "pixels.npy", pixels)
    models = {"plain": plain}
    # The layers that turn the colours round are no part of any net of Keras.
    inputs, x = applications.preprocessed_input("VGG16", SHAPE)
    models["turned"] = keras.Model(inputs, x)
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    code = """
import sys, keras, numpy as np
pixels = np.load(f"{sys.argv[1]}/pixels.npy")
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    np.save(f"{sys.argv[1]}/{name}.npy", model(pixels))
assert "tfprune" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path, *models], check=True, cwd=tmp_path)
    for name, model in models.items():
        given = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(given, model(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_slim_one_has_fewer_weights_and_becomes_tflite(plain, tmp_path):
    slim = tfprune.slim(plain, filters=0.5)
    assert slim.count_params() < 0.5 * plain.count_params()
    # Exporting compares the file with the model.
    tfprune.export(slim, tmp_path, formats=["tflite"], representative_data=images(8, *SHAPE))


def test_turned_colours_become_tflite_in_8_bits(tmp_path):
    inputs, x = applications.preprocessed_input("ResNet50", SHAPE)
    x = keras.layers.Conv2D(4, 3, strides=8, name="conv")(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    tfprune.export(
        model, tmp_path, formats=["tflite-int8"], representative_data=images(100, *SHAPE)
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v2", (), "unknown model 'mobilenet_v2': did you mean 'MobileNetV2'?"),
        ("resnet-20", (), "unknown model 'resnet-20': did you mean 'resnet20'?"),
        (
            "zzz",
            (),
            f"unknown model 'zzz': choose one of {', '.join(zoo.NAMES)}, "
            "or a classifier of keras.applications such as MobileNetV2 or ResNet50; or give a "
            ".keras file, or FILE.py:FUNCTION",
        ),
        ("vgg", {"widht": 3}, "unknown option 'widht' of vgg: did you mean 'width'?"),
        ("vgg", ("zzz",), "unknown option 'zzz' of vgg: choose one of blocks, width, classes"),
        (
            "MobileNetV2",
            {"alhpa": 1},
            "unknown option 'alhpa' of MobileNetV2: did you mean 'alpha'?",
        ),
        (
            "VGG16",
            ["alpha"],
            "unknown option 'alpha' of VGG16: choose one of dropout, trainable, weights, classes",
        ),
        (
            "MobileNet",
            {"alpha": 1, "pooling": "max"},
            "unknown option 'pooling' of MobileNet: "
            "choose one of alpha, depth_multiplier, dropout, trainable, weights, classes",
        ),
    ],
)
def test_an_unknown_name_or_option_is_one_line(name, options, message):
    with pytest.raises(UsageError) as error:
        zoo.check(name, options)
    assert str(error.value) == message
    if isinstance(options, dict) or not options:
        with pytest.raises(UsageError, match=re.escape(message)):
            zoo.build(name, SHAPE, 3, **dict(options))


def test_what_build_takes_passes():
    for name in zoo.NAMES + zoo.APPLICATIONS:
        zoo.check(name)
        zoo.check(name, options_of(name))


def test_checking_imports_neither_keras_nor_tensorflow():
    code = """
import sys
from tfprune import UsageError, zoo
zoo.check("MobileNetV2", {"alpha": 0.35, "weights": "imagenet"})
zoo.check("vgg", {"width": 4})
for name, options in (("VGG17", ()), ("VGG16", ("alpha",))):
    try:
        zoo.check(name, options)
    except UsageError:
        continue
    raise AssertionError(name)
assert not {"keras", "tensorflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "Xception",
            {"input_shape": (70, 80, 3)},
            "Xception takes images of 71x71 and larger, not 70x80: "
            "make them larger (image_size), or choose another model",
        ),
        (
            "MobileNetV2",
            {"input_shape": (32, 32, 1), "weights": "imagenet"},
            'weights = "imagenet" of MobileNetV2 take 3 channels, not 1: '
            'give colour images, or options weights = "random"',
        ),
        (
            "MobileNetV2",
            {"weights": "imagenett"},
            "weights of MobileNetV2 are 'imagenett', which is not a file: "
            'give "imagenet", "random" or the path of a file',
        ),
        (
            "MobileNetV2",
            {"weights": None},
            "weights of MobileNetV2 are 'None', which is not a file: "
            'give "imagenet", "random" or the path of a file',
        ),
        (
            "MobileNetV2",
            {"weights": "imagenet", "alpha": 0.4},
            "MobileNetV2 cannot be built: If imagenet weights are being loaded, alpha must be one "
            "of `0.35`, `0.50`, `0.75`, `1.0`, `1.3` or `1.4` only; Received `alpha=0.4`",
        ),
        ("MobileNetV2", {"dropout": 1}, "dropout is 1 and must be a number from 0 to below 1"),
        ("VGG16", {"dropout": "a"}, "dropout is 'a' and must be a number from 0 to below 1"),
        ("MobileNetV2", {"alpha": 0}, "alpha is 0 and must be a number above 0"),
        ("MobileNetV2", {"alpha": True}, "alpha is True and must be a number above 0"),
        (
            "MobileNet",
            {"depth_multiplier": 1.5},
            "depth_multiplier is 1.5 and must be a whole number of 1 or more",
        ),
        (
            "MobileNetV3Small",
            {"minimalistic": 1},
            "minimalistic is 1 and must be true or false",
        ),
        ("VGG16", {"classes": 0}, "classes is 0 and must be a whole number of 1 or more"),
        ("VGG16", {"seed": -1}, "seed=-1 must be 0 or more"),
        (
            "VGG16",
            {"input_shape": (32, 32)},
            "input_shape=(32, 32) must be (height, width, channels)",
        ),
    ],
)
def test_an_impossible_model_is_one_line(name, changes, message):
    options = {"input_shape": SHAPE, "classes": 3, "weights": "random", **changes}
    before = random.getstate()
    with pytest.raises(UsageError) as error:
        zoo.build(name, **options)
    assert str(error.value) == message
    assert random.getstate() == before


def test_a_file_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "half.weights.h5"
    keras_net("MobileNet", alpha=0.5).save_weights(path)
    message = f"weights in {path} do not fit MobileNet without its top (A total of "
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        zoo.build("MobileNet", SHAPE, 3, weights=path, alpha=0.25)
    assert str(error.value).endswith("): give a file of the same net and options")
    assert "\n" not in str(error.value)


def test_weights_that_a_file_lacks_are_missed(tmp_path, monkeypatch):
    # Keras can pass over what it does not find.
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_: None)
    (tmp_path / "empty.weights.h5").touch()
    with pytest.raises(UsageError, match=r"\(no conv1/kernel in it\): give a file of the same net"):
        zoo.build("MobileNet", SHAPE, 3, weights=tmp_path / "empty.weights.h5", alpha=0.25)


def test_without_a_network_an_error_says_what_to_do(monkeypatch, tmp_path, capsys):
    def unreachable(*_):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    with pytest.raises(TfpruneError) as error:
        small(weights="imagenet")
    assert not isinstance(error.value, UsageError)
    assert str(error.value) == (
        "ImageNet weights of MobileNetV2 cannot be fetched (URL fetch failure on "
        f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{file}: "
        "None -- Name or service not known): "
        'go online once, or give options weights = "random" or a file'
    )
    # stdout is for results.
    assert capsys.readouterr().out == ""


def test_a_damaged_download_is_no_mistake_of_the_caller(monkeypatch):
    def damaged(*_, **__):
        raise ValueError("Incomplete or corrupted file detected. The md5 file hash differs.")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", damaged)
    with pytest.raises(TfpruneError, match=r"cannot be fetched \(Incomplete or") as error:
        zoo.build("MobileNet", SHAPE, 3, alpha=0.25)
    assert not isinstance(error.value, UsageError)
