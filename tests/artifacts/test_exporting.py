from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tfprune.artifacts import FORMATS, Artifact, export
from tfprune.artifacts.formats import Format, Source
from tfprune.artifacts.running import run_artifact
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
    expected = model(images, training=False).numpy()
    for artifact in exported:
        _, outputs = run_artifact(artifact.path, {"any": images})
        same, largest = agreement(*outputs.values(), expected)
        assert (artifact.agreement, artifact.largest_difference) == pytest.approx(
            (same, largest), abs=1e-3
        )
        form = FORMATS[artifact.format]
        assert largest <= (form.tolerance if form.exact else 0.1) * np.ptp(expected)
        assert same >= 0.9
        assert (artifact.compared, artifact.compared_on) == (40, "representative")


def test_runtimes_of_measure_say_the_same(paths: dict[str, Path], images: np.ndarray) -> None:
    for name in ("keras", "savedmodel", "tflite", "tflite-int8", "tflite-int16x8"):
        _, outputs = run_artifact(paths[name], {"any": images})
        np.testing.assert_allclose(load(paths[name]).predict(images), *outputs.values(), atol=1e-3)


def test_figures_are_those_of_the_file(exported: list[Artifact]) -> None:
    for artifact in exported:
        assert artifact.bytes_raw == raw_bytes(artifact.path)
        assert artifact.bytes_gzip == gzip_bytes(artifact.path)
        assert artifact.sha256 == sha256(artifact.path)


def constants(path: Path) -> dict[tuple[int, ...], np.ndarray]:
    """Float or int8 constants of a TFLite file by shape; of sparse ones what is stored."""
    dtypes = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.FLOAT16: np.float16,
        schema.TensorType.INT8: np.int8,
    }
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    found = {}
    for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength() and tensor.Type() in dtypes:
            shape = tuple(int(size) for size in tensor.ShapeAsNumpy())
            stored = buffer.DataAsNumpy().view(dtypes[tensor.Type()])
            found[shape] = stored if tensor.Sparsity() else stored.reshape(shape)
    return found


def kernels(model: keras.Model) -> dict[tuple[int, ...], np.ndarray]:
    """Kernels as TFLite lays them out, by shape: filters first, depthwise ones as they are."""
    found = [np.asarray(w) for w in model.weights if w.name == "kernel"]
    turned = [np.moveaxis(k, -1, 0) for k in found]
    return {k.shape: k for k in turned}


TFLITE = [
    "tflite",
    "tflite-float16",
    "tflite-dynamic",
    "tflite-int8",
    "tflite-int16x8",
]


@pytest.mark.parametrize("name", TFLITE)
def test_zeros_stay_zeros_and_nothing_else_becomes_zero(
    paths: dict[str, Path], model: keras.Model, name: str
) -> None:
    stored = constants(paths[name])
    for shape, kernel in kernels(model).items():
        assert 0.5 < (kernel == 0).mean() < 0.9
        np.testing.assert_array_equal(stored[shape] == 0, kernel == 0)
    if name in ("tflite-int8", "tflite-int16x8"):
        assert {stored[shape].dtype for shape in kernels(model)} == {np.dtype(np.int8)}


def test_sparse_files_store_all_but_zeros(paths: dict[str, Path], model: keras.Model) -> None:
    stored = constants(paths["tflite-sparse"])
    for shape, kernel in kernels(model).items():
        assert np.count_nonzero(stored[shape]) == np.count_nonzero(kernel)
    assert raw_bytes(paths["tflite-sparse"]) < raw_bytes(paths["tflite"])


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


def test_a_sparse_file_that_saves_nothing_is_refused(tmp_path: Path) -> None:
    dense = tiny(keras.layers.Conv2D(4, 3))
    with pytest.raises(TfpruneError) as error:
        export(dense, tmp_path, ["tflite-sparse"])
    assert "tflite-sparse would take" in one_line(error)
    assert one_line(error).endswith("prune more weights, or export tflite")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [*TFLITE, "tflite-sparse"])
def test_only_builtin_operators_are_used(paths: dict[str, Path], name: str) -> None:
    model = schema.Model.GetRootAs(paths[name].read_bytes(), 0)
    for code in (model.OperatorCodes(i) for i in range(model.OperatorCodesLength())):
        assert code.BuiltinCode() != schema.BuiltinOperator.CUSTOM
        assert code.CustomCode() is None


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
    assert (scales[32, 3, 3, 8], scales[1, 3, 3, 8]) == (32, 8)


def test_integer_files_may_take_and_give_floats(
    model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    artifacts = export(model, tmp_path, ["tflite-int8", "tflite-int16x8"], images, io="float")
    for artifact in artifacts:
        assert {each.dtype for each in artifact.inputs + artifact.outputs} == {"float32"}
        kinds = {t["dtype"] for t in Interpreter(str(artifact.path)).get_tensor_details()}
        assert np.int8 in kinds
    with pytest.raises(UsageError, match="io is 'int4': choose one of int8, float"):
        export(model, tmp_path, io="int4")  # type: ignore[arg-type]


def test_a_card_says_what_the_file_says(exported: list[Artifact]) -> None:
    cards = {artifact.format: artifact for artifact in exported}
    for artifact in exported:
        ((x,), (y,)) = artifact.inputs, artifact.outputs
        assert (x.name, x.shape, y.name, y.shape) == (
            ("image", (None, 8, 8, 3), "output_0", (None, 5))
        )
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


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_with_a_batch_of_its_own_exports(
    tmp_path: Path, formats: list[str], dtype: str
) -> None:
    inputs = keras.Input(batch_shape=(3, 6, 6, 1), dtype=dtype)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    chosen = [name for name in formats if name not in ("tflite-sparse", "tflite-int16x8")]
    data = np.random.default_rng(0).integers(0, 256, (10, 6, 6, 1))
    for artifact in export(model, tmp_path, chosen, data):
        # Keras frees the batch for ONNX.
        batch = None if artifact.format == "onnx" else 3
        assert artifact.inputs[0].shape == (batch, 6, 6, 1), artifact.format


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
        _, outputs = run_artifact(artifact.path, data)
        for name in ("how", "what"):
            y = np.asarray(expected[name])
            exact = FORMATS[artifact.format].exact
            assert np.abs(outputs[name] - y).max() <= (1e-3 if exact else 0.05) * np.ptp(y)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([np.zeros((3, 6, 6, 1))], "has 1 parts: give one array for each of left, right"),
        ({"left": np.zeros((3, 6, 6, 1))}, "is for left: give one array for each of left, right"),
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
    again = export(model, tmp_path, [artifact.format for artifact in exported], images)
    assert [a.companions for a in again] == [a.companions for a in exported]
    assert [a.sha256 for a in again] == [a.sha256 for a in exported]


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
        (["coreml"], "choose one of keras, savedmodel, savedmodel-zst, tflite"),
        (["tflite-sparse-int8"], "is unknown"),
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
