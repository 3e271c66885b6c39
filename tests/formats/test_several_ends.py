"""Models with several inputs and outputs, of any structure and rank, in every format."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from tests.tables import slow
from tfprune.artifacts import export
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import Feeds, load
from tfprune.formats.c_array import read, write_c_array
from tfprune.formats.runtime import random_feeds
from tfprune.formats.sandbox import Sandbox, run_file
from tfprune.formats.signature import id_inputs
from tfprune.measure import latency
from tfprune.measure.first_run import first_run

# Neither is in the order of the alphabet, which converters like.
INPUTS, OUTPUTS = ["signal", "ids", "age"], ["state", "class"]
WORDS = 7
FORMATS = ["keras", "savedmodel", "tflite", "tflite-int8", "onnx"]


def graph() -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
    """A signal, row numbers (a float, as Keras' Input has it by default) and a single number."""
    signal = keras.Input((12, 2), name="signal")
    ids = keras.Input((5,), name="ids")
    age = keras.Input((1,), dtype="int32", name="age")
    tower = keras.Sequential(
        [keras.Input((12, 2)), layers.Conv1D(4, 3, activation="relu"), layers.Flatten()]
    )
    words = layers.Flatten()(layers.Embedding(WORDS, 3)(ids))
    years = layers.Rescaling(1 / 50)(age)
    x = layers.Concatenate()([tower(signal), words, years])
    named = {"state": layers.Dense(2, name="state")(x)}
    named["class"] = layers.Dense(3, activation="softmax", name="class")(x)
    return [signal, ids, age], [named[name] for name in OUTPUTS]


def feeds(count: int) -> Feeds:
    rng = np.random.default_rng(0)
    return {
        "signal": rng.normal(size=(count, 12, 2)).astype(np.float32),
        "ids": rng.integers(0, WORDS, (count, 5)),
        "age": rng.integers(0, 99, (count, 1)),
    }


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Model(*graph())


@pytest.fixture(scope="module")
def paths(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    here = importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")
    wanted = [name for name in FORMATS if name != "onnx" or here]
    folder = tmp_path_factory.mktemp("several")
    return {each.format: each.path for each in export(model, folder, wanted, feeds(80))}


def structured(kind: str) -> keras.Model:
    inputs, outputs = graph()
    takes, gives = {
        "lists": (inputs, outputs),
        "dicts": (dict(zip(INPUTS, inputs, strict=True)), dict(zip(OUTPUTS, outputs, strict=True))),
        "nested": ({"a": inputs[:2], "b": inputs[2]}, [outputs[0], {"more": outputs[1]}]),
        "one": (inputs, outputs[0]),
    }[kind]
    return keras.Model(takes, gives)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("kind", ["lists", "dicts", "nested", "one"])
def test_a_model_is_fed_by_name_whatever_its_structure(kind: str) -> None:
    net, x = structured(kind), feeds(3)
    runtime = load(net)
    assert {each.name for each in runtime.inputs} == set(INPUTS)
    found = runtime.run(x)
    flat = keras.Model(net.inputs, net.outputs)
    expected = keras.tree.flatten(flat([x[each.name] for each in net.inputs]))
    for name, y in zip([each.name for each in runtime.outputs], expected, strict=True):
        np.testing.assert_allclose(found[name], y, rtol=1e-5, atol=1e-6)
    first = runtime.outputs[0].name
    one = runtime.one({name: part[1] for name, part in x.items()})
    np.testing.assert_allclose(one(), found[first][1:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_lists_its_ends_in_the_order_of_the_model(
    paths: dict[str, Path], model: keras.Model, form: str
) -> None:
    if form not in paths:
        pytest.skip("needs the extra onnx")
    runtime, x = load(paths[form]), feeds(6)
    assert [each.name for each in runtime.inputs] == INPUTS
    assert [each.name for each in runtime.outputs] == OUTPUTS
    assert [each.shape[1:] for each in runtime.inputs] == [(12, 2), (5,), (1,)]
    # Another order of the arrays is the same.
    found = runtime.run(dict(reversed(x.items())))
    expected = dict(zip(OUTPUTS, model([x[name] for name in INPUTS]), strict=True))
    slack = 0.1 if form == "tflite-int8" else 1e-5
    for name, y in expected.items():
        np.testing.assert_allclose(found[name], y, atol=slack * float(np.ptp(y)))
    call = runtime.one({name: part[2] for name, part in x.items()})
    scale, zero = runtime.outputs[0].scale or 1, runtime.outputs[0].zero_point or 0
    real = (call().astype(np.float32) - zero) * scale
    np.testing.assert_allclose(real, found["state"][2:3], atol=scale if zero else 1e-4)


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C array of a net with two inputs and two outputs."""
    keras.utils.set_random_seed(0)
    left, right = keras.Input((8, 2), name="left"), keras.Input((3,), name="by")
    x = layers.Conv1D(4, 3, activation="relu")(left)
    x = layers.Concatenate()([layers.Flatten()(x), right])
    net = keras.Model([left, right], [layers.Dense(2, name="z")(x), layers.Dense(3, name="a")(x)])
    rng = np.random.default_rng(0)
    data = {"left": rng.normal(size=(80, 8, 2)), "by": rng.normal(size=(80, 3))}
    (artifact,) = export(net, tmp_path_factory.mktemp("array"), ["c-array"], data)
    return artifact.path


def test_a_device_finds_inputs_by_their_places(array: Path) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    content = read(array)
    phone = Interpreter(model_content=content)
    phone.allocate_tensors()
    device = micro.Interpreter.from_bytes(content, arena_size=1 << 16)
    shapes = [tuple(details["shape"]) for details in phone.get_input_details()]
    assert shapes == [(1, 8, 2), (1, 3)]
    rng = np.random.default_rng(1)
    for place, details in enumerate(phone.get_input_details()):
        x = rng.integers(-128, 128, details["shape"]).astype(np.int8)
        phone.set_tensor(details["index"], x)
        device.set_input(x, place)
    phone.invoke()
    device.invoke()
    for place, details in enumerate(phone.get_output_details()):
        there = device.get_output(place).astype(int)
        assert there.shape == ((1, 2), (1, 3))[place]
        # The two round differently in the last place.
        assert np.abs(there - phone.get_tensor(details["index"])).max() <= 2


def test_the_header_numbers_them(array: Path) -> None:
    text = array.with_suffix(".h").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("// Input", "// Output"))]
    assert [line.split(":")[0] for line in lines] == [
        "// Input 0, left",
        "// Input 1, by",
        "// Output 0, z",
        "// Output 1, a",
    ]


def test_what_a_device_cannot_look_up_is_said(paths: dict[str, Path], tmp_path: Path) -> None:
    # Keras' Embedding counts from the end below zero, by a SELECT_V2 of INT32.
    with pytest.raises(TfpruneError, match="kernel SELECT_V2 does not take INT32"):
        write_c_array(paths["tflite-int8"].read_bytes(), tmp_path / "model.cc")


def test_several_are_timed(paths: dict[str, Path]) -> None:
    runtimes = {form: load(paths[form]) for form in ("tflite", "tflite-int8")}
    example = {name: x[0] for name, x in feeds(1).items()}
    table = latency(runtimes, example, rounds=3, warmup=1)
    assert table["runs"].tolist() == [3, 3]
    with pytest.raises(UsageError, match="takes signal, ids, age, and not signal, ids: give an ar"):
        latency(runtimes, {name: example[name] for name in INPUTS[:2]}, rounds=1)


@pytest.mark.parametrize("form", ["tflite", slow("keras")])
def test_a_file_runs_once_without_data_though_it_looks_up_rows(
    paths: dict[str, Path], form: str
) -> None:
    assert first_run(paths[form]).memory_bytes > 0


def test_random_rows_are_within_the_table(model: keras.Model, paths: dict[str, Path]) -> None:
    assert id_inputs(model) == {"ids": WORDS}
    inputs = load(model).inputs
    x = random_feeds(inputs, 64, ids=id_inputs(model))
    assert set(np.unique(x["ids"])) == set(range(WORDS))
    assert x["age"].max() > WORDS
    # Pixels 0 to 255 are no rows of this table: a file that does not tell is tried with zeros.
    outcome = run_file(Sandbox(), paths["tflite"], timeout=120)
    assert outcome.values["class"].shape == (2, 3)


def test_what_does_not_fit_is_one_line(model: keras.Model) -> None:
    runtime, x = load(model), feeds(4)
    for wrong, message in (
        ({**x, "age": x["age"][:3]}, "cannot run 4 of signal, 4 of ids, 3 of age: give equally"),
        ({**x, "ids": x["ids"][:, :4]}, "does not fit functional.*: ids takes"),
        ({"signal": x["signal"]}, "takes signal, ids, age, and not signal: give an array for"),
        (x["signal"], "and not one array: give an array for each of its inputs by its name"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            runtime.run(wrong)
        assert "\n" not in str(error.value)


def test_names_may_be_those_of_the_model() -> None:
    a, b = keras.Input((2,), name="my input"), keras.Input((2,), name="模型")
    runtime = load(keras.Model([a, b], layers.Subtract()([a, b])))
    ones, zeros = np.ones((1, 2)), np.zeros((1, 2))
    assert runtime.run({"模型": zeros, "my input": ones})["output_0"].tolist() == [[1, 1]]


def test_strings_are_refused() -> None:
    words = keras.Input((), dtype="string", name="words")
    table = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    net = keras.Model(words, layers.Dense(2)(table(words)))
    with pytest.raises(UsageError, match="takes string as image, and tfprune runs models of numb"):
        load(net)


def test_open_sizes_run_at_any_size(tmp_path: Path) -> None:
    x = keras.Input((None, None, 3))
    net = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)))
    images = np.random.default_rng(0).uniform(size=(3, 9, 7, 3)).astype(np.float32)
    (artifact,) = export(net, tmp_path, ["tflite"], images)
    runtime = load(artifact.path)
    np.testing.assert_allclose(runtime.predict(images), net(images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(runtime.one(images[0])(), net(images[:1]), rtol=1e-4, atol=1e-5)


def test_a_microcontrollers_file_has_the_sizes_that_are_given(tmp_path: Path) -> None:
    x = keras.Input((None, None, 3))
    net = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)))
    with pytest.raises(UsageError, match=r"any size \(None, None, 3\): .* or input_shape"):
        export(net, tmp_path, ["c-array-float"])
    (artifact,) = export(net, tmp_path, ["c-array-float"], input_shape=(9, 7, 3))
    assert load(artifact.path).input_shape == (9, 7, 3)
    assert net.input_shape == (None, None, None, 3)


@pytest.mark.slow
def test_two_inputs_may_make_one_output(tmp_path: Path, export_formats: list[str]) -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="by")
    net = keras.Model([left, right], layers.Dense(2)(layers.Concatenate()([left, right])))
    rng = np.random.default_rng(0)
    data = {"left": rng.normal(size=(80, 4)), "by": rng.normal(size=(80, 2))}
    chosen = ("savedmodel", "tflite", "tflite-int8", "onnx")
    artifacts = export(net, tmp_path, [name for name in chosen if name in export_formats], data)
    assert min(each.agreement for each in artifacts) >= 0.9
