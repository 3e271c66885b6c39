"""What can be loaded is, with the same outputs; what cannot is named in one line."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import tfprune
from tfprune import TfpruneError, UsageError, functions
from tfprune.model import loading

layers = keras.layers


def plain() -> keras.Model:
    return keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(3)])


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")


# Keras 2


def entry(kind: str, name: str, *inputs: Any, **config: Any) -> dict[str, Any]:
    """A layer as Keras 2 wrote it."""
    nodes = [[*call] if len(call) == 4 else [*call, {}] for call in inputs]
    options = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"class_name": kind, "config": options, "name": name, "inbound_nodes": [nodes]}


def first(name: str, shape: list[int | None]) -> dict[str, Any]:
    config = {"batch_input_shape": shape, "dtype": "float32", "sparse": False, "ragged": False}
    made = entry("InputLayer", name, **config)
    return {**made, "inbound_nodes": []}


def initializer(name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": {"dtype": "float32", **config}}


def old() -> tuple[dict[str, Any], keras.Model]:
    """A config of Keras 2, and the same model in Keras 3."""
    nested = {
        "name": "inner",
        "layers": [
            first("inner_input", [None, 6, 6, 2]),
            entry("Conv2D", "c", filters=2, kernel_size=[3, 3], padding="same", groups=1),
            entry("BatchNormalization", "bn", axis=[3], renorm=False),
        ],
    }
    call = entry("TFOpLambda", "plus", function="__operators__.add")
    call["inbound_nodes"] = [["inner", 2, 0, {"y": 3.0, "name": None}]]
    act = entry("TFOpLambda", "act", function="nn.relu6")
    act["inbound_nodes"] = [["plus", 0, 0, {"name": None}]]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "old",
            "layers": [
                first("image", [None, 6, 6, 2]),
                {
                    "class_name": "Sequential",
                    "config": nested,
                    "name": "inner",
                    # Call 0 is the graph of its own.
                    "inbound_nodes": [[["image", 0, 0, {}]], [["inner", 1, 0, {}]]],
                },
                call,
                act,
                entry("LeakyReLU", "leak", ["act", 0, 0], alpha=0.25),
                entry("RandomFlip", "flip", ["leak", 0, 0], rng_type="stateful", seed=None),
                entry(
                    "DepthwiseConv2D",
                    "deep/wise",
                    ["flip", 0, 0],
                    kernel_size=[3, 3],
                    groups=1,
                    depthwise_initializer=initializer("GlorotUniform", seed=None),
                    depthwise_regularizer={"class_name": "L2", "config": {"l2": 1e-4}},
                ),
                entry("ThresholdedReLU", "cut", ["deep/wise", 0, 0], theta=0.125),
                entry("Reshape", "rows", ["cut", 0, 0], target_shape=[4, 8]),
                entry("LSTM", "rnn", ["rows", 0, 0], units=3, time_major=False, implementation=2),
                entry("Dense", "head", ["rnn", 0, 0], units=3, activation="softmax"),
            ],
            "input_layers": [["image", 0, 0]],
            "output_layers": [["head", 0, 0]],
        },
    }
    image = keras.Input((6, 6, 2))
    inner = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(2, 3, padding="same"), layers.BatchNormalization()]
    )
    x = layers.Activation("relu6")(inner(inner(image)) + 3.0)
    x = layers.RandomFlip()(layers.LeakyReLU(0.25)(x))
    x = layers.ReLU(threshold=0.125)(layers.DepthwiseConv2D(3)(x))
    x = layers.LSTM(3)(layers.Reshape((4, 8))(x))
    return config, keras.Model(image, layers.Dense(3, activation="softmax")(x))


def written(path: Path, config: dict[str, Any], model: keras.Model, version: str) -> Path:
    """A file of Keras 2 with the weights of a model."""
    if path.suffix == ".h5":
        model.save(path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
            file.attrs["keras_version"] = version
        return path
    model.save(whole := path.with_name("whole.keras"))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", json.dumps(config))
        target.writestr("metadata.json", json.dumps({"keras_version": version}))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    whole.unlink()
    return path


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.reliability("models of Keras 2", "right")
@pytest.mark.parametrize("name", ["old.h5", "old.keras"])
def test_a_model_of_keras_2_computes_the_same(tmp_path, name):
    config, twin = old()
    for weight in twin.weights:
        weight.assign(np.random.default_rng(1).uniform(0.1, 0.5, weight.shape))
    model = tfprune.load(written(tmp_path / name, config, twin, "2.4.0"))
    np.testing.assert_array_equal(model.predict(images(), verbose=0), twin(images()))
    assert not model.compiled
    # It is a model like any other from here on.
    slim = tfprune.slim(model, filters=1.0)
    np.testing.assert_array_equal(slim.predict(images(), verbose=0), twin(images()))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 2}, r"layer 'd' is Keras 2's DepthwiseConv2D\(groups=2\), which Keras 3 does"),
        ({"groups": True}, r"DepthwiseConv2D\(groups=True\)"),
        ({"nonsense": 0}, r"DepthwiseConv2D\(nonsense=0\)"),
        ({"nonsense": None}, None),
        ({"nonsense": False}, None),
        ({"groups": 1}, None),
    ],
)
def test_an_entry_goes_only_where_it_has_no_effect(tmp_path, change, message):
    twin = keras.Sequential([keras.Input((6, 6, 2)), layers.DepthwiseConv2D(3)])
    layer = entry("DepthwiseConv2D", "d", kernel_size=[3, 3], **change)
    # The first versions gave the first layer the shape, and the layers as a list.
    layer["config"]["batch_input_shape"] = [None, 6, 6, 2]
    path = written(tmp_path / "m.h5", {"class_name": "Sequential", "config": [layer]}, twin, "2.2")
    if message is None:
        model = tfprune.load(path)
        np.testing.assert_array_equal(model(images()), twin(images()))
        return
    with pytest.raises(UsageError, match=message):
        tfprune.load(path)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_the_metrics_of_keras_2_are_computed(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", "mse"])
    model.save(path := tmp_path / "old.h5")
    # Keras 2 wrote a metric as a wrapper with the name of its function.
    names = {"accuracy": "categorical_accuracy", "mse": "mean_squared_error"}
    wrapped = [
        {"class_name": "MeanMetricWrapper", "config": {"name": name, "fn": function}}
        for name, function in names.items()
    ]
    with h5py.File(path, "r+") as file:
        said = json.loads(file.attrs["training_config"])
        file.attrs["training_config"] = json.dumps({**said, "metrics": [wrapped]})
    x, y = np.random.default_rng(0).random((8, 4)), np.eye(3)[np.arange(8) % 3]
    found = tfprune.load(path).evaluate(x, y, return_dict=True, verbose=0)
    predicted = model.predict(x, verbose=0)
    assert found["accuracy"] == pytest.approx((predicted.argmax(1) == y.argmax(1)).mean())
    assert found["mean_squared_error"] == pytest.approx(((predicted - y) ** 2).mean(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_legacy_file_of_keras_3_loads(tmp_path):
    model = plain()
    model.save(tmp_path / "m.h5")
    # The content of a file decides: HDF5 may have another suffix.
    (tmp_path / "m.keras").write_bytes((tmp_path / "m.h5").read_bytes())
    for name in ("m.h5", "m.keras"):
        np.testing.assert_array_equal(tfprune.load(tmp_path / name)(images()), model(images()))


@pytest.mark.parametrize("name", ["模型 a.keras", 'it\'s "q".keras', "-x.keras", b"bad\xff.keras"])
def test_a_file_may_have_any_name(tmp_path, name):
    model = plain()
    model.save(tmp_path / "m.keras")
    path = tmp_path / os.fsdecode(name)
    (tmp_path / "m.keras").rename(path)
    np.testing.assert_array_equal(tfprune.load(path)(images()), model(images()))


# What is refused


def zipped(path: Path, **members: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "."), content)


def torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", "")


def saved_model(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").touch()


KINDS: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "none.keras": (lambda path: None, TfpruneError, "does not exist"),
    "empty.keras": (Path.touch, TfpruneError, "is empty: save or copy"),
    "folder": (Path.mkdir, UsageError, "is a directory"),
    "saved": (saved_model, UsageError, r"is a SavedModel.*tf_keras.models.load_model\("),
    "noise.keras": (lambda p: p.write_bytes(b"\1\2\3\4"), UsageError, "is not a Keras model"),
    "lfs.keras": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
        UsageError,
        "git lfs pull",
    ),
    "page.h5": (lambda p: p.write_text("<!DOCTYPE html>"), UsageError, "is a web page"),
    "config.json": (lambda p: p.write_text("{}"), UsageError, "is a JSON text"),
    "a.tflite": (lambda p: p.write_bytes(b"\x1c\0\0\0TFL3"), UsageError, "is a TFLite file"),
    "a.onnx": (lambda p: p.write_bytes(b"\x08\x07"), UsageError, "is an ONNX file"),
    "a.pb": (lambda p: p.write_bytes(b"\x0a"), UsageError, "is a graph of TensorFlow"),
    "a.pt": (torch, UsageError, "is a file of PyTorch"),
    "old.pth": (lambda p: p.write_bytes(b"\x80\x02}"), UsageError, "is a file of PyTorch"),
    "a.npz": (lambda p: np.savez(p, x=1), UsageError, "holds arrays"),
    "a.zip": (lambda p: zipped(p, a_txt=""), UsageError, "no config.json in it"),
    "a.tar.gz": (lambda p: p.write_bytes(b"\x1f\x8b\x08"), UsageError, "is a packed archive"),
    "a.py": (lambda p: p.write_text("x = 1"), UsageError, "is not a file that Keras writes"),
    "json.keras": (
        lambda p: zipped(p, config_json="[", metadata_json="{}"),
        TfpruneError,
        "cut short or damaged",
    ),
    "list.keras": (
        lambda p: zipped(p, config_json="[]", metadata_json="{}"),
        TfpruneError,
        "is not a table",
    ),
    "shape.keras": (
        lambda p: zipped(
            p,
            config_json='{"class_name": "Functional", "config": {"layers": 3}}',
            metadata_json='{"keras_version": "2.13"}',
        ),
        TfpruneError,
        "cut short or damaged",
    ),
    "half.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n12"), TfpruneError, "cut short or"),
    "half.keras": (lambda p: p.write_bytes(b"PK\3\4"), TfpruneError, "cut short"),
    "w.weights.h5": (lambda p: plain().save_weights(p), UsageError, "holds the weights of a model"),
    "a.h5": (lambda p: h5py.File(p, "w").close(), UsageError, "holds no Keras model"),
}


@pytest.mark.reliability("files that hold no Keras model, or a damaged one", "refused")
@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_a_keras_model_is_named(tmp_path, name):
    make, kind, message = KINDS[name]
    make(tmp_path / name)
    with pytest.raises(kind, match=message) as error:
        tfprune.load(tmp_path / name)
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert isinstance(error.value, UsageError) == (kind is UsageError)


def test_code_in_a_file_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Lambda(lambda x: x * 2, name="mine")])
    model.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="layer 'mine' is a Lambda, whose Python code") as error:
        tfprune.load(tmp_path / "m.keras")
    assert "\n" not in str(error.value)


def test_an_error_says_how_to_remove_wrappers_of_tfmot(tmp_path):
    layer = entry("PruneLowMagnitude", "p", layer={"class_name": "Dense", "config": {"units": 1}})
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
    path = written(tmp_path / "m.keras", config, plain(), "2.15.0")
    with pytest.raises(UsageError, match=r"'PruneLowMagnitude' for layer 'p': .*strip_pruning"):
        tfprune.load(path)


# Custom classes

CLASSES = """
import keras

