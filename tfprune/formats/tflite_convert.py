"""Writes TFLite files, with builtin operators only.

Recurrent layers are a case of their own: TFLite has loops for a fixed batch only, and cannot
calibrate them. Quantization-aware models are another: the converter takes all ranges from them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from tfprune.data.splits import spread
from tfprune.errors import TfpruneError
from tfprune.formats import recipes
from tfprune.formats.runtime import Feeds
from tfprune.formats.savedmodel import holds_loop, write_saved_model
from tfprune.formats.signature import layers_in, tensor_names
from tfprune.formats.source import Ends, Source, own_batch
from tfprune.formats.tflite_file import with_order, with_select_v2
from tfprune.formats.tflite_ranges import (
    cut_off,
    mark,
    unknown_inputs_and_outputs,
    without_marks,
)
from tfprune.formats.tflite_sparse import for_sparse_kernels
from tfprune.model.cloning import config_of, copy_weights, from_config
from tfprune.model.quantized_layers import has_offset
from tfprune.quantize import (
    FakeQuantize,
    QuantizedLayer,
    QuantizedPReLU,
    QuantizedScale,
)
from tfprune.quantize.aware import activation_type, ranges_of
from tfprune.quiet import quiet
from tfprune.vocabulary import ActivationTypeName

# Ranges hardly move after some hundred images, and calibration runs them one by one.
CALIBRATION_IMAGES = 500
_MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACE = re.compile(r'"([\w/.-]+)(?:@|")')
# Each step is a copy of the layer's operators: a second of sound in steps of 10 ms, and some more.
MOST_STEPS = 256
# Kinds that calibrate, and the type of their activations.
INTEGER = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "int16x8": (
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.int16,
    ),
}
# The type of activations of a quantization-aware model whose ranges a kind takes.
_TAKES: dict[str, ActivationTypeName] = {"int8": "int8", "int16x8": "int16"}
# Why a graph must be without loops, by whether it is for integers; and what to do instead.
_LOOPLESS = {
    True: (
        "integer formats need",
        "cannot calibrate a loop",
        "export tflite or tflite-dynamic instead of integers",
    ),
    False: (
        "an open batch needs",
        "has no loop over an open batch",
        "give a number of examples as the batch instead of 'dynamic'",
    ),
}


def write(source: Source, path: Path, kind: str) -> None:
    """Writes a `.tflite` file.

    Args:
        source: The model.
        path: Where to.
        kind: See `converted`.

    Raises:
        TfpruneError: TFLite has no operator for a layer, or a sparse file would be larger than a
            plain one.
    """
    content = converted(source, kind)
    if kind == "sparse" and len(content) >= len(plain := converted(source, "float32")):
        raise TfpruneError(
            f"tflite-sparse would take {len(content):,} bytes and plain tflite takes "
            f"{len(plain):,}: prune more weights, or export tflite"
        )
    path.write_bytes(content)


def converted(source: Source, kind: str) -> bytes:
    """The model as TFLite, converted once for all formats that hold it.

    The file takes `source.fixed_batch` examples at once. Over an open batch TFLite has no loop, so
    the steps of recurrent layers are written out there.

    Args:
        source: The model.
        kind: `"float32"`; `"float16"` weights; `"dynamic"`, int8 weights with activations quantized
            while it runs; `"sparse"`, float32 weights stored without their zeros; `"int8"`
            throughout but for `source.keep`; `"int16x8"`, int16 activations with int8 weights; or
            `"recipe"`, what `source.recipe` says.

    Raises:
        TfpruneError: TFLite has no operator for a layer, or cannot calibrate it.
    """
    path = source.scratch / f"{kind}.tflite"
    if not path.exists():
        content = _content(source, kind)
        if cut := cut_off(content):
            raise TfpruneError(
                f"tflite-{kind}: the bias of {', '.join(repr(each.operator) for each in cut[:3])} "
                "is too large for its integers, since its weights or its input are (almost) always "
                "zero: remove what is dead with `tfprune slim --dead`, or export tflite"
            )
        path.write_bytes(content)
    return path.read_bytes()


def _content(source: Source, kind: str) -> bytes:
    """The bytes of a file; see `converted`."""
    if kind == "recipe" or (kind == "int8" and source.keep):
        return _by_recipe(source, kind)
    aware = source.aware is not None and _TAKES.get(kind) == activation_type(source.aware)
    model = source.model
    if aware and kind == "int16x8":
        return _by_ranges(source)
    saved_model = _with_ranges(source) if aware else _graph(source, kind)
    if kind in INTEGER:
        _check_loops(model, saved_model)
    try:
        batch = source.fixed_batch or 1
        feeds = None if aware else calibration_feeds(source)
        content = convert(saved_model, kind, feeds, source.io, batch)
        content = with_select_v2(with_order(content, *tensor_names(model)))
        return for_sparse_kernels(content) if kind == "sparse" else content
    except MissingOperatorError as error:
        raise TfpruneError(
            f"TFLite has no builtin operator for {', '.join(error.operators)}"
            f"{layers_in(model, error.places)}: "
            "leave TFLite out, or replace the layers that use it"
        ) from error


def _check_loops(model: keras.Model, saved_model: Path) -> None:
    if holds_loop(saved_model):
        raise TfpruneError(
            f"model '{model.name}' computes in a loop, and TFLite cannot calibrate "
            "one: export tflite or tflite-dynamic, or write the loop out"
        )


def _by_recipe(source: Source, kind: str) -> bytes:
    """The float32 file, quantized by ai-edge-quantizer."""
    plain = converted(source, "float32")
    if kind == "recipe":
        assert source.recipe is not None
        recipe = list(source.recipe)
    else:
        operators = recipes.operators_of(plain, source.model)
        without = [path for path in source.keep if path not in operators]
        if len(without) == len(source.keep):
            raise TfpruneError(
                f"keep: {', '.join(without)} became no operator of the TFLite file: name layers "
                "that compute"
            )
        names: dict[str, str] = {}
        for kept, precision in source.keep.items():
            for name in operators.get(kept, ()):
                # A convolution and its ReLU are one operator: what was said first counts.
                names.setdefault(name, precision)
        recipe = recipes.integer_recipe(names, source.io)
    feeds = calibration_feeds(source)
    examples = None if feeds is None else calibrating(feeds, source.fixed_batch or 1)
    content = recipes.FloatFile(plain, examples).quantized(recipe)
    return with_order(content, *tensor_names(source.model))


def _by_ranges(source: Source) -> bytes:
    """The file of a quantization-aware model with int16 activations."""
    assert source.aware is not None
    saved_model = _with_ranges(source)
    _check_loops(source.model, saved_model)
    plain = convert(saved_model, "float32", batch=source.fixed_batch or 1)
    marks = {number: layer.file_range() for number, layer in enumerate(ranges_of(source.aware))}
    content, ranges, floats = without_marks(plain, marks)
    unknown = unknown_inputs_and_outputs(content, ranges)
    if unknown and source.io == "int8":
        warnings.warn(
            f"tflite-int16x8: {', '.join(unknown)} stay float32, since a layer that computes in "
            "float reads or makes them",
            stacklevel=2,
        )
    recipe = recipes.integer_recipe(dict.fromkeys(floats, "float32"), source.io, 16, unknown)
    content = recipes.FloatFile(content, None, ranges).quantized(recipe)
    return with_order(content, *tensor_names(source.model))


def _with_ranges(source: Source) -> Path:
    """A SavedModel of the quantization-aware model, with the batch of the file."""
    directory = source.scratch / "aware"
    if not directory.exists():
        assert source.aware is not None
        write_with_ranges(source.aware, directory, source.fixed_batch)
    return directory


def _graph(source: Source, kind: str) -> Path:
    """A SavedModel with the batch of the file, and without loops where TFLite takes none."""
    unroll = has_loops(source.model) and (kind in INTEGER or source.fixed_batch is None)
    if not unroll and source.fixed_batch == own_batch(source.model):
        return source.saved_model
    directory = source.scratch / ("unrolled" if unroll else "batched")
    if not directory.exists():
        model = unrolled(source.model, kind in INTEGER) if unroll else source.model
        write_saved_model(model, directory, source.fixed_batch)
    return directory


def calibration_feeds(source: Source) -> Feeds | None:
    """Representative data by the names of the SavedModel's inputs, in their dtypes."""
    data = source.representative_data
    if data is None:
        return None
    names = tensor_names(source.model)[0]
    by_name = data if isinstance(data, dict) else {names[0]: data}
    return {
        name: by_name[name].astype(keras.backend.standardize_dtype(x.dtype))
        for name, x in zip(names, source.model.inputs, strict=True)
    }


