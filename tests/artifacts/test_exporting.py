from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tests.artifacts.small import names, one_line, tiny
from tfprune.artifacts import Artifact, export
from tfprune.artifacts.examples import held_back
from tfprune.errors import UsageError
from tfprune.files import sha256
from tfprune.formats import FORMATS, load, open_file
from tfprune.formats.savedmodel import SavedModelRuntime
from tfprune.measure import agreement, gzip_bytes, raw_bytes


def test_the_public_name_is_the_function() -> None:
    assert tfprune.export is export


def test_every_format_has_its_file_and_nothing_else(
    exported: list[Artifact], formats: list[str]
) -> None:
    assert [artifact.format for artifact in exported] == formats
    suffixes = [
        suffix
        for form in (FORMATS[name] for name in formats)
        for suffix in (form.suffix, *form.companions)
    ]
    assert names(exported[0].path.parent) == sorted(f"model{suffix}" for suffix in suffixes)
    assert {"c-array", "tflite-sparse", "savedmodel-zst"} < set(formats)


def test_every_artifact_agrees_with_its_keras_model(
    exported: list[Artifact], model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    _, others = held_back({"any": images})
    assert others is not None
    expected = model(others["any"], training=False).numpy()
    for artifact in exported:
        outputs = open_file(artifact.path).run(others)
        found = agreement(*outputs.values(), expected)
        assert (artifact.agreement, artifact.largest_difference) == pytest.approx(
            (found.share, found.largest_difference), abs=1e-3
        )
        form = FORMATS[artifact.format]
        assert found.off <= (form.tolerance if form.exact else 0.15)
        assert found.share >= 0.9
        assert (artifact.compared, artifact.compared_on) == (10, "held back")


def test_runtimes_of_measure_say_the_same(paths: dict[str, Path], images: np.ndarray) -> None:
    for name in ("keras", "savedmodel", "tflite", "tflite-int8", "tflite-int16x8"):
        outputs = open_file(paths[name]).run({"any": images})
        np.testing.assert_allclose(load(paths[name]).predict(images), *outputs.values(), atol=1e-3)


def test_figures_are_those_of_the_file(exported: list[Artifact]) -> None:
    for artifact in exported:
        assert artifact.bytes_raw == raw_bytes(artifact.path)
        assert artifact.bytes_gzip == gzip_bytes(artifact.path)
        assert artifact.sha256 == sha256(artifact.path)


def test_a_keras_file_and_a_saved_model_hold_the_same_zeros(
    paths: dict[str, Path], model: keras.Model
) -> None:
    def zeros(weights: list[np.ndarray]) -> list[int]:
        return sorted(int((weight == 0).sum()) for weight in weights)

    expected = zeros([np.asarray(w) for w in model.weights if w.name == "kernel"])
    saved = keras.saving.load_model(paths["keras"])
    assert zeros([np.asarray(w) for w in saved.weights if w.name == "kernel"]) == expected
    served = SavedModelRuntime(paths["savedmodel"]).variables
    assert zeros([v.numpy() for v in served if "kernel" in v.name]) == expected


def test_a_card_says_what_the_file_says(exported: list[Artifact]) -> None:
    cards = {artifact.format: artifact for artifact in exported}
    for artifact in exported:
        ((x,), (y,)) = artifact.inputs, artifact.outputs
        assert (x.name, x.shape[1:], y.name, y.shape[1:]) == ("image", (8, 8, 3), "output_0", (5,))
        batch = 1 if artifact.format.startswith(("tflite", "c-array")) else None
        assert x.shape[0] == y.shape[0] == artifact.batch == batch
        assert artifact.model_sha256 == cards["keras"].sha256
        assert artifact.versions["keras"] == keras.__version__
        assert artifact.bytes_zstd
    for name, dtype in (("tflite-int8", "int8"), ("tflite-int16x8", "int16"), ("c-array", "int8")):
        interpreter = Interpreter(str(cards["tflite-int8" if dtype == "int8" else name].path))
        (x,), (y,) = cards[name].inputs, cards[name].outputs
        ends = (interpreter.get_input_details()[0], interpreter.get_output_details()[0])
        for card, details in zip((x, y), ends, strict=True):
            assert card.dtype == dtype
            assert (card.scale, card.zero_point) == pytest.approx(details["quantization"])


def test_labels_are_written_beside_the_artifacts(model: keras.Model, tmp_path: Path) -> None:
    (artifact,) = export(model, tmp_path, "keras", labels=["a", "b c", "d", "é", "f"])
    assert artifact.labels == ("a", "b c", "d", "é", "f")
    assert (tmp_path / "labels.txt").read_text("utf-8") == "a\nb c\nd\né\nf\n"
    for wrong, says in ((["a"], "1 labels"), (["a", "b", "c", "d", "\n"], "several lines")):
        with pytest.raises(UsageError) as error:
            export(model, tmp_path, "keras", labels=wrong)
        assert says in one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_with_a_batch_of_its_own_exports(
    tmp_path: Path, formats: list[str], dtype: str
) -> None:
    inputs = keras.Input(batch_shape=(3, 6, 6, 1), dtype=dtype)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    chosen = [name for name in formats if name not in ("tflite-sparse", "tflite-int16x8")]
    data = np.random.default_rng(0).integers(0, 256, (21, 6, 6, 1))
    for artifact in export(model, tmp_path, chosen, data):
        # Keras frees the batch for ONNX.
        batch = None if artifact.format == "onnx" else 3
        assert artifact.inputs[0].shape == (batch, 6, 6, 1), artifact.format


def test_constants_of_a_layer_are_no_inputs(tmp_path: Path, formats: list[str]) -> None:
    model = tiny(keras.layers.Normalization(mean=[2.0], variance=[9.0]))
    mean = model.layers[0].mean
    chosen = [name for name in ("savedmodel", "tflite", "onnx") if name in formats]
    for artifact in export(model, tmp_path, chosen, np.ones((10, 4, 4, 1))):
        assert len(artifact.inputs) == 1, artifact.format
        outputs = open_file(artifact.path).run({"any": np.full((1, 4, 4, 1), 5.0, np.float32)})
        np.testing.assert_allclose(*outputs.values(), 1.0, rtol=1e-6)
    assert model.layers[0].mean is mean


def test_names_are_free_but_for_files(tmp_path: Path, formats: list[str]) -> None:
    """TensorFlow's scopes and C's identifiers are ASCII; Keras' names and files' are not."""
    inputs = keras.Input((4, 4, 1), name="输入")
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, x, name="模型 1")
    chosen = [name for name in formats if name in ("keras", "savedmodel", "c-array-float", "onnx")]
    for artifact in export(model, tmp_path, chosen, name="模型 'a'"):
        assert artifact.path.name.startswith("模型 'a'")
        assert [each.name for each in artifact.inputs] == ["image"]
    assert model.name == "模型 1"