class Bare(keras.layers.Layer):
    def call(self, x):
        return x * 3

@keras.saving.register_keras_serializable("mine")
class Registered(keras.layers.Layer):
    def call(self, x):
        return x * 5

@keras.saving.register_keras_serializable("mine")
def cubed(x):
    return x * x * x
"""


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """A file of a model that needs three objects of a module that is not imported."""
    module = tmp_path / "layers_of_mine.py"
    module.write_text(CLASSES)
    known = dict(keras.saving.get_custom_objects())
    loading.import_layers(str(module))
    objects = keras.saving.get_custom_objects()
    bare, registered = objects["Bare"], objects["mine>Registered"]
    inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(registered()(bare()(inputs)))
    keras.Model(inputs, layers.Dense(3, activation=objects["mine>cubed"])(x)).save(
        tmp_path / "m.keras"
    )

    def forget() -> None:
        objects.clear()
        objects.update(known)
        path = functions.imported_files().pop("layers_of_mine", None)
        if path:
            del sys.modules["layers_of_mine"]

    forget()
    yield tmp_path / "m.keras", module
    forget()


def test_a_missing_class_is_named(custom):
    path, _ = custom
    with pytest.raises(UsageError) as error:
        tfprune.load(path)
    assert str(error.value) == (
        f"{path} needs 'Bare' for layer 'bare', which no imported module "
        "defines: give the Python file or the module that defines it, --import layers_of_mine"
    )


def test_a_file_brings_what_it_registers_and_what_it_does_not(custom):
    path, module = custom
    model = tfprune.load(path, imports=[str(module)])
    assert [type(layer).__name__ for layer in model.layers[1:3]] == ["Bare", "Registered"]
    assert functions.importable("layers_of_mine") == str(module)
    # Twice is once.
    assert type(tfprune.load(path, imports=[str(module)]).layers[1]) is type(model.layers[1])


def test_a_module_may_hold_instances(tmp_path):
    """A metric of one's own may be an instance, which has no name of its own."""
    path = tmp_path / "module_of_instances.py"
    path.write_text("import keras\nclass Far(keras.metrics.Mean):\n    pass\nfar = Far('far')\n")
    loading.import_layers(str(path))
    assert "Far" in keras.saving.get_custom_objects()
    assert "far" not in keras.saving.get_custom_objects()
    del keras.saving.get_custom_objects()["Far"]


