"""The int8 file computes what the quantization-aware model computes, with its ranges."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, note, settings
from hypothesis import strategies as st

import tfprune
from tests.filters.harness import randomised
from tests.filters.strategies import Graph, Step, built, described
from tests.quantize.nets import NETS, examples
from tests.tables import slow
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats.tflite_convert import convert, write_with_ranges
from tfprune.quantize import FakeQuantize, finished, quantize_aware

# TFLite's softmax, and its GELU, hard-swish and PReLU, are computed by other means.
STEPS = {"mobile": 1, "activations": 2, "slopes": 1}
FUZZ = int(os.environ.get("TFPRUNE_FUZZ_EXAMPLES", "0"))

QUICK = ("plain", "residual", "mobile")
QUICKEST = ("plain", "mobile")


def exported(aware: keras.Model, inputs: list[np.ndarray], folder: Path) -> Path:
    with warnings.catch_warnings():
        # No calibration images are asked for, and none are doubted.
        warnings.simplefilter("error", UserWarning)
        (artifact,) = tfprune.export(aware, folder, ["tflite-int8"], comparison_data=inputs)
    assert artifact.compared_on == "given"
    return artifact.path


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        *((name, "int8") if name in QUICKEST else slow(name, "int8") for name in NETS),
        slow("mobile", "int4"),
    ],
)
def test_it_gives_bit_for_bit_what_the_model_gives(name: str, weights: str, tmp_path: Path) -> None:
    model = NETS[name]()
    inputs = examples(model)
    aware = quantize_aware(model, inputs, weights=weights)
    path = exported(aware, inputs, tmp_path)

    runtime = tfprune.formats.load(path)
    assert runtime.format == "tflite-int8"
    found = runtime.run(dict(zip([x.name for x in runtime.inputs], inputs, strict=True)))
    wanted = keras.tree.flatten(aware(inputs if len(inputs) > 1 else inputs[0], training=False))
    for end, y in zip(runtime.outputs, wanted, strict=True):
        differences = np.rint(np.abs(found[end.name] - y) / end.scale)
        assert differences.max() <= STEPS.get(name, 0)

    interpreter = Interpreter(str(path))
    tensors = interpreter.get_tensor_details()
    assert not [each["name"] for each in tensors if each["dtype"] == np.float32]
    scales = [
        float(each["quantization_parameters"]["scales"][0])
        for each in tensors
        if each["dtype"] == np.int8 and len(each["quantization_parameters"]["scales"]) == 1
    ]
    for layer in aware.layers:
        if isinstance(layer, FakeQuantize):
            low, high = layer.file_range()
            assert (high - low) / 255 in scales, layer.name


# Steps of 65,534 in the range of an output: kernels with int16 activations round multipliers.
FEW = 10


@pytest.mark.parametrize("name", [name if name == "residual" else slow(name) for name in NETS])
def test_with_int16_activations_it_gives_the_same_within_a_few_steps(
    name: str, tmp_path: Path
) -> None:
    model = NETS[name]()
    inputs = examples(model)
    aware = quantize_aware(model, inputs, activations="int16")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int16x8"], comparison_data=inputs)
    runtime = tfprune.formats.load(artifact.path)
    assert runtime.format == "tflite-int16x8"
    found = runtime.run(dict(zip([x.name for x in runtime.inputs], inputs, strict=True)))
    wanted = keras.tree.flatten(aware(inputs if len(inputs) > 1 else inputs[0], training=False))
    for end, y in zip(runtime.outputs, wanted, strict=True):
        assert np.abs(found[end.name] - y).max() <= FEW * end.scale
    if name in QUICK:
        details = Interpreter(str(artifact.path)).get_tensor_details()
        assert not [each["name"] for each in details if each["dtype"] == np.float32]


def moved_first() -> keras.Model:
    """What is rounded at the convolution is moved before it."""
    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.ZeroPadding2D(1)(keras.layers.MaxPooling2D(3, padding="same")(image))
    return keras.Model(image, keras.layers.Conv2D(2, 3)(x))


def read_in_float() -> keras.Model:
    """The input goes to a layer without a rule."""
    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.LayerNormalization()(image)
    return keras.Model(image, keras.layers.Conv2D(2, 3)(x))


@pytest.mark.slow
@pytest.mark.parametrize("net", [moved_first, read_in_float])
@pytest.mark.parametrize("io", ["int8", "float"])
@pytest.mark.filterwarnings("ignore:.* stay.* float:UserWarning")
def test_inputs_of_int16_files_have_the_range_of_what_reads_them(
    net: Callable[[], keras.Model], io: str, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = net()
    (x,) = examples(model)
    aware = quantize_aware(model, x, activations="int16")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int16x8"], comparison_data=x, io=io)
    runtime = tfprune.formats.load(artifact.path)
    is_whole = io == "int8" and net is moved_first
    assert runtime.inputs[0].dtype == ("int16" if is_whole else "float32")
    (y,) = runtime.run({"image": x}).values()
    wanted = np.asarray(aware(x, training=False))
    assert np.abs(y - wanted).max() <= 1e-3 * np.ptp(wanted)


def test_sums_of_ranges_that_are_powers_of_two_have_int16_kernels(tmp_path: Path) -> None:
    image = keras.Input((4,), name="image")
    keras.utils.set_random_seed(0)
    sums = keras.layers.Rescaling(1.0, -0.5)(image)
    model = keras.Model(image, keras.layers.Dense(2)(sums))
    x = np.linspace(0, 1, 64, dtype="float32").reshape(16, 4)
    aware = quantize_aware(model, x, activations="int16")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int16x8"], comparison_data=x)
    (y,) = tfprune.formats.load(artifact.path).run({"image": x}).values()
    assert np.abs(y - np.asarray(aware(x, training=False))).max() <= 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* stay.* float:UserWarning")
def test_operators_with_several_outputs_stay_in_float(tmp_path: Path) -> None:
    steps = keras.Input((4, 3), name="image")
    x = keras.layers.LSTM(4, unroll=True)(steps)
    x, y = keras.ops.split(keras.ops.elu(keras.layers.Dense(4)(x)), 2, axis=-1)
    model = keras.Model(steps, keras.layers.Dense(2)(keras.layers.Add()([x, y])))
    (x,) = examples(model)
    aware = quantize_aware(model, x, activations="int16")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int16x8"], comparison_data=x)
    (y,) = tfprune.formats.load(artifact.path).run({"image": x}).values()
    wanted = np.asarray(aware(x, training=False))
    assert np.abs(y - wanted).max() <= 1e-3 * np.ptp(wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:quantize_aware. 1 of the layers stay in float:UserWarning")
def test_a_loop_is_refused_for_int16_too(tmp_path: Path) -> None:
    steps = keras.Input((6, 3))
    model = keras.Model(steps, keras.layers.Dense(2)(keras.layers.LSTM(4)(steps)))
    aware = quantize_aware(model, examples(model), activations="int16")
    with pytest.raises(TfpruneError, match="computes in a loop, and TFLite cannot calibrate one"):
        tfprune.export(aware, tmp_path, ["tflite-int16x8"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:export. the model gives one class:UserWarning")
def test_int8_formats_of_a_model_with_int16_activations_are_calibrated(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model, 256)
    aware = quantize_aware(model, x, activations="int16")
    with pytest.raises(UsageError, match="'tflite-int8' needs representative_data"):
        tfprune.export(aware, tmp_path, ["tflite-int8", "tflite-int16x8"], comparison_data=x)
    images = np.random.default_rng(2).normal(size=(64, 6, 6, 2)).astype("float32")
    small, large = tfprune.export(
        aware, tmp_path, ["tflite-int8", "tflite-int16x8"], x, comparison_data=images
    )
    assert small.agreement > 0.8
    assert large.agreement > 0.9999


@pytest.mark.slow
def test_zeros_and_ranges_of_a_saved_model_with_int16_activations_stay(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x, weights="int4", activations="int16", ranges="learnt")
    aware.compile(keras.optimizers.Adam(0.01), "mse")
    pruner = tfprune.PruneWeights(tfprune.polynomial_decay(0, 0.75, begin=0, end=4, frequency=1))
    aware.fit(x, np.ones((64, 3)), batch_size=8, callbacks=[pruner], verbose=0)
    aware.save(tmp_path / "aware.keras")
    again = tfprune.load(tmp_path / "aware.keras")
    (artifact,) = tfprune.export(again, tmp_path, ["tflite-int16x8"], comparison_data=x)
    (y,) = tfprune.formats.load(artifact.path).run({"image": x}).values()
    assert np.abs(y - aware(x, training=False)).max() < 1e-3 * np.ptp(y)
    living = {each.size: len(each.living) for each in tfprune.formats.load(artifact.path).weights()}
    for kernel in (weight for weight in aware.weights if weight.name == "kernel"):
        size = int(np.prod(kernel.shape))
        assert living[size] <= np.count_nonzero(kernel) < 0.26 * size


# What has rules; the others stay in float, where sums of floats may round differently.
RULED = (
    "batch_norm",
    "concatenate",
    "convolution",
    "dense",
    "depthwise",
    "grouped",
    "merge",
    "pooling",
    "residual",
    "separable",
    "squeeze_and_excite",
)
STEP = st.builds(Step, st.sampled_from(RULED), *[st.integers(0, 3), *[st.integers(0, 9)] * 2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:quantize_aware. .* stay in float:UserWarning")
@settings(max_examples=FUZZ or 3, derandomize=not FUZZ, deadline=None, print_blob=True)
@given(st.lists(STEP, min_size=2, max_size=6))
def test_of_any_graph_too(steps: list[Step]) -> None:
    model = randomised(built(Graph(tuple(steps))))
    inputs = examples(model, 32)
    note("\n".join(described(model)))
    (x,) = inputs
    aware = quantize_aware(model, x)
    with tempfile.TemporaryDirectory() as folder:
        write_with_ranges(aware, Path(folder, "aware"), 32)
        content = convert(Path(folder, "aware"), "int8", None, "float", 32)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (end,) = interpreter.get_input_details()
    interpreter.set_tensor(end["index"], x)
    interpreter.invoke()
    wanted = [np.asarray(y) for y in keras.tree.flatten(aware(x, training=False))]
    found = [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]
    found = sorted(found, key=lambda y: y.ndim)
    for mine, theirs in zip(sorted(wanted, key=lambda y: y.ndim), found, strict=True):
        step = np.ptp(mine) / 255
        assert np.abs(mine - theirs).max() <= 2.01 * step


@pytest.mark.slow
def test_zeros_of_a_trained_model_are_zeros_of_its_file(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x)
    aware.compile(keras.optimizers.Adam(0.01), "mse")
    pruner = tfprune.PruneWeights(tfprune.polynomial_decay(0, 0.75, begin=0, end=4, frequency=1))
    aware.fit(x, np.ones((64, 3)), batch_size=8, callbacks=[pruner], verbose=0)
    runtime = tfprune.formats.load(exported(aware, [x], tmp_path))
    living = {each.size: len(each.living) for each in runtime.weights()}
    for kernel in (weight for weight in aware.weights if weight.name == "kernel"):
        size = int(np.prod(kernel.shape))
        assert living[size] <= np.count_nonzero(kernel) < 0.26 * size


@pytest.mark.slow
def test_other_formats_are_those_of_the_finished_model(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x)
    artifacts = tfprune.export(aware, tmp_path, ["keras", "tflite", "c-array"], comparison_data=x)
    assert [each.format for each in artifacts] == ["keras", "tflite", "c-array"]
    wanted = finished(aware)(x, training=False)
    loaded = tfprune.load(artifacts[0].path)
    np.testing.assert_allclose(loaded(x, training=False), wanted, atol=1e-6)
    assert not any(type(layer).__module__.startswith("tfprune") for layer in loaded.layers)
    (y,) = tfprune.formats.load(artifacts[2].path).run({"image": x}).values()
    assert np.abs(y - aware(x, training=False)).max() < 0.05


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x)
    first = exported(aware, [x], tmp_path / "first").read_bytes()
    aware.save(tmp_path / "aware.keras")
    again = tfprune.load(tmp_path / "aware.keras")
    assert exported(again, [x], tmp_path / "second").read_bytes() == first