class MissingOperatorError(Exception):
    """TFLite has no builtin operator for some of a model's.

    Args:
        operators: Their names.
        places: Names of operations in the graph, some of which may be those that use them.
    """

    def __init__(self, operators: list[str], places: list[str]) -> None:
        super().__init__(", ".join(operators))
        self.operators = operators
        self.places = places


def convert(
    saved_model: Path,
    kind: str,
    feeds: Feeds | None = None,
    io: Ends = "int8",
    batch: int = 1,
) -> bytes:
    """Converts with TFLite's builtin operators only.

    Weights are quantized symmetrically and per channel (Jacob et al., arXiv:1712.05877;
    Krishnamoorthi, arXiv:1806.08342), so that a zero stays exactly zero; to float16 they are
    rounded, which keeps zeros too.

    Args:
        saved_model: A SavedModel directory.
        kind: See `converted`.
        feeds: Training images by the name of the input they go to, in its dtype: at most
            `CALIBRATION_IMAGES`, evenly spread, set the ranges of the activations of int8 and
            int16x8. None for int8 if fake quantization in the graph tells them.
        io: Whether an int8 or int16x8 file takes and gives integers, or float32.
        batch: Images that the model takes at once, where it takes no other number.

    Returns:
        The file's content, the same bytes for the same SavedModel.

    Raises:
        MissingOperatorError: An operation of the model has no builtin operator.
    """
    # from_concrete_functions leaves Keras 3 variables as resources, which calibration cannot read.
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    if kind == "sparse":
        # Beside Optimize.DEFAULT it would write files that fail when their tensors are allocated.
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in INTEGER:
        operators, dtype = INTEGER[kind]
        if feeds is not None:
            converter.representative_dataset = calibrating(feeds, batch)
            # With it, and without examples, the converter refuses ranges from the graph.
            converter.target_spec.supported_ops = [operators]
        if io == "int8":
            converter.inference_input_type = converter.inference_output_type = dtype
    return _convert(converter)