def test_the_environment_lists_imports_for_every_process(custom, monkeypatch):
    path, module = custom
    monkeypatch.setenv(loading.IMPORTS, str(module))
    assert tfprune.load(path).output_shape == (None, 3)


def test_an_export_is_checked_by_a_python_that_imports_the_same_file(custom, tmp_path):
    path, module = custom
    model = tfprune.load(path, imports=[str(module)])
    (artifact,) = tfprune.export(model, tmp_path / "out", ["keras"])
    assert artifact.agreement == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def (:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit"),
        (None, "is not a file"),
    ],
)
def test_what_cannot_be_imported_is_reported(tmp_path, content, message):
    module = tmp_path / "broken_layers.py"
    if content is not None:
        module.write_text(content)
    with pytest.raises(
        UsageError, match=f"broken_layers.py cannot be imported .*{message}"
    ) as error:
        loading.import_layers(str(module))
    assert "\n" not in str(error.value)
    assert "broken_layers" not in sys.modules


def test_a_file_does_not_take_the_name_of_another_module(tmp_path):
    (tmp_path / "json.py").write_text("")
    with pytest.raises(UsageError, match="there is another module called json: rename the file"):
        loading.import_layers(str(tmp_path / "json.py"))


# Functions and nets

MODELS = """
import keras

SHARED = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def build(input_shape=(6, 6, 2), classes=3, width=4):
    x = inputs = keras.Input(input_shape)
    x = Twice()(keras.layers.Conv2D(width, 3)(x))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))

def compiled():
    model = build()
    model.compile("adam", "mse", metrics=["mae"])
    return model

def unbuilt():
    return keras.Sequential([keras.layers.Dense(2)])

def opened():
    return keras.Sequential([keras.Input((None, 2)), keras.layers.GlobalMaxPooling1D()])

def shared():
    return SHARED

def nothing():
    build()

def a_layer():
    return Twice()
"""


