"""Layers of an int8 file keep another precision, and recipes of ai-edge-quantizer make files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import tfprune
from tests.filters.harness import randomised
from tfprune.artifacts import verify, write_manifest
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import load
from tfprune.formats.recipes import check_keep, operators_of, read_recipe
from tfprune.formats.source import Source, finished
from tfprune.formats.tflite_convert import converted
from tfprune.vocabulary import RECIPES

# Untrained nets have no classes.
pytestmark = pytest.mark.filterwarnings("ignore:export")
TYPES = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}


def net() -> keras.Model:
    """Names that the export counts behind, a nested model, and an operator without a name."""
    inner_in = keras.Input((8, 8, 8))
    inner = keras.Model(inner_in, layers.Conv2D(8, 1, name="conv")(inner_in), name="inner")
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = short = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="conv_1")(x)
    x = layers.ReLU(6.0, name="relu_1")(x)
    x = layers.Add(name="add")([inner(x), short])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    outputs = layers.Dense(5, activation="softmax", name="logits")(x)
    return randomised(keras.Model(inputs, outputs, name="net"))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return net()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 3)).astype(np.float32)


def computed_in(path: Path) -> dict[str, str]:
    """The type of the first output of each operator, by the operator's code and its place."""
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    found: dict[str, str] = {}
    for operator in graph.subgraphs[0].operators:
        code = names[graph.operatorCodes[operator.opcodeIndex].builtinCode]
        if code not in ("QUANTIZE", "DEQUANTIZE"):
            tensor = graph.subgraphs[0].tensors[operator.outputs[0]]
            found[f"{code} {len(found)}"] = TYPES[tensor.type]
    return found


def export(model: keras.Model, folder: Path, images: np.ndarray, *formats: str, **given: Any):
    return tfprune.export(model, folder, formats, images, **given)


