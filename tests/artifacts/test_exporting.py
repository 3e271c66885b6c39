from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tfprune.artifacts import FORMATS, Artifact, export
from tfprune.artifacts.formats import Format, Source
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import sha256
from tfprune.measure import agreement, gzip_bytes, load, raw_bytes
from tfprune.measure.savedmodel_runtime import SavedModelRuntime


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 450
    return message


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def tiny(*layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1)), *layers, keras.layers.Flatten()])


def test_the_public_name_is_the_function() -> None:
    assert tfprune.export is export


def test_every_format_has_its_file_and_nothing_else(exported: list[Artifact]) -> None:
    assert [artifact.format for artifact in exported] == list(FORMATS)
    assert names(exported[0].path.parent) == [
        "model.int8.tflite",
        "model.keras",
        "model.savedmodel.tar.gz",
        "model.tflite",
    ]


def test_every_artifact_agrees_with_its_keras_model(
    exported: list[Artifact], model: keras.Model, images: np.ndarray
) -> None:
    expected = model(images, training=False).numpy()
    for artifact in exported:
        same, largest = agreement(load(artifact.path).predict(images), expected)
        assert (artifact.agreement, artifact.largest_difference) == pytest.approx(
            (same, largest), abs=1e-4
        )
        assert largest <= (1e-3 if FORMATS[artifact.format].exact else 0.1) * np.ptp(expected)
        assert same >= 0.9


def test_figures_are_those_of_the_file(exported: list[Artifact]) -> None:
    for artifact in exported:
        assert artifact.bytes_raw == raw_bytes(artifact.path)
        assert artifact.bytes_gzip == gzip_bytes(artifact.path)
        assert artifact.sha256 == sha256(artifact.path)


def kernels_in_tflite(path: Path) -> list[np.ndarray]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    kernels = []
    for tensor in interpreter.get_tensor_details():
        if tuple(tensor["shape"]) in {(4, 3, 3, 3), (4, 3, 3, 4), (5, 64)}:
            kernels.append(interpreter.get_tensor(tensor["index"]))
    return kernels


def zeros(kernels: list[np.ndarray]) -> list[int]:
    return sorted(int((kernel == 0).sum()) for kernel in kernels)


def test_zeros_stay_zeros_in_every_format(paths: dict[str, Path], model: keras.Model) -> None:
    kernels = [np.asarray(w) for w in model.weights if w.name == "kernel"]
    expected = zeros(kernels)
    assert min(expected) > 0.3 * min(kernel.size for kernel in kernels)
    saved = keras.saving.load_model(paths["keras"])
    assert zeros([np.asarray(w) for w in saved.weights if w.name == "kernel"]) == expected
    served = SavedModelRuntime(paths["savedmodel"]).variables
    assert zeros([v.numpy() for v in served if "kernel" in v.name]) == expected
    assert zeros(kernels_in_tflite(paths["tflite"])) == expected
    assert zeros(kernels_in_tflite(paths["tflite-int8"])) == expected
    assert {k.dtype for k in kernels_in_tflite(paths["tflite-int8"])} == {np.dtype(np.int8)}


def test_int8_is_integer_throughout_and_per_channel(paths: dict[str, Path]) -> None:
    interpreter = Interpreter(str(paths["tflite-int8"]))
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    dtypes = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert dtypes <= {np.int8, np.int32}
    scales = {
        tuple(t["shape"]): len(t["quantization_parameters"]["scales"])
        for t in interpreter.get_tensor_details()
    }
    assert scales[4, 3, 3, 4] == 4


def test_two_exports_are_byte_identical(
    exported: list[Artifact], model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    again = export(model, tmp_path, representative_data=images)
    assert [a.sha256 for a in again] == [a.sha256 for a in exported]


def test_another_process_exports_the_same_bytes(
    paths: dict[str, Path], exported: list[Artifact], tmp_path: Path
) -> None:
    code = (
        "import keras, numpy as np, tfprune;"
        f"model = keras.saving.load_model({str(paths['keras'])!r});"
        f"data = np.random.default_rng(1).uniform(0, 255, (40, 8, 8, 3)).astype('float32');"
        f"artifacts = tfprune.export(model, {str(tmp_path)!r}, representative_data=data);"
        "print(*[artifact.sha256 for artifact in artifacts])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Comparing all of stdout also shows that the converter printed nothing.
    assert done.stdout.split() == [artifact.sha256 for artifact in exported]


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


def test_one_format_may_be_a_word_and_the_name_is_free(model: keras.Model, tmp_path: Path) -> None:
    (artifact,) = export(model, tmp_path / "new" / "folder", "tflite", name="net-80")
    assert artifact.path == tmp_path / "new" / "folder" / "net-80.tflite"
    assert names(artifact.path.parent) == ["net-80.tflite"]


def test_raw_operations_and_nested_models_export(tmp_path: Path) -> None:
    stem = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3)], name="stem")
    inputs = keras.Input((6, 6, 1))
    x = keras.ops.mean(stem(inputs / 255.0 - 0.5), axis=(1, 2))
    data = np.random.default_rng(0).uniform(0, 255, (30, 6, 6, 1))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    assert len(export(model, tmp_path, representative_data=data)) == 4


