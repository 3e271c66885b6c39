from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.artifacts.small import names, one_line, tiny
from tfprune.artifacts import export
from tfprune.errors import TfpruneError, UsageError
from tfprune.measure import raw_bytes


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
    export_paths: dict[str, Path], export_model: keras.Model, name: str
) -> None:
    stored = constants(export_paths[name])
    for shape, kernel in kernels(export_model).items():
        assert 0.5 < (kernel == 0).mean() < 0.9
        np.testing.assert_array_equal(stored[shape] == 0, kernel == 0)
    if name in ("tflite-int8", "tflite-int16x8"):
        assert {stored[shape].dtype for shape in kernels(export_model)} == {np.dtype(np.int8)}


def test_sparse_files_store_all_but_zeros(
    export_paths: dict[str, Path], export_model: keras.Model
) -> None:
    stored = constants(export_paths["tflite-sparse"])
    for shape, kernel in kernels(export_model).items():
        assert np.count_nonzero(stored[shape]) == np.count_nonzero(kernel)
    assert raw_bytes(export_paths["tflite-sparse"]) < raw_bytes(export_paths["tflite"])


@pytest.mark.slow
def test_a_sparse_file_that_saves_nothing_is_refused(tmp_path: Path) -> None:
    dense = tiny(keras.layers.Conv2D(4, 3))
    with pytest.raises(TfpruneError) as error:
        export(dense, tmp_path, ["tflite-sparse"])
    assert "tflite-sparse would take" in one_line(error)
    assert one_line(error).endswith("prune more weights, or export tflite")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [*TFLITE, "tflite-sparse"])
def test_only_builtin_operators_are_used(export_paths: dict[str, Path], name: str) -> None:
    model = schema.Model.GetRootAs(export_paths[name].read_bytes(), 0)
    for code in (model.OperatorCodes(i) for i in range(model.OperatorCodesLength())):
        assert code.BuiltinCode() != schema.BuiltinOperator.CUSTOM
        assert code.CustomCode() is None


def test_int8_is_integer_throughout_and_per_channel(export_paths: dict[str, Path]) -> None:
    interpreter = Interpreter(str(export_paths["tflite-int8"]))
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    dtypes = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert dtypes <= {np.int8, np.int32}
    scales = {
        tuple(t["shape"]): len(t["quantization_parameters"]["scales"])
        for t in interpreter.get_tensor_details()
    }
    assert (scales[32, 3, 3, 8], scales[1, 3, 3, 8]) == (32, 8)


@pytest.mark.slow
def test_integer_files_may_take_and_give_floats(
    export_model: keras.Model, export_images: np.ndarray, tmp_path: Path
) -> None:
    artifacts = export(
        export_model, tmp_path, ["tflite-int8", "tflite-int16x8"], export_images, io="float"
    )
    for artifact in artifacts:
        assert {each.dtype for each in artifact.inputs + artifact.outputs} == {"float32"}
        kinds = {t["dtype"] for t in Interpreter(str(artifact.path)).get_tensor_details()}
        assert np.int8 in kinds
    with pytest.raises(UsageError, match="io is 'int4': choose one of int8, float"):
        export(export_model, tmp_path, io="int4")  # type: ignore[arg-type]
