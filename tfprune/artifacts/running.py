"""Runs any artifact on any number of inputs, and tells how the file describes them.

`tfprune.measure` runs artifacts with one input and one output, and fast; here several are allowed,
and archives and C arrays too.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.archives import ARCHIVES, unpack
from tfprune.artifacts.artifact import Tensor
from tfprune.artifacts.opened import BATCH, Opened, described, in_batches, random_feeds
from tfprune.errors import TfpruneError, UsageError, one_line

if TYPE_CHECKING:
    import keras

    from tfprune.artifacts.tflite import Feeds


def open_artifact(path: Path, scratch: Path) -> Opened:
    """Loads a file of any format in `FORMATS`.

    Args:
        path: The file.
        scratch: An empty directory that must outlive what is returned.

    Raises:
        UsageError: Its kind is unknown, or it needs a package that is not installed.
        TfpruneError: It is damaged, or not what its name says.
    """
    if path.name.endswith(ARCHIVES):
        return _saved_model(path, scratch)
    openers: dict[str, Callable[[Path, Path], Opened]] = {
        ".keras": _keras,
        ".tflite": _tflite,
        ".cc": _c_array,
        ".onnx": _onnx,
    }
    if path.suffix not in openers:
        raise UsageError(f"{path} is no artifact: give one of {', '.join([*openers, *ARCHIVES])}")
    return openers[path.suffix](path, scratch)


def open_keras(model: keras.Model) -> Opened:
    """A Keras model in memory.

    Args:
        model: A built Sequential or Functional model.
    """
    import keras
    import tensorflow as tf

    from tfprune.artifacts.savedmodel import flattened, plain_names, tensor_names

    flat = flattened(model)
    inputs, outputs = tensor_names(model)
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in flat.inputs]
    # One trace for every batch size; a single output comes out bare.
    function = tf.function(
        lambda *x: keras.tree.flatten(flat(list(x), training=False)),
        input_signature=[
            tf.TensorSpec(x.shape, dtype) for x, dtype in zip(flat.inputs, dtypes, strict=True)
        ],
    )
    with plain_names(model):
        call = function.get_concrete_function()

    def run(feeds: Feeds) -> Feeds:
        x = [tf.cast(feeds[name], dtype) for name, dtype in zip(inputs, dtypes, strict=True)]
        return {
            name: y.numpy().astype(np.float32) for name, y in zip(outputs, call(*x), strict=True)
        }

    return Opened(
        tuple(described(n, x.shape, x.dtype) for n, x in zip(inputs, flat.inputs, strict=True)),
        tuple(described(n, y.shape, y.dtype) for n, y in zip(outputs, flat.outputs, strict=True)),
        in_batches(run, flat.inputs[0].shape[0]),
    )


def _keras(path: Path, scratch: Path) -> Opened:
    from tfprune.model.loading import load

    return open_keras(load(path))


def _saved_model(path: Path, scratch: Path) -> Opened:
    import tensorflow as tf

    from tfprune.archives import saved_model_root
    from tfprune.measure.savedmodel_runtime import SIGNATURE

    unpack(path, scratch)
    try:
        loaded = tf.saved_model.load(str(saved_model_root(scratch)))
        signature = loaded.signatures[SIGNATURE]
    except TfpruneError as error:
        raise TfpruneError(f"{path}: {error}") from error
    # TensorFlow raises whatever the damaged part raises, DecodeError and KeyError included.
    except Exception as error:
        raise TfpruneError(
            f"{path} cannot be loaded as a SavedModel ({one_line(error)}): export it again"
        ) from error
    specs = signature.structured_input_signature[1]

    def run(feeds: Feeds) -> Feeds:
        # The loaded object owns the variables; the signature alone would let them go.
        assert loaded is not None
        x = {name: tf.cast(feeds[name], spec.dtype) for name, spec in specs.items()}
        return {name: y.numpy().astype(np.float32) for name, y in signature(**x).items()}

    ends = (specs, signature.structured_outputs)
    inputs, outputs = (
        tuple(described(name, spec.shape, spec.dtype.name) for name, spec in end.items())
        for end in ends
    )
    return Opened(inputs, outputs, in_batches(run, inputs[0].shape[0]))


def _tflite(path: Path, scratch: Path) -> Opened:
    from tfprune.measure.tflite_runtime import (
        Interpreter,
        TFLiteRuntime,
        dequantize,
        quantize,
        read_tflite,
    )

    content = read_tflite(path)
    try:
        interpreter = Interpreter(model_content=content)
        inputs, outputs = _tflite_ends(interpreter)
    except (RuntimeError, ValueError) as error:
        raise _tflite_failure(path, error) from error

    def several(feeds: Feeds) -> Feeds:
        rows: list[Feeds] = []
        for i in range(min(len(x) for x in feeds.values())):
            for name, details in inputs.items():
                interpreter.resize_tensor_input(details["index"], feeds[name][i : i + 1].shape)
            interpreter.allocate_tensors()
            for name, details in inputs.items():
                stored = quantize(feeds[name][i : i + 1], details)
                interpreter.set_tensor(details["index"], stored)
            interpreter.invoke()
            rows.append(
                {
                    name: dequantize(interpreter.get_tensor(details["index"]), details)
                    for name, details in outputs.items()
                }
            )
        return {name: np.concatenate([row[name] for row in rows]) for name in outputs}

    def single(feeds: Feeds) -> Feeds:
        (images,) = feeds.values()
        return {next(iter(outputs)): TFLiteRuntime(path).predict(images, batch_size=BATCH)}

    def run(feeds: Feeds) -> Feeds:
        try:
            return single(feeds) if len(inputs) == len(outputs) == 1 else several(feeds)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, TfpruneError):
                raise
            raise _tflite_failure(path, error) from error

    return Opened(
        tuple(_tflite_tensor(name, details) for name, details in inputs.items()),
        tuple(_tflite_tensor(name, details) for name, details in outputs.items()),
        run,
    )


def _tflite_ends(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details of inputs and outputs by the names of the signature, or the tensors' own."""
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return runner.get_input_details(), runner.get_output_details()
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    inputs, outputs = ({details["name"]: details for details in end} for end in ends)
    return inputs, outputs