def test_images_of_any_size_export_with_data(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    model = keras.Model(inputs, x)
    with pytest.raises(UsageError) as error:
        export(model, tmp_path, ["keras"])
    assert "representative_data" in one_line(error)
    data = np.random.default_rng(0).uniform(0, 255, (20, 7, 7, 1))
    assert len(export(model, tmp_path, representative_data=data)) == 4


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


def write_other(source: Source, path: Path) -> None:
    """A broken format: the file holds a model with other weights."""
    other = keras.models.clone_model(source.model)
    other.set_weights([-w for w in source.model.get_weights()])
    other.save(path)


def interrupt(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise KeyboardInterrupt


def disk_full(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def crash(source: Source, path: Path) -> None:
    path.write_bytes(b"half")
    raise AttributeError("a layer without\nan export path")


@pytest.mark.parametrize(
    ("write", "expected", "says"),
    [
        (write_other, TfpruneError, "does not agree"),
        (interrupt, KeyboardInterrupt, ""),
        (disk_full, TfpruneError, "No space left"),
        (crash, TfpruneError, "a layer without"),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    model: keras.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Source, Path], None],
    expected: type[BaseException],
    says: str,
) -> None:
    monkeypatch.setitem(FORMATS, "broken", Format(".broken.keras", write))
    (tmp_path / "model.keras").write_bytes(b"an older export")
    with pytest.raises(expected) as error:
        export(model, tmp_path, ["keras", "broken"])
    assert says in one_line(error)
    assert names(tmp_path) == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == b"an older export"
    export(model, tmp_path, ["keras"])
    assert load(tmp_path / "model.keras").format == "keras"


def test_a_file_that_cannot_be_loaded_does_not_count(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: Source, path: Path) -> None:
        path.write_bytes(b"not a model")

    monkeypatch.setitem(FORMATS, "tflite", Format(".tflite", write))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite"])
    assert "no TFLite model" in one_line(error)
    assert ".partial" not in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    model = tiny(keras.layers.Conv2D(2, 3))
    model.set_weights([w * 0 + bad for w in model.get_weights()])
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["keras"])
    assert "NaN or infinite" in one_line(error)
    assert names(tmp_path) == []


def test_a_clearly_broken_int8_file_is_refused(
    model: keras.Model, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: Source, path: Path) -> None:
        write_other(source, path)

    monkeypatch.setitem(FORMATS, "tflite-int8", Format(".int8.keras", write, exact=False))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite-int8"], representative_data=images)
    assert "check the representative data" in one_line(error)
    assert names(tmp_path) == []


def test_an_untrained_model_is_not_called_broken(tmp_path: Path) -> None:
    """Its logits nearly tie, so that int8 reorders many of them: that is no fault of the file."""
    keras.utils.set_random_seed(1)
    model = tiny(keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(), keras.layers.ReLU())
    data = np.random.default_rng(0).uniform(0, 255, (50, 4, 4, 1))
    assert len(export(model, tmp_path, ["tflite-int8"], representative_data=data)) == 1


def test_an_operation_without_builtin_operator_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Flatten()(keras.ops.erfinv(inputs / 300)))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["keras", "tflite"])
    assert "no builtin operator for Erfinv" in one_line(error)
    assert names(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_one_line(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path / "file" / "models", ["keras"])
    assert "cannot be written (Not a directory)" in one_line(error)


@pytest.mark.parametrize(
    ("formats", "says"),
    [
        (["tflit"], "did you mean 'tflite'?"),
        (["tflite-int4"], "did you mean 'tflite-int8'?"),
        (["onnx"], "choose one of keras, savedmodel, tflite, tflite-int8"),
        ([], "no format"),
        (["tflite-int8"], "needs representative_data"),
    ],
)
def test_a_wrong_format_is_one_line(
    model: keras.Model, tmp_path: Path, formats: list[str], says: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path / "new", formats)
    assert says in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [np.zeros((0, 8, 8, 3)), np.zeros((4, 8, 9, 3)), np.full((4, 8, 8, 3), np.nan), ["a"]],
)
def test_data_that_does_not_fit_is_one_line(
    model: keras.Model, tmp_path: Path, data: np.ndarray
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path / "new", representative_data=data)
    one_line(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../model", "a/b", ".."])
def test_a_name_that_leaves_the_directory_is_one_line(
    model: keras.Model, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError) as error:
        export(model, tmp_path, ["keras"], name=name)
    assert "without directories" in one_line(error)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x: object) -> object:
        return self.dense(x)


@pytest.mark.parametrize("called", [True, False])
def test_a_subclassed_or_uncalled_model_is_one_line(tmp_path: Path, called: bool) -> None:
    model = Subclassed()
    if called:
        model(np.zeros((1, 3), np.float32))
    for wrong in [model, keras.Sequential([keras.layers.Dense(2)])]:
        with pytest.raises(UsageError) as error:
            export(wrong, tmp_path, ["keras"])
        assert "Sequential or Functional" in one_line(error)
    assert names(tmp_path) == []