def test_each_layer_is_known_by_its_operators(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    content = converted(Source(finished(model), "net", tmp_path, images), "float32")
    found = operators_of(content, model)
    assert list(found) == [
        *("relu", "bn", "conv", "relu_1", "conv_1", "inner/conv", "add", "mean", "logits")
    ]
    # What is fused is one operator, and the softmax without a name is the output's.
    assert found["relu"] == found["bn"] == found["conv"] != found["conv_1"] == found["relu_1"]
    assert [len(names) for names in found.values()] == [1] * 8 + [2]
    assert sorted({name for names in found.values() for name in names}) == sorted(
        node["name"] for node in _operators(content)
    )


def _operators(content: bytes) -> list[dict[str, str]]:
    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    return [
        {"name": graph.tensors[operator.outputs[0]].name.decode()} for operator in graph.operators
    ]


@pytest.mark.slow
def test_layers_that_are_kept_compute_in_their_precision_and_no_other_does(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    keep = {"conv_1": "float32", "inner": "int16"}
    plain, kept = (
        export(model, tmp_path / name, images, "tflite-int8", keep=given)[0]
        for name, given in {"plain": None, "kept": keep}.items()
    )
    assert set(computed_in(plain.path).values()) == {"INT8"}
    types = computed_in(kept.path)
    assert types == {
        "CONV_2D 0": "INT8",
        "DEPTHWISE_CONV_2D 1": "FLOAT32",
        "CONV_2D 2": "INT16",
        "ADD 3": "INT8",
        "MEAN 4": "INT8",
        "FULLY_CONNECTED 5": "INT8",
        "SOFTMAX 6": "INT8",
    }
    runtime = load(kept.path)
    assert runtime.format == "tflite-int8"
    assert runtime.inputs[0].dtype == "int8"
    assert kept.agreement > 0.95


@pytest.mark.slow
def test_of_layers_that_are_one_operator_the_pattern_that_comes_first_counts(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    keep = {"relu": "float32", "*": "int16"}
    types = computed_in(export(model, tmp_path, images, "tflite-int8", keep=keep)[0].path)
    # Its convolution and BatchNorm are named by the glob.
    assert types.pop("CONV_2D 0") == "FLOAT32"
    assert set(types.values()) == {"INT16"}


@pytest.mark.slow
def test_a_layer_that_int8_ruins_is_saved_by_its_precision(
    images: np.ndarray, tmp_path: Path
) -> None:
    """One channel of 200 times the others leaves them no values in int8."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="wild")(inputs)
    x = layers.Conv2D(4, 1, name="tame")(x)
    model = randomised(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    kernel, bias = model.get_layer("wild").get_weights()
    model.get_layer("wild").set_weights([kernel * np.r_[200.0, np.ones(7)], bias])
    kernel, bias = model.get_layer("tame").get_weights()
    scale = np.r_[0.0, np.ones(7)].reshape(1, 1, 8, 1)
    model.get_layer("tame").set_weights([kernel * scale, bias])
    with pytest.raises(TfpruneError, match="does not agree with the model"):
        export(model, tmp_path, images, "tflite-int8")
    for precision in ("float32", "int16"):
        keep = dict.fromkeys(("wild", "tame"), precision)
        (file,) = export(model, tmp_path / precision, images, "tflite-int8", keep=keep)
        assert file.agreement > 0.9


@pytest.mark.slow
def test_ends_are_floats_where_they_are_asked_for(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    (file, array) = export(
        model, tmp_path, images, "tflite-int8", "c-array", keep={"mean": "float32"}, io="float"
    )
    runtime = load(file.path)
    assert (runtime.inputs[0].dtype, runtime.outputs[0].dtype) == ("float32", "float32")
    np.testing.assert_array_equal(runtime.predict(images[:4]), load(array.path).predict(images[:4]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic_wi4_afp32", "static_wi8_ai16"])
def test_a_recipe_makes_a_file(
    model: keras.Model, images: np.ndarray, tmp_path: Path, name: str
) -> None:
    (file,) = export(model, tmp_path, images, "tflite-recipe", recipe=name)
    assert file.path.name == "model.recipe.tflite"
    assert file.agreement > 0.8
    stored = {TYPES[each.type] for each in _tensors(file.path.read_bytes())}
    assert ("INT4" if "wi4" in name else "INT16") in stored
    write_manifest(tmp_path, [file])
    assert [each.said for each in verify(tmp_path) if not each.passed] == []


def _tensors(content: bytes) -> list[Any]:
    return schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].tensors


@pytest.mark.slow
def test_a_recipe_in_a_file_is_that_of_its_entries(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    entries = read_recipe("weight_only_wi4_afp32")
    for entry in entries:
        entry["regex"] = "logits"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(entries))
    by_path, by_entries = (
        export(model, tmp_path / name, None, "tflite-recipe", recipe=recipe)[0]
        for name, recipe in {"a": path, "b": entries}.items()
    )
    assert by_path.sha256 == by_entries.sha256
    types = [TYPES[each.type] for each in _tensors(by_path.path.read_bytes())]
    assert types.count("INT4") == 1


def test_all_recipes_of_the_vocabulary_are_there() -> None:
    for name in RECIPES:
        assert read_recipe(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": {"con": "float32"}}, "keep: model 'net' has no layer 'con': did you mean 'conv'"),
        ({"keep": {"conv": "float"}}, "keep: 'float' is not a precision: did you mean 'float32'"),
        ({"keep": {"conv": "int16"}, "formats": ["tflite"]}, "keep has no meaning for tflite"),
        (
            {"keep": {"conv": "int16"}, "formats": ["c-array", "tflite-lut"]},
            "keep cannot go with tflite-lut",
        ),
        ({"formats": ["tflite-recipe"]}, "format 'tflite-recipe' needs a recipe: give a JSON"),
        ({"recipe": "static_wi8_ai8"}, "recipe has no meaning without format 'tflite-recipe'"),
        (
            {"recipe": "static_wi8", "formats": ["tflite-recipe"]},
            "recipe 'static_wi8' is unknown: did you mean 'static_wi8_ai8'",
        ),
        (
            {"recipe": "static_wi8_ai8", "formats": ["tflite-recipe"]},
            "format 'tflite-recipe' needs representative_data",
        ),
        (
            {"recipe": [{"regex": ".*"}], "formats": ["tflite-recipe"]},
            "the recipe given is not one of ai-edge-quantizer",
        ),
    ],
)
def test_what_cannot_be_is_said_before_work(
    model: keras.Model, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    given = {"formats": ["tflite-int8"], **given}
    with pytest.raises(UsageError) as error:
        tfprune.export(model, tmp_path, **given)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[", "[1]", "{}", '[{"regex": ".*", "operation": "X"}]'])
def test_what_is_no_recipe_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    if content == "{}":
        assert read_recipe(path) == []
        return
    with pytest.raises(UsageError) as error:
        read_recipe(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_recipe_that_does_not_fit_the_net_is_one_line(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(TfpruneError, match=r"cannot write the file .*not divisible by block size"):
        export(model, tmp_path, images, "tflite-recipe", recipe="dynamic_wi4b32_afp32")


def test_without_the_quantizer_the_extra_is_named(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"keep needs ai_edge_quantizer: pip install 'tfprune\[q"):
        tfprune.export(model, tmp_path, ["tflite-int8"], keep={"conv": "int16"})


def test_the_first_pattern_counts(model: keras.Model) -> None:
    found = check_keep(model, {"conv": "int16", "conv*": "float32"})
    assert found == {"conv": "int16", "inner/conv": "int16", "conv_1": "float32"}


def test_quantization_aware_models_have_exclude_instead(tmp_path: Path) -> None:
    small = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="dense")])
    aware = tfprune.quantize_aware(small, np.zeros((8, 4), np.float32))
    with pytest.raises(UsageError, match=r"give its layers in exclude of tfprune\.quantize"):
        tfprune.export(aware, tmp_path, ["tflite-int8"], keep={"dense": "float32"})


@pytest.mark.slow
def test_a_file_of_several_examples_is_calibrated_in_its_batch(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    for batch, name in ((4, "four"), ("dynamic", "any")):
        (file,) = export(
            model, tmp_path / name, images, "tflite-int8", keep={"add": "float32"}, batch=batch
        )
        assert load(file.path).predict(images[:6]).shape == (6, 5)
        interpreter = Interpreter(str(file.path))
        assert interpreter.get_input_details()[0]["shape_signature"][0] == (
            batch if isinstance(batch, int) else -1
        )