def calibrating(feeds: Feeds, batch: int) -> Callable[[], Iterator[Feeds]]:
    """Batches of at most `CALIBRATION_IMAGES` examples, evenly spread.

    Args:
        feeds: Examples by the names of a file's inputs.
        batch: Examples in a batch; the last one is filled up.
    """
    fewer = {
        name: images[spread(len(images), CALIBRATION_IMAGES)] for name, images in feeds.items()
    }
    count = min(len(images) for images in fewer.values())

    def examples() -> Iterator[Feeds]:
        for start in range(0, count, batch):
            # The last batch is filled up with the first images.
            places = np.arange(start, start + batch) % count
            yield {name: images[places] for name, images in fewer.items()}

    return examples


def _convert(converter: tf.lite.TFLiteConverter) -> bytes:
    try:
        with quiet():
            return converter.convert()
    except ConverterError as error:
        said = str(error)
        missing = sorted(set(_MISSING.findall(said)))
        if not missing and "tensor list" in said:
            missing = ["a loop over a list of tensors"]
        if not missing:
            raise
        places = [place for place in _PLACE.findall(said) if "/" in place]
        raise MissingOperatorError(missing, places) from error


def has_loops(model: keras.Model) -> bool:
    """Whether a layer of a model loops over steps, wherever it is nested.

    Args:
        model: A finished model.
    """
    return any(True for _ in _looping(model))


def unrolled(model: keras.Model, integer: bool = True) -> keras.Model:
    """The same model without loops: each step of its recurrent layers is a part of the graph.

    TensorFlow's calibration crashes on loops, and TFLite has none over an open batch.

    Args:
        model: A finished model.
        integer: Whether it is for an integer format, or else for an open batch; for messages.

    Raises:
        TfpruneError: A layer has an open number of steps, too many, or cannot be unrolled.
    """
    check_loops(model, integer)
    found = config_of(model)
    twin = from_config(model, dataclasses.replace(found, config=_with_unroll(found.config)))
    copy_weights(model, twin)
    return twin