def test_onnx_gets_inference_and_whole_graphs(tmp_path: Path) -> None:
    """Augmentation ends with training; a grouped convolution and a loop are parts of the graph."""
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.RandomContrast(0.5)(keras.layers.RandomFlip()(inputs))
    x = keras.layers.Conv2D(6, 3, groups=2)(x)
    x = keras.layers.SimpleRNN(5)(keras.layers.Reshape((6, 36))(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    (artifact,) = export(model, tmp_path, ["onnx"])
    assert artifact.agreement == pytest.approx(1, abs=1e-3)


# Layers of somebody else

CUSTOM = """
import keras

@keras.saving.register_keras_serializable("somebody")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x + x
"""


def test_a_layer_of_an_importable_module_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebodys_layers.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("somebodys_layers")
    model = tiny(module.Twice())
    (artifact,) = export(model, tmp_path / "out", ["keras"])
    assert artifact.agreement == 1
    # In a notebook it would be of __main__.
    monkeypatch.setattr(module.Twice, "__module__", "__main__")
    with pytest.raises(UsageError) as error:
        export(model, tmp_path / "other", ["keras"])
    assert "put them in a module that you import, or leave the format 'keras' out" in one_line(
        error
    )
    assert len(export(model, tmp_path / "other", ["savedmodel", "tflite"])) == 2


# Several inputs and outputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_inputs_and_outputs(several: keras.Model, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    data = {"left": rng.uniform(0, 255, (20, 6, 6, 1)), "right": rng.uniform(0, 255, (20, 4))}
    given = data if kind == "dict" else list(data.values())
    formats = ["keras", "savedmodel", "tflite", "tflite-int8", "c-array"]
    artifacts = export(several, tmp_path, formats, given)
    expected = several(data, training=False)
    for artifact in artifacts:
        assert [each.name for each in artifact.inputs] == ["left", "right"]
        outputs = open_file(artifact.path).run(data)
        for name in ("how", "what"):
            y = np.asarray(expected[name])
            exact = FORMATS[artifact.format].exact
            assert np.abs(outputs[name] - y).max() <= (1e-3 if exact else 0.05) * np.ptp(y)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            [np.zeros((3, 6, 6, 1))],
            "the number of inputs of representative_data is 1: give one array for each of left, "
            "right",
        ),
        (
            {"left": np.zeros((3, 6, 6, 1))},
            "are named left: give one array for each of left, right",
        ),
        ([np.zeros((3, 6, 6, 1)), np.zeros((2, 4))], "parts of different lengths"),
        ([np.zeros((3, 4)), np.zeros((3, 6, 6, 1))], "does not fit input left"),
    ],
)
def test_data_for_other_inputs_is_one_line(
    several: keras.Model, tmp_path: Path, data: object, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(several, tmp_path, ["keras"], data)
    assert says in one_line(error)
    assert names(tmp_path) == []


# Reproducing


def test_two_exports_are_byte_identical(
    exported: list[Artifact], model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    before = [each for each in exported if each.format in ("keras", "savedmodel", "tflite-int8")]
    again = export(model, tmp_path, [each.format for each in before], images)
    assert [a.companions for a in again] == [a.companions for a in before]
    assert [a.sha256 for a in again] == [a.sha256 for a in before]


@pytest.mark.slow
def test_another_process_exports_the_same_bytes(
    paths: dict[str, Path], exported: list[Artifact], formats: list[str], tmp_path: Path
) -> None:
    code = (
        "import keras, numpy as np, tfprune;"
        f"model = keras.saving.load_model({str(paths['keras'])!r});"
        f"data = np.random.default_rng(1).uniform(0, 255, (40, 8, 8, 3)).astype('float32');"
        f"artifacts = tfprune.export(model, {str(tmp_path)!r}, {formats!r}, data);"
        "print(*[artifact.sha256 for artifact in artifacts])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Comparing all of stdout also shows that the converter printed nothing.
    assert done.stdout.split() == [artifact.sha256 for artifact in exported]


@pytest.mark.slow
def test_nothing_is_printed(
    model: keras.Model, images: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(model, tmp_path, representative_data=images)
    assert capfd.readouterr().out == ""
    print("stdout is back")
    assert capfd.readouterr().out == "stdout is back\n"


def test_the_model_itself_is_left_as_it_was(model: keras.Model, tmp_path: Path) -> None:
    before = model.get_weights()
    export(model, tmp_path, ["keras"])
    assert model.compiled
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.slow
def test_one_format_may_be_a_word_and_the_name_is_free(model: keras.Model, tmp_path: Path) -> None:
    (artifact,) = export(model, tmp_path / "new" / "folder", "tflite", name="net-80")
    assert artifact.path == tmp_path / "new" / "folder" / "net-80.tflite"
    assert names(artifact.path.parent) == ["net-80.tflite"]


@pytest.mark.slow
def test_raw_operations_and_nested_models_export(tmp_path: Path) -> None:
    stem = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)], name="stem")
    inputs = keras.Input((6, 6, 1))
    x = keras.ops.mean(stem(inputs / 255.0 - 0.5), axis=(1, 2))
    data = np.random.default_rng(0).uniform(0, 255, (30, 6, 6, 1))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    assert len(export(model, tmp_path, representative_data=data)) == 4


@pytest.mark.slow
def test_images_of_any_size_export_with_data(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    model = keras.Model(inputs, x)
    with pytest.raises(UsageError) as error:
        export(model, tmp_path, ["keras"])
    assert "representative_data" in one_line(error)
    data = np.random.default_rng(0).uniform(0, 255, (20, 7, 7, 1))
    assert len(export(model, tmp_path, representative_data=data)) == 4


@pytest.mark.slow
def test_a_model_trained_in_mixed_precision_exports_in_float32(tmp_path: Path) -> None:
    policy = keras.DTypePolicy("mixed_float16")
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(3, 3, dtype=policy)(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    data = np.random.default_rng(0).uniform(0, 255, (20, 6, 6, 1))
    artifacts = export(model, tmp_path, representative_data=data)
    assert len(artifacts) == 4
    loaded = keras.saving.load_model(artifacts[0].path)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}


# What goes wrong