def _tflite_tensor(name: str, details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    plain = described(name, details["shape_signature"], np.dtype(details["dtype"]).name)
    if not scale:
        return plain
    return dataclasses.replace(plain, scale=float(scale), zero_point=int(zero_point))


def _tflite_failure(path: Path, error: Exception) -> TfpruneError:
    return TfpruneError(f"{path} cannot be run by TFLite ({one_line(error)}): export it again")


def _c_array(path: Path, scratch: Path) -> Opened:
    from tfprune.measure.c_array import c_array

    inner = scratch / f"{path.stem}.tflite"
    inner.write_bytes(c_array(path))
    try:
        return _tflite(inner, scratch)
    except TfpruneError as error:
        raise TfpruneError(str(error).replace(str(inner), str(path))) from error


def _onnx(path: Path, scratch: Path) -> Opened:
    from tfprune.measure.onnx_runtime import end_dtype, open_session

    session = open_session(path)
    names = [each.name for each in session.get_outputs()]

    def run(feeds: Feeds) -> Feeds:
        x = {each.name: feeds[each.name].astype(end_dtype(each)) for each in session.get_inputs()}
        found = session.run(names, x)
        return {name: y.astype(np.float32) for name, y in zip(names, found, strict=True)}

    inputs, outputs = (
        tuple(described(each.name, each.shape, end_dtype(each)) for each in end)
        for end in (session.get_inputs(), session.get_outputs())
    )
    return Opened(inputs, outputs, in_batches(run, inputs[0].shape[0]))


def run_artifact(path: Path, feeds: Feeds | None) -> tuple[Opened, Feeds]:
    """Loads a file and runs it once.

    Args:
        path: The file.
        feeds: Real values by input name; those of a file with one input may go by any name. None
            for random pixels.

    Returns:
        What was loaded, which is used up, and the outputs by name.

    Raises:
        TfpruneError: It cannot be loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="tfprune-") as scratch:
        opened = open_artifact(path, Path(scratch))
        if feeds is None:
            feeds = random_feeds(opened.inputs)
        elif len(feeds) == len(opened.inputs) == 1:
            feeds = {opened.inputs[0].name: next(iter(feeds.values()))}
        elif set(feeds) != {each.name for each in opened.inputs}:
            raise TfpruneError(
                f"{path} takes {', '.join(each.name for each in opened.inputs)} instead of "
                f"{', '.join(feeds)}: export it again"
            )
        try:
            return opened, opened.predict(feeds)
        except TfpruneError:
            raise
        # A damaged graph may load and fail anywhere when it runs.
        except Exception as error:
            raise TfpruneError(
                f"{path} was loaded and does not run ({one_line(error)}): export it again"
            ) from error
