"""Writes a model in several formats, and lists only what was loaded, run and compared."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np

from tfprune import __version__
from tfprune.artifacts.calibration import doubts
from tfprune.artifacts.card import LABELS, Artifact, Companion, is_inside
from tfprune.artifacts.comparing import compare, sigmoid_outputs
from tfprune.artifacts.examples import by_input, compared, held_back, random_pixels
from tfprune.data.adapting import Data
from tfprune.errors import (
    RefusedError,
    TfpruneError,
    UsageError,
    check_package,
    did_you_mean,
    one_line,
)
from tfprune.files import partial_folder, sha256, sweep
from tfprune.formats import FORMATS, Feeds, Tensor, check_installed, file_type, recipes
from tfprune.formats.keras_file import KerasRuntime
from tfprune.formats.registry import TENSORFLOW, has_batch
from tfprune.formats.sandbox import import_libraries, run_file, shared
from tfprune.formats.signature import tensor_names
from tfprune.formats.source import (
    Ends,
    Source,
    custom_modules,
    finished,
    is_mixed_precision,
    own_batch,
)
from tfprune.measure.size import gzip_bytes, raw_bytes, zstd_bytes
from tfprune.model.compiled import Settings, kept_by_file
from tfprune.model.input_shape import fix_input_shape
from tfprune.model.reference import InputShape
from tfprune.quantize import is_quantize_aware, without_rounding
from tfprune.quantize.aware import activation_type
from tfprune.vocabulary import (
    BATCHES,
    DEFAULT_BATCH,
    KEEPING,
    LARGEST_BATCH,
    QUANTIZER,
    RECIPE,
    RECIPES,
    Batch,
)

# Largest difference of a float format, as a share of the outputs' range, for a model in mixed
# precision: the files compute in float32, the model in 16 bits.
MIXED_TOLERANCE = 5e-2
# File systems allow 255, and suffixes follow.
_LONGEST_NAME = 200
_SANDBOX = "exports"
_TIMEOUT_SECONDS = 900.0
_PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "numpy")


def export(
    model: keras.Model,
    directory: str | os.PathLike[str],
    formats: Sequence[str] = ("keras", "savedmodel", "tflite", "tflite-int8"),
    representative_data: Data | None = None,
    name: str = "model",
    *,
    comparison_data: Data | None = None,
    io: Ends = "int8",
    batch: Batch = DEFAULT_BATCH,
    labels: Sequence[str] | None = None,
    input_shape: InputShape | None = None,
    keep: Mapping[str, str] | None = None,
    recipe: str | os.PathLike[str] | Sequence[dict[str, Any]] | None = None,
) -> list[Artifact]:
    """Exports a model for delivery, and proves every file by running it.

    Example:
        ```python
        artifacts = tfprune.export(model, "out", ["tflite-int8"], train_images[:500])
        artifacts[0].agreement
        ```

    Every file is written under a temporary name, loaded in a Python of its own and compared with
    the Keras model, on up to 256 examples that did not calibrate it: those of `comparison_data`,
    or else every fourth representative one, which is then held back from calibration. (With fewer
    than 20 nothing is held back, and a warning says so; without any data, 256 random examples of
    pixels 0..255 show that float formats were converted exactly.) The card of a file tells what
    was compared: classes, sides of 0.5 of sigmoid outputs, or the share of the outputs' variance
    that the file explains; see `tfprune.measure.agreement`.

    Float formats must agree within 0.1 % of the outputs' range (float16 within 1 %; 5 % where the
    model computes in mixed precision: the files compute in float32). A quantized file is refused
    only when it is clearly broken: its agreement is below one half *and* some output is off by
    more than 10 % of the range; whether its accuracy is enough, measure on labelled examples.
    A warning is given for calibration data that are few, constant, or do not look like those that
    the model was trained on. Files get their final names, replacing older ones, after all formats
    passed; when one fails nothing has changed. The files carry no optimizer state and no tfprune
    object, and exporting the same weights again gives the same bytes.

    A model of `tfprune.quantize_aware` has its own ranges: its int8 formats (`"tflite-int8"`,
    `"c-array"`, `"tflite-lut"`, `"c-array-lut"`) need no representative data, and are compared with
    it; with int16 activations that is `"tflite-int16x8"`. All other formats are those of the float
    model that `tfprune.quantize.finished` makes of it, and are compared with that one; save the
    model itself, by `model.save`, to train it further.

    A `.keras` file of a model that is compiled for another task than plain classification keeps its
    losses and metrics, so that later commands know the task, if all of them are Keras' own and come
    back from their configs as they are; else it keeps none, and a warning names what it cannot
    keep. (It is compiled with a new `SGD` then, since Keras loads no losses without an optimizer.)

    Args:
        model: A built Sequential or Functional model. Its custom layers must live in a module
            that can be imported.
        directory: Where the files go; made when missing.
        formats: Any of `"keras"`, `"savedmodel"` (`.savedmodel.tar.gz`), `"savedmodel-zst"`
            (`.savedmodel.tar.zst`), `"tflite"` (float32), `"tflite-float16"` (half-size weights),
            `"tflite-dynamic"` (int8 weights), `"tflite-int8"` (int8 throughout, weights per
            channel), `"tflite-int16x8"` (int16 activations, for models that int8 hurts),
            `"tflite-sparse"` (float32 without the zeros; refused where that saves nothing),
            `"tflite-recipe"` (what `recipe` says, such as int4 weights),
            `"c-array"` and `"c-array-float"` (`.cc` and `.h` of the int8 or float32 file, for
            TFLite Micro) and `"onnx"` (with `pip install tfprune[onnx]`). All of TFLite use
            builtin operators only.
        representative_data: Training examples, values as the model takes them: an array; for
            several inputs a list in the order of `model.inputs` or a dict by their names; or a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator of batches or any other form
            that `tfprune.data.examples` takes, of which 1,024 examples are read. Targets are not
            looked at. int8 and int16x8 need them: up to 500, evenly spread, set the activations'
            ranges.
        name: Stem of the files' names.
        comparison_data: Other examples, such as those of the validation split, in the form of
            `representative_data`: what files are compared on. All representative data calibrate
            then.
        io: What int8 and int16x8 files take and give: `"int8"` for the integers themselves,
            `"float"` for float32.
        batch: Examples that TFLite files and C arrays take at once, the same for every input, or
            `"dynamic"` for any number. Devices run one at a time, and LiteRT.js and several
            compilers refuse an open batch. A model whose own inputs fix the batch keeps that; a
            warning says so where another one than 1 is asked for. The other formats take any
            number.
        labels: Names of the classes, in their order; written to `labels.txt`. Of a model with
            several outputs they belong to the only one that has so many numbers; a single sigmoid
            has two classes.
        input_shape: The shape of one example, without the batch, where the model leaves sizes open
            and the files shall not: microcontrollers take none of any size. Those of several
            inputs by their names; see `tfprune.model.input_shape.fix_input_shape`.
        keep: Layers that `"tflite-int8"` and `"c-array"` keep in another precision: names, paths
            or globs to `"float32"` or `"int16"` (int16 activations with int8 weights); the first
            that fits counts. A BatchNorm or ReLU behind a convolution is one operator with it. It
            needs `pip install tfprune[quantizer]`.
        recipe: What `"tflite-recipe"` is quantized by: a name in `tfprune.vocabulary.RECIPES`, such
            as `"dynamic_wi4_afp32"`, the path of a JSON file, or its entries; see
            https://github.com/google-ai-edge/ai-edge-quantizer.

    Returns:
        One artifact a format, in the order asked for.

    Raises:
        UsageError: A format is unknown, data or a package is missing, or data, labels or the shape
            do not fit the model.
        TfpruneError: A conversion failed, a file cannot be loaded or does not agree with the
            model, or the directory cannot be written.
    """
    chosen = _chosen(formats, io)
    check_batch(batch, chosen)
    _check_name(name)
    if input_shape is not None:
        model = fix_input_shape(model, input_shape)
    aware = finished(model) if is_quantize_aware(model) else None
    copy = finished(without_rounding(model))
    kept = _kept_layers(copy, keep, chosen, aware is not None)
    entries = _entries(recipe, chosen)
    if any(has_batch(each) for each in chosen):
        _tell_batch(copy, batch)
    data = None if representative_data is None else by_input(model, representative_data)
    given = None if comparison_data is None else by_input(model, comparison_data, "comparison_data")
    of_aware = []
    if aware is not None:
        rounded = activation_type(model)
        of_aware = [each for each in chosen if FORMATS[each].takes_ranges == rounded]
    calibrated = [each for each in chosen if FORMATS[each].calibrated and each not in of_aware]
    if entries is not None and recipes.needs_calibration(entries):
        calibrated.append(RECIPE)
    for each in calibrated:
        if data is None:
            raise UsageError(
                f"format {each!r} needs representative_data: give some hundred training examples"
            )
    if "keras" in chosen and "__main__" in custom_modules(copy):
        raise UsageError(
            f"model '{model.name}' has custom layers that __main__ defines, where no other Python "
            "finds them: put them in a module that you import, or leave the format 'keras' out"
        )
    named = _labels(model, labels)
    settings = _kept(model) if "keras" in chosen else kept_by_file(model)[0]
    calibration, compared_on, examples = _divided(data, given, bool(calibrated))
    exact = _Wanted(model if aware is None else copy, compared_on, examples)
    wanted = dict.fromkeys(chosen, exact)
    if of_aware:
        wanted.update(dict.fromkeys(of_aware, _Wanted(model, compared_on, examples)))
    if calibrated and data is not None:
        for doubt in doubts(copy, data, given):
            warnings.warn(f"export: {doubt}", stacklevel=2)
    # Loads its libraries while we convert.
    types = [file_type(Path(f"{name}{FORMATS[each].suffix}")) for each in chosen]
    shared(_SANDBOX).submit(
        import_libraries, *(["keras"] if any(each.library == TENSORFLOW for each in types) else [])
    )
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        with partial_folder(directory) as partial:
            (scratch := partial / "scratch").mkdir()
            source = Source(
                copy, name, scratch, calibration, io, settings, batch, aware, kept, entries
            )
            artifacts = [_proven(source, each, partial, wanted[each]) for each in chosen]
            model_sha256 = sha256(source.keras_file)
            if named:
                lines = "".join(f"{label}\n" for label in named)
                (partial / LABELS).write_text(lines, encoding="utf-8")
                (partial / LABELS).replace(directory / LABELS)
            return [
                _finish(
                    dataclasses.replace(artifact, model_sha256=model_sha256, labels=named),
                    directory,
                )
                for artifact in artifacts
            ]
    except OSError as error:
        raise TfpruneError(
            f"{directory} cannot be written ({error.strerror or one_line(error)}): "
            "give a directory you can write to"
        ) from error


def _kept_layers(
    model: keras.Model, keep: Mapping[str, str] | None, formats: Sequence[str], aware: bool
) -> dict[str, str]:
    """The layers that int8 files keep in another precision, checked."""
    if not keep:
        return {}
    if not set(formats) & set(KEEPING):
        raise UsageError(
            f"keep has no meaning for {', '.join(formats)}: add one of {', '.join(KEEPING)}, or "
            "leave it out"
        )
    if looked_up := [each for each in formats if each.endswith("-lut")]:
        raise UsageError(f"keep cannot go with {', '.join(looked_up)}: export these without it")
    if aware:
        raise UsageError(
            f"model '{model.name}' is quantization-aware: give its layers in exclude of "
            "tfprune.quantize_aware, and leave keep out"
        )
    check_package("keep", QUANTIZER, "quantizer")
    return recipes.check_keep(model, keep)


def _entries(
    recipe: str | os.PathLike[str] | Sequence[dict[str, Any]] | None, formats: Sequence[str]
) -> list[dict[str, Any]] | None:
    """The entries of the recipe, where a format needs one."""
    if RECIPE in formats and recipe is None:
        names = ", ".join(RECIPES)
        raise UsageError(f"format {RECIPE!r} needs a recipe: give a JSON file, or one of {names}")
    if recipe is None:
        return None
    if RECIPE not in formats:
        raise UsageError(
            f"recipe has no meaning without format {RECIPE!r}: add it, or leave it out"
        )
    given = recipe if isinstance(recipe, str) else None
    if isinstance(recipe, os.PathLike):
        given = os.fspath(recipe)
    return recipes.read_recipe(given if given is not None else list(recipe))  # type: ignore[arg-type]


class _Wanted:
    """What the Keras model gives, and on what."""

    def __init__(self, model: keras.Model, on: str, data: Feeds | None) -> None:
        self.on = on
        try:
            runtime = KerasRuntime(model)
            self.feeds = (
                random_pixels(model, runtime.inputs) if data is None else compared(model, data)
            )
            self.outputs = runtime.run(self.feeds)
        except TfpruneError:
            raise
        # Layers raise what they like where the numbers make no sense to them.
        except Exception as error:
            raise TfpruneError(
                f"model '{model.name}' does not run on {self.on} examples ({one_line(error)}): "
                "give representative_data that it can take"
            ) from error
        if not all(np.isfinite(y).all() for y in self.outputs.values()):
            raise RefusedError(
                f"model '{model.name}' gives NaN or infinite outputs: check its weights, "
                "or train again with a lower learning rate"
            )
        self.least_tolerance = MIXED_TOLERANCE if is_mixed_precision(model) else 0.0
        self.modules = custom_modules(model)
        self.sigmoids = sigmoid_outputs(model)


def _divided(
    data: Feeds | None, given: Feeds | None, calibrates: bool
) -> tuple[Feeds | None, str, Feeds | None]:
    """What calibrates, what a card calls the examples that are compared, and these."""
    if given is not None:
        return data, "given", given
    if data is None:
        return None, "random", None
    if not calibrates:
        return data, "representative", data
    calibration, comparison = held_back(data)
    if comparison is None:
        return calibration, "calibration", calibration
    return calibration, "held back", comparison


def _chosen(formats: Sequence[str], io: str) -> list[str]:
    chosen = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    if not chosen:
        raise UsageError(f"no format to export: give some of {', '.join(FORMATS)}")
    for name in chosen:
        if name not in FORMATS:
            raise UsageError(f"format {name!r} is unknown: {did_you_mean(str(name), FORMATS)}")
    check_installed(chosen)
    if io not in get_args(Ends):
        raise UsageError(f"io is {io!r}: choose one of {', '.join(get_args(Ends))}")
    return chosen


def check_batch(batch: Batch, formats: Sequence[str]) -> None:
    """Refuses a batch that cannot be, or that none of the formats has.

    Args:
        batch: See `export`.
        formats: Names of formats.

    Raises:
        UsageError: One of both is so.
    """
    fits = 1 <= batch <= LARGEST_BATCH if isinstance(batch, int) else batch in BATCHES
    if not fits or isinstance(batch, bool):
        words = " or ".join(repr(word) for word in BATCHES)
        raise UsageError(
            f"batch is {batch!r}: give a number from 1 to {LARGEST_BATCH:,}, or {words}"
        )
    if batch != DEFAULT_BATCH and not any(has_batch(each) for each in formats):
        raise UsageError(
            f"batch is {batch!r}, and {', '.join(formats)} take any number of examples: leave the "
            "batch out, or add a format of TFLite"
        )


def _tell_batch(model: keras.Model, batch: Batch) -> None:
    own = own_batch(model)
    if own is not None and batch not in (own, DEFAULT_BATCH):
        warnings.warn(
            f"export: model '{model.name}' takes {own} examples at once, so its TFLite files keep "
            f"batch {own} and not {batch!r}: build it with keras.Input(shape) to choose another",
            stacklevel=3,
        )


def _check_name(name: str) -> None:
    if not name.strip(".") or Path(name).name != name or not is_inside(name):
        raise UsageError(f"name is {name!r}: give a file name without directories or colons")
    if not name.isprintable():
        raise UsageError(f"name is {name!r}: give one of letters that can be printed")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise UsageError(
            f"name has {len(os.fsencode(name))} bytes: give one of {_LONGEST_NAME} at most"
        )


def _kept(model: keras.Model) -> Settings | None:
    """The losses and metrics that the `.keras` file keeps; a warning where it cannot."""
    settings, lost = kept_by_file(model)
    if lost:
        warnings.warn(
            f"export: {lost}, which model '{model.name}' is compiled with, does not come back from "
            "a Keras file: the file keeps no losses and metrics, so give the task again later",
            stacklevel=3,
        )
    return settings


def _labels(model: keras.Model, labels: Sequence[str] | None) -> tuple[str, ...]:
    named = tuple(str(label) for label in labels or ())
    if any("\n" in label or not label.strip() for label in named):
        raise UsageError("a label is empty or has several lines: give one line for each class")
    if not named:
        return ()
    sigmoids = sigmoid_outputs(model)
    sizes = {
        name: 2 if y.shape[-1] == 1 and name in sigmoids else y.shape[-1]
        for name, y in zip(tensor_names(model)[1], model.outputs, strict=True)
    }
    fitting = [name for name, size in sizes.items() if size == len(named)]
    if not fitting:
        found = " and ".join(map(str, sorted(set(sizes.values()), key=str)))
        raise UsageError(
            f"{len(named)} labels were given for a model with {found} outputs: "
            "give one for each class"
        )
    if len(fitting) > 1:
        raise UsageError(
            f"{len(named)} labels fit the outputs {', '.join(fitting)} alike: "
            "leave labels out, and tell what each output means elsewhere"
        )
    return named


def _proven(source: Source, format_name: str, partial: Path, wanted: _Wanted) -> Artifact:
    """The file of one format; what fails is its own fault, and not that of the folder."""
    try:
        return _write(source, format_name, partial, wanted)
    except UsageError:
        raise
    except TfpruneError as error:
        raise RefusedError(str(error)) from error


def _write(source: Source, format_name: str, partial: Path, wanted: _Wanted) -> Artifact:
    form = FORMATS[format_name]
    path = partial / f"{source.name}{form.suffix}"
    try:
        form.write(source, path)
    except (OSError, TfpruneError):
        raise
    # Layers without an export path raise anything.
    except Exception as error:
        raise TfpruneError(
            f"model '{source.model.name}' cannot be exported as {format_name} "
            f"({one_line(error)}): leave this format out, or replace what it cannot express"
        ) from error
    try:
        done = run_file(
            shared(_SANDBOX), path, wanted.feeds, modules=wanted.modules, timeout=_TIMEOUT_SECONDS
        )
    except TfpruneError as error:
        # The temporary path is gone when this is read.
        raise type(error)(str(error).replace(str(path), path.name)) from error
    tolerance = max(form.tolerance, wanted.least_tolerance)
    found = compare(form, format_name, done.values, wanted.outputs, tolerance, wanted.sigmoids)
    beside = [partial / f"{source.name}{suffix}" for suffix in form.companions]
    return Artifact(
        format=format_name,
        path=path,
        sha256=sha256(path),
        bytes_raw=raw_bytes(path),
        bytes_gzip=gzip_bytes(path),
        bytes_zstd=zstd_bytes(path),
        agreement=found.lowest.share,
        largest_difference=found.largest_difference,
        compared=min(len(x) for x in wanted.feeds.values()),
        compared_on=wanted.on,
        compared_as=found.lowest.compared_as,
        compared_output=found.output,
        mean_difference=found.lowest.mean_difference,
        off=found.lowest.off,
        correlation=found.lowest.correlation,
        inputs=_ordered(done.inputs, list(wanted.feeds)),
        outputs=_ordered(done.outputs, list(wanted.outputs)),
        versions={"tfprune": __version__}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
        companions=tuple(Companion(each.name, sha256(each), raw_bytes(each)) for each in beside),
        memory=form.memory(path) if form.memory else None,
    )


def _ordered(tensors: tuple[Tensor, ...], names: list[str]) -> tuple[Tensor, ...]:
    """Tensors in the model's order; files list them in orders of their own."""
    if len(tensors) == 1:
        return tensors
    return tuple(sorted(tensors, key=lambda each: names.index(each.name)))


def _finish(artifact: Artifact, directory: Path) -> Artifact:
    for each in artifact.companions:
        (artifact.path.parent / each.name).replace(directory / each.name)
    path = directory / artifact.path.name
    artifact.path.replace(path)
    return dataclasses.replace(artifact, path=path)
