"""What int8 costs in each layer: each alone in int8, and each alone left in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfprune.artifacts.examples import COMPARED_IMAGES, by_input
from tfprune.data.adapting import Data
from tfprune.data.adapting import examples as read_examples
from tfprune.data.splits import Split, spread
from tfprune.errors import UsageError, check_package
from tfprune.formats import Feeds, Runtime, load
from tfprune.formats.recipes import FloatFile, Recipe, alone_recipe, integer_recipe, operators_of
from tfprune.formats.source import Source, finished
from tfprune.formats.tflite import run_by
from tfprune.formats.tflite_convert import calibrating, calibration_feeds, converted
from tfprune.formats.tflite_file import TFLiteFile
from tfprune.measure import evaluate
from tfprune.measure.evaluation import task_of
from tfprune.model.graph import named_layers
from tfprune.quantize import is_quantize_aware
from tfprune.tasks.spec import TaskSpec
from tfprune.tasks.task import Task
from tfprune.vocabulary import QUANTIZER

# More examples hardly change the order of layers.
EXAMPLES = 1_000


def precision(
    model: keras.Model,
    data: Data,
    representative_data: Data,
    *,
    task: Task | TaskSpec | None = None,
    examples: int = EXAMPLES,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Finds the layers that int8 hurts: each alone in int8, and each alone left in float32.

    Example:
        ```python
        table = tfprune.precision(model, (x, y), x[:500])
        worst = table["layer"][0]
        tfprune.export(model, "out", ["tflite-int8"], x[:500], keep={worst: "float32"})
        ```

    Layers whose operators TFLite fuses, such as a convolution with its BatchNorm and ReLU, are one
    row. It needs `pip install tfprune[quantizer]`.

    Args:
        model: A built Sequential or Functional model.
        data: Labelled examples that show what is lost, in any form that `tfprune.data.examples`
            takes, such as (x, y) or a split. To choose layers by them, take validation examples.
        representative_data: Training examples, which set the ranges of activations: as for
            `tfprune.export`.
        task: What the model is compared by; see `tfprune.measure.measure_files`.
        examples: How many of `data` are looked at, at most: evenly spread, or of batches the first.
        progress: Told after each layer how many are done, and how many there are.

    Returns:
        One row for each layer, the one that costs the most first, with columns
        layer: Its path; of fused ones the one with the most weights.
        fused: The paths of the others, joined by ", ".
        weights: How many constants its operators have.
        error: How far outputs are off when it alone is in int8: the mean difference over 256
            examples, as a share of the range of the float outputs; the largest of several outputs.
        alone: The figure of the task when it alone is in int8.
        kept: The figure when all but it is in int8.
        kept_error: As `error`, when all but it is in int8.
        The attributes `attrs["float32"]` and `attrs["int8"]` are the figures of the float file and
        of the file in int8 throughout, `attrs["int8_error"]` is the error of the latter, and
        `attrs["figure"]` is the figure.

    Raises:
        UsageError: Data, task and model do not fit each other, the model is quantization-aware, or
            ai-edge-quantizer is not installed.
        TfpruneError: TFLite has no operator for a layer.
    """
    check_package("precision of layers", QUANTIZER, "quantizer")
    if is_quantize_aware(model):
        raise UsageError(
            f"model '{model.name}' is quantization-aware, and its ranges are its own: give the "
            "float model"
        )
    if examples < 1:
        raise UsageError(f"examples is {examples}: give at least 1")
    some = data.sample(examples) if isinstance(data, Split) else read_examples(data, examples)
    if some.targets is None:
        raise UsageError("data has no targets to measure with: give (x, y), or batches of both")
    found = task if isinstance(task, Task) else task_of(load(model), task, some)
    feeds = by_input(model, representative_data)
    outputs = by_input(model, some.inputs, "data")
    with tempfile.TemporaryDirectory(prefix="tfprune-precision-") as scratch:
        source = Source(finished(model), "model", Path(scratch), feeds)
        content = converted(source, "float32")
    calibration = calibration_feeds(source)
    assert calibration is not None
    file = _Measured(
        FloatFile(content, calibrating(calibration, source.fixed_batch or 1)),
        lambda runtime: float(evaluate(runtime, some, found).value),
        {name: x[spread(len(x), COMPARED_IMAGES)] for name, x in outputs.items()},
        _run(content),
    )
    sizes = {each.name: each.weights for each in TFLiteFile(content).nodes()}
    rows: list[dict[str, Any]] = []
    layers = _fused(operators_of(content, source.model), named_layers(source.model))
    for place, (paths, names) in enumerate(layers, 1):
        alone, error = file.figures(alone_recipe(names))
        kept, kept_error = file.figures(integer_recipe(dict.fromkeys(names, "float32")))
        rows.append(
            {
                "layer": paths[0],
                "fused": ", ".join(paths[1:]),
                "weights": sum(sizes[name] for name in names),
                "error": error,
                "alone": alone,
                "kept": kept,
                "kept_error": kept_error,
            }
        )
        if progress is not None:
            progress(place, len(layers))
    table = pd.DataFrame(rows).sort_values("error", ascending=False, ignore_index=True)
    whole, whole_error = file.figures(integer_recipe())
    table.attrs = {
        "float32": file.figures(None)[0],
        "int8": whole,
        "int8_error": whole_error,
        "figure": found.figure,
    }
    return table


class _Measured:
    """Files that recipes make of one float file, against its own outputs."""

    def __init__(
        self,
        file: FloatFile,
        value: Callable[[Runtime], float],
        feeds: Feeds,
        original: Runtime,
    ) -> None:
        self._file, self._value, self._feeds = file, value, feeds
        self._original = original
        self._expected = original.run(feeds)

    def figures(self, recipe: Recipe | None) -> tuple[float, float]:
        """The figure of the task and the error of the outputs; of the float file for None."""
        if recipe is None:
            return self._value(self._original), 0.0
        runtime = _run(self._file.quantized(recipe))
        found = runtime.run(self._feeds)
        errors = [
            float(np.abs(found[name] - wanted).mean() / (np.ptp(wanted) or 1.0))
            for name, wanted in self._expected.items()
        ]
        return self._value(runtime), max(errors)


def _run(content: bytes) -> Runtime:
    return run_by(Path("model.tflite"), content, 1)


def _fused(
    operators: Mapping[str, list[str]], layers: Mapping[str, keras.Layer]
) -> list[tuple[list[str], list[str]]]:
    """Layers that share an operator, those with the most weights first, with all operators."""
    groups: list[tuple[list[str], list[str]]] = []
    for path, names in operators.items():
        shared = [each for each in groups if set(each[1]) & set(names)]
        paths = [path for each in shared for path in each[0]] + [path]
        joined = dict.fromkeys([name for each in shared for name in each[1]] + names)
        groups = [each for each in groups if each not in shared] + [(paths, list(joined))]
    for paths, _ in groups:
        paths.sort(key=lambda path: -layers[path].count_params())
    return groups