@pytest.fixture
def written_model(tmp_path):
    """Names of functions in a file that is forgotten afterwards."""
    (tmp_path / "models_of_mine.py").write_text(MODELS)
    known = dict(keras.saving.get_custom_objects())
    yield lambda function: f"{tmp_path}/models_of_mine.py:{function}"
    objects = keras.saving.get_custom_objects()
    objects.clear()
    objects.update(known)
    functions.imported_files().pop("models_of_mine", None)
    sys.modules.pop("models_of_mine", None)


def test_a_function_gets_its_options_and_what_data_tell(written_model):
    told = {"input_shape": (8, 8, 1), "classes": 5, "mean": [0.5], "seed": 1}
    model = tfprune.load(written_model("build"), options={"width": 2}, defaults=told)
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 5))
    assert model.layers[1].filters == 2
    assert tfprune.load(written_model("build")).input_shape == (None, 6, 6, 2)
    assert tfprune.load(written_model("compiled")).compiled


def test_a_function_gives_the_same_model_in_any_process(written_model):
    first = tfprune.load(written_model("build"))
    keras.layers.Conv2D(1, 1)  # Keras counts it
    again, other = (
        tfprune.load(written_model("build"), defaults={"seed": seed}) for seed in (0, 1)
    )
    assert [layer.name for layer in first.layers] == [layer.name for layer in again.layers]
    assert first.layers[1].name == "conv2d"
    np.testing.assert_array_equal(first(images()), again(images()))
    assert not np.array_equal(first(images()), other(images()))