def check_loops(model: keras.Model, integer: bool = True) -> None:
    """Refuses a model whose loops cannot become parts of the graph, which no training changes.

    Args:
        model: A finished model.
        integer: Whether it is for an integer format, or else for an open batch; for messages.

    Raises:
        TfpruneError: A layer has an open number of steps, too many, or cannot be unrolled.
    """
    what, cannot, instead = _LOOPLESS[integer]
    for layer in _looping(model):
        steps = _steps(layer)
        if "unroll" not in layer.get_config() or isinstance(layer, _convolutional()):
            raise TfpruneError(
                f"layer '{layer.name}' ({type(layer).__name__}) loops over its steps, and TFLite "
                f"{cannot}: {instead}"
            )
        if steps is None or steps > MOST_STEPS:
            said = "an open number of" if steps is None else f"{steps:,}"
            raise TfpruneError(
                f"layer '{layer.name}' has {said} steps, and {what} each step in "
                f"the graph: fix them to at most {MOST_STEPS}, or {instead}"
            )


def _looping(model: keras.Model) -> Iterator[keras.layers.RNN]:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            yield layer


def _convolutional() -> tuple[type, ...]:
    return (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)


def _steps(layer: keras.layers.RNN) -> int | None:
    built = layer.get_build_config() or {}
    shapes = [shape for shape in built.values() if shape]
    return shapes[0][1] if shapes else None


def _with_unroll(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: True if key == "unroll" else _with_unroll(value) for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_unroll(value) for value in config)
    return config


def write_with_ranges(model: keras.Model, directory: Path, batch: int | None = None) -> None:
    """Saves a quantization-aware model with its rounded weights and TensorFlow's fake quantization.

    The converter makes the ranges of these operations those of its tensors. It finds the steps of
    the weights itself: the largest weight of each channel is 127 of them. In place of ranges for
    int16 there are marks, see `tfprune.formats.tflite_ranges`.

    Args:
        model: from `tfprune.quantize_aware`, whose ranges are known.
        directory: Where to; it must not exist.
        batch: Examples that it takes at once; None for the batch of the model's own inputs.
    """
    with _as_in_file(model):
        write_saved_model(model, directory, batch)


@contextlib.contextmanager
def _as_in_file(model: keras.Model) -> Iterator[None]:
    replaced = []
    marks = {id(layer): mark(number) for number, layer in enumerate(ranges_of(model))}
    try:
        for layer in model._flatten_layers(include_self=False):
            call = _call_in_file(layer, marks.get(id(layer)))
            if call is not None:
                layer.call = call
                replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del layer.call


def _call_in_file(layer: Any, its_mark: np.float32 | None) -> Callable[..., Any] | None:
    """What a layer of a quantization-aware model computes in the file; None for another layer."""
    if isinstance(layer, FakeQuantize):
        low, high = layer.file_range()
        step = np.float32(layer.file_step())

        def to_range(x: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            if layer.activation_type == "int16":
                return tf.maximum(x, its_mark), tf.constant(step)
            return tf.quantization.fake_quant_with_min_max_args(x, low, high), tf.constant(step)

        return to_range
    if isinstance(layer, QuantizedLayer):

        def multiply(x: Any, step: Any) -> tuple[Any, Any]:
            # The same layer may be called on tensors of several ranges.
            with tf.init_scope():
                kernel, bias = _constants(layer.file_weights(float(tf.get_static_value(step))))
            # Nothing of the file reads the second.
            return layer.compute(x, kernel, bias), step

        return multiply
    if isinstance(layer, QuantizedPReLU):
        (slopes,) = _constants([layer.file_slopes()])
        return lambda x: layer.compute(x, slopes)
    if isinstance(layer, QuantizedScale):
        factor, offset = _constants(layer.file_constants())

        def scale(x: Any, step: Any, training: bool = False) -> tuple[Any, ...]:
            beside = 4 if has_offset(layer.layer) else 1
            return layer.compute(x, factor, offset), *[step] * beside

        return scale
    return None


def _constants(tensors: Any) -> list[np.ndarray | None]:
    return [None if each is None else np.asarray(each, np.float32) for each in tensors]
