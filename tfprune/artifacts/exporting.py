"""Writes a model in several formats, and lists only what was loaded, run and compared."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfprune.artifacts.artifact import Artifact
from tfprune.artifacts.finish import finished, mixed_precision
from tfprune.artifacts.formats import FORMATS, Format, Source
from tfprune.artifacts.tflite import spread
from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.files import sha256
from tfprune.measure.accuracy import agreement
from tfprune.measure.interface import one_line
from tfprune.measure.runtime import load
from tfprune.measure.size import gzip_bytes, raw_bytes

# Largest difference of a float format, as a share of the Keras outputs' range.
FLOAT_TOLERANCE = 1e-3
# The same for a model in mixed precision: the files compute in float32, the model in 16 bits.
MIXED_TOLERANCE = 5e-2
# An int8 file is refused as broken only when it misses both: an untrained model's near ties
# change their order with a tiny difference, and one outlier means little while the order holds.
INT8_LEAST_AGREEMENT = 0.5
INT8_TOLERANCE = 0.1
COMPARED_IMAGES = 256


def export(
    model: keras.Model,
    directory: str | os.PathLike[str],
    formats: Sequence[str] = ("keras", "savedmodel", "tflite", "tflite-int8"),
    representative_data: np.ndarray | None = None,
    name: str = "model",
) -> list[Artifact]:
    """Exports a model for delivery, and proves every file by running it.

    Every file is written under a temporary name, loaded in a fresh runtime and compared with the
    Keras model on up to 256 of the representative images (or 256 random ones, pixels 0..255).
    Float formats must agree within 0.1 % of the outputs' range (5 % where the model computes in
    mixed precision: the files compute in float32). An int8 file is refused only when
    it is clearly broken: fewer than half of the images keep their class *and* some output is off
    by more than 10 % of the range; whether its accuracy is enough, measure on labelled images.
    Files get their final names, replacing older ones, after all formats passed; when one fails
    nothing has changed. The files carry no optimizer state and no tfprune object, and exporting
    the same weights again gives the same bytes.

    Args:
        model: A built Sequential or Functional model with one input and one output.
        directory: Where the files go; made when missing.
        formats: Any of `"keras"` (`model.keras`), `"savedmodel"` (`model.savedmodel.tar.gz`),
            `"tflite"` (`model.tflite`, float32, builtin operators only) and `"tflite-int8"`
            (`model.int8.tflite`, full integer, per-channel weights, int8 input and output).
        representative_data: Training images, pixels as the model takes them, shape
            `(n, h, w, c)`. int8 needs them: up to 500, evenly spread, set the activations' ranges.
        name: Stem of the files' names.

    Returns:
        One artifact a format, in the order asked for.

    Raises:
        UsageError: A format is unknown, data is missing or does not fit, or the model has not
            one input and one output.
        TfpruneError: A conversion failed, a file does not agree with the model, or the directory
            cannot be written.
    """
    chosen = _chosen(formats)
    if not name.strip(".") or Path(name).name != name:
        raise UsageError(f"name is {name!r}: give a file name without directories")
    model_runtime = load(model)
    copy = finished(model)
    images = _images(model_runtime.input_shape, chosen, representative_data)
    expected = model_runtime.predict(images)
    if not np.isfinite(expected).all():
        raise TfpruneError(
            f"model '{model.name}' gives NaN or infinite outputs: check its weights, "
            "or train again with a lower learning rate"
        )
    tolerance = MIXED_TOLERANCE if mixed_precision(model) else FLOAT_TOLERANCE
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
            (scratch := Path(partial, "scratch")).mkdir()
            data = None if representative_data is None else np.asarray(representative_data)
            source = Source(copy, name, scratch, data)
            artifacts = [
                _write(source, format_name, Path(partial), images, expected, tolerance)
                for format_name in chosen
            ]
            return [_finish(artifact, directory) for artifact in artifacts]
    except OSError as error:
        raise TfpruneError(
            f"{directory} cannot be written ({error.strerror or one_line(error)}): "
            "give a directory you can write to"
        ) from error


def _chosen(formats: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    if not chosen:
        raise UsageError(f"no format to export: give some of {', '.join(FORMATS)}")
    for name in chosen:
        if name not in FORMATS:
            raise UsageError(f"format {name!r} is unknown: {did_you_mean(str(name), FORMATS)}")
    return chosen


def _images(
    shape: tuple[int | None, ...], chosen: list[str], representative_data: np.ndarray | None
) -> np.ndarray:
    if representative_data is not None:
        data = np.asarray(representative_data)
        if data.dtype.kind not in "fiu" or not len(data) or not np.isfinite(data).all():
            raise UsageError(
                f"representative_data has shape {data.shape} and dtype {data.dtype}: "
                "give at least one image of finite numbers"
            )
        return spread(data, COMPARED_IMAGES)
    for name in chosen:
        if FORMATS[name].calibrated:
            raise UsageError(
                f"format {name!r} needs representative_data: give some hundred training images"
            )
    sizes = [size for size in shape if size is not None]
    if len(sizes) < len(shape):
        raise UsageError(
            f"the model takes images of any size {shape}: give representative_data to run it on"
        )
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (COMPARED_IMAGES, *sizes)).astype(np.float32)


def _write(
    source: Source,
    format_name: str,
    partial: Path,
    images: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
) -> Artifact:
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
        outputs = load(path).predict(images)
    except TfpruneError as error:
        # The temporary path is gone when somebody reads this.
        raise TfpruneError(str(error).replace(str(path), path.name)) from error
    share, difference = _compare(form, format_name, outputs, expected, tolerance)
    return Artifact(
        format=format_name,
        path=path,
        sha256=sha256(path),
        bytes_raw=raw_bytes(path),
        bytes_gzip=gzip_bytes(path),
        agreement=share,
        largest_difference=difference,
    )


def _compare(
    form: Format, format_name: str, outputs: np.ndarray, expected: np.ndarray, tolerance: float
) -> tuple[float, float]:
    if outputs.shape != expected.shape:
        raise TfpruneError(
            f"{format_name} gives outputs of shape {outputs.shape[1:]} instead of "
            f"{expected.shape[1:]}: leave this format out, and report the model's layers"
        )
    share, difference = agreement(outputs, expected)
    extent = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    off = difference / extent
    # A comparison with NaN is never true: say what passes, and refuse the rest.
    if form.exact:
        passes = off <= tolerance
    else:
        passes = off <= INT8_TOLERANCE or (np.isfinite(off) and share >= INT8_LEAST_AGREEMENT)
    if not passes:
        raise TfpruneError(
            f"{format_name} does not agree with the model (same class for {share:.1%} of images, "
            f"largest difference {off:.2%} of the outputs' range): "
            + ("leave this format out" if form.exact else "check the representative data")
        )
    return share, difference


def _finish(artifact: Artifact, directory: Path) -> Artifact:
    path = directory / artifact.path.name
    artifact.path.replace(path)
    return dataclasses.replace(artifact, path=path)