def test_a_function_that_asks_for_no_shape_gets_it_where_the_model_is_open(written_model):
    assert tfprune.load(written_model("unbuilt"), input_shape=(4,)).input_shape == (None, 4)
    assert tfprune.load(written_model("opened"), input_shape=(9, 2)).input_shape == (None, 9, 2)
    # Data alone do not close what the function leaves open.
    told = {"input_shape": (9, 2)}
    assert tfprune.load(written_model("opened"), defaults=told).input_shape == (None, None, 2)


def test_the_layers_of_the_file_are_found_where_the_model_is_exported(written_model, tmp_path):
    model = tfprune.load(written_model("build"))
    (artifact,) = tfprune.export(model, tmp_path / "out", ["keras"])
    assert artifact.agreement == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "nothing returns nothing: let it return a Keras model"),
        ("a_layer", "a_layer returns a models_of_mine.Twice: let it return a Keras model"),
    ],
)
def test_a_function_that_returns_no_model_is_one_line(written_model, function, message):
    with pytest.raises(UsageError, match=message):
        tfprune.load(written_model(function))


def test_a_model_is_not_returned_twice(written_model):
    tfprune.load(written_model("shared"))
    with pytest.raises(UsageError, match="returns the same model again, which may have been tra"):
        tfprune.load(written_model("shared"))


def test_a_missing_file_of_a_function_is_one_line(tmp_path):
    with pytest.raises(TfpruneError, match=r"none\.py does not exist"):
        tfprune.load(tmp_path / "none.py:build")


def test_a_net_is_built_by_its_name():
    shape, options = (32, 32, 3), {"classes": 4, "weights": "random", "alpha": 0.35}
    model = tfprune.load("mobilenetv2", input_shape=shape, options=options)
    assert (model.name, model.output_shape) == ("MobileNetV2", (None, 4))
    told = {"input_shape": shape, "classes": 9, "seed": 3}
    assert tfprune.load("VGG", defaults=told).output_shape == (None, 9)
    assert tfprune.load("vgg", defaults=told, options={"classes": 2}).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "vgg needs input_shape: give data, or the shape of an image, --input-shape 32x32x3"),
        ({"input_shape": (8, 8, 1)}, "vgg needs classes: give data, or the number of logits"),
        ({"input_shape": {"a": (8,), "b": (8,)}, "classes": 2}, "vgg has one input"),
        ({"input_shape": (8, 8), "classes": 2}, r"input_shape=\(8, 8\) must be \(height, width"),
    ],
)
def test_a_net_without_a_shape_or_classes_is_one_line(told, message):
    with pytest.raises(UsageError, match=message):
        tfprune.load("vgg", defaults=told)


@pytest.mark.slow
def test_only_the_head_of_a_pretrained_net_trains():
    options = {"classes": 4, "weights": "random", "alpha": 0.35, "trainable": "head"}
    model = tfprune.load("MobileNetV2", input_shape=(32, 32, 3), options=options)
    assert [weight.path for weight in model.trainable_weights] == ["logits/kernel", "logits/bias"]
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(np.ones((4, 32, 32, 3)), np.ones((4, 4)), verbose=0)
    # BatchNorm's statistics stay too.
    moved = [not np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)]
    assert moved[-1]
    assert not any(moved[:-2])


# What a model was compiled with


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_file_brings_its_loss_and_metrics(tmp_path, name):
    model = plain()
    model.compile(keras.optimizers.SGD(0.25), keras.losses.MeanAbsoluteError(), metrics=["mse"])
    model.save(tmp_path / name)
    loaded = tfprune.load(tmp_path / name)
    x, y = images(), np.ones((4, 3))
    assert loaded.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    assert float(loaded.optimizer.learning_rate) == 0.25


def test_a_loss_that_is_not_known_is_said(tmp_path):
    def mine(y, p):
        return keras.ops.mean(y - p, axis=-1)

    model = plain()
    model.compile("sgd", mine)
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match=r"m\.keras: its loss and metrics are left out") as said:
        assert not tfprune.load(tmp_path / "m.keras").compiled
    assert "\n" not in str(said[0].message)
