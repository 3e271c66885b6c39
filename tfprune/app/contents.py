"""A run as the application shows it: its files, loaded and ready, and the examples they answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfprune import figures
from tfprune.data.splits import Dataset, Examples, leaves
from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import Figure
from tfprune.formats import Runtime, load
from tfprune.measure.agreement import are_probabilities
from tfprune.pipeline import Pipeline
from tfprune.pipeline.inputs import load_data
from tfprune.report import comparison, layer_sparsity, read_run
from tfprune.report.html import layers
from tfprune.report.html.tradeoff import pareto_front
from tfprune.report.run import Run

# One call takes microseconds to milliseconds; the median of some is steady.
_CALLS = 5
# An image is drawn on paper whose colour is that of the images' own border.
_BRIGHT = 128
# Around what was drawn, as a share of its longer side.
_MARGIN = 0.15


@dataclass(frozen=True)
class File:
    """An exported file of a variant, loaded.

    Attributes:
        variant: whose file it is.
        format: of the file.
        path: where it lies.
        row: its figures, as `tfprune.report.comparison` has them.
        runtime: what runs it.
    """

    variant: str
    format: str
    path: Path
    row: pd.Series = field(repr=False)
    runtime: Runtime = field(repr=False)

    @property
    def title(self) -> str:
        """The variant and the format, such as `dense, tflite-int8`."""
        return f"{self.variant}, {self.format}"


@dataclass(frozen=True)
class Answer:
    """What a file answers to one example.

    Attributes:
        file: whose answer it is.
        outputs: what the file gives, shape (values,): all outputs one after the other.
        text: the answer: the name of a class, or numbers.
        confidence: the probability of the class, 0 to 1; None where the answer is no class.
        milliseconds: of one example, here and now: the median of a few calls, as `tfprune measure`
            times them; of a file with a larger batch its share.
        agrees: whether the class is that of the first variant; None where the answer is no class.
    """

    file: File
    outputs: np.ndarray
    text: str
    confidence: float | None
    milliseconds: float
    agrees: bool | None


@dataclass(frozen=True)
class Difference:
    """A test example that some variant answers otherwise than the first one.

    Attributes:
        number: of the example in the test split, from 0.
        truth: the name of its class; empty where it is not known.
        answers: the class by the title of each file that answers otherwise.
        expected: the class that the first variant answers.
    """

    number: int
    truth: str
    answers: dict[str, str]
    expected: str


class Contents:
    """All that the application shows of a run.

    Example:
        ```python
        contents = open_run(Path("saved_models/digits"))
        contents.answers(contents.examples.inputs[0])
        ```

    Args:
        run: the run.
        seed: whose files are shown.
        dataset: of the run.
        files: that are shown; the first one is what others are compared with.
        left_out: why other files are not shown, by their titles.
        limit: how many test examples are looked at.
    """

    def __init__(
        self,
        run: Run,
        seed: int,
        dataset: Dataset,
        files: Sequence[File],
        left_out: dict[str, str],
        limit: int,
    ) -> None:
        self.run = run
        self.seed = seed
        self.dataset = dataset
        self.files = tuple(files)
        self.left_out = left_out
        self.examples: Examples = dataset.test.sample(limit)

    def showing(self, files: Sequence[File], left_out: dict[str, str]) -> Contents:
        """The same run and examples with some of the files.

        Args:
            files: that are shown.
            left_out: why the others are not, by their titles.
        """
        return Contents(self.run, self.seed, self.dataset, files, left_out, len(self.examples))

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.run.record["name"])

    @property
    def figure(self) -> Figure:
        """What the run is compared by."""
        return self.run.figure

    @cached_property
    def is_classification(self) -> bool:
        """Whether a file answers one class for an example."""
        first = self.files[0].runtime
        outputs = first.outputs
        return bool(self.dataset.classes) and len(outputs) == 1 and len(outputs[0].shape) == 2

    @cached_property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of the images; None where the inputs are not images."""
        try:
            shape = self.dataset.image_shape
        except UsageError:
            return None
        return shape if shape[2] in (1, 3) else None

    @cached_property
    def is_bright(self) -> bool:
        """Whether the images have a bright background, such as paper."""
        images = np.asarray(self.examples.inputs, float)
        border = np.concatenate(
            [images[:, 0].ravel(), images[:, -1].ravel(), images[:, :, 0].ravel()]
        )
        return bool(border.mean() >= _BRIGHT)

    # -- answers --------------------------------------------------------------------------------

    def answers(self, example: np.ndarray | dict[str, np.ndarray]) -> list[Answer]:
        """What every file answers to one example, and in what time.

        Args:
            example: one example of the data, without the batch: pixels 0 to 255 of the shape
                `image_shape`, or arrays by the names of the inputs.
        """
        found = []
        for file in self.files:
            runtime = file.runtime
            feeds = runtime.named(_batch_of_one(example))
            outputs = runtime.run(feeds, 1)
            # Feeding and collecting batches takes a hundred times what a small file does.
            call = runtime.one(example)
            call()
            times = []
            for _ in range(_CALLS):
                begun = time.perf_counter()
                call()
                times.append((time.perf_counter() - begun) / (runtime.fixed_batch or 1))
            values = np.concatenate([np.ravel(outputs[each.name]) for each in runtime.outputs])
            found.append((file, values, 1000 * statistics.median(times)))
        reference = int(found[0][1].argmax())
        return [
            Answer(
                file,
                values,
                self._text(values),
                float(probabilities(values)[values.argmax()]) if self.is_classification else None,
                milliseconds,
                int(values.argmax()) == reference if self.is_classification else None,
            )
            for file, values, milliseconds in found
        ]

    def _text(self, values: np.ndarray) -> str:
        if self.is_classification:
            return self.dataset.classes[int(values.argmax())]
        shown = ", ".join(f"{value:.4g}" for value in values[:8])
        return shown if len(values) <= 8 else f"{shown}, … ({len(values):,} numbers)"

    @cached_property
    def truth(self) -> tuple[str, ...]:
        """The name of the class of each test example; empty where it is not known."""
        targets = self.examples.targets
        if not self.is_classification or targets is None:
            return ()
        numbers = np.asarray(targets)
        if numbers.ndim > 1:
            numbers = numbers.argmax(-1)
        return tuple(self.dataset.classes[int(number)] for number in numbers)

    @cached_property
    def classes(self) -> dict[str, np.ndarray]:
        """The class numbers that each file answers to the test examples, by the file's title."""
        if not self.is_classification:
            return {}
        return {
            file.title: file.runtime.predict(np.asarray(self.examples.inputs)).argmax(-1)
            for file in self.files
        }

    @cached_property
    def differences(self) -> list[Difference]:
        """The test examples whose class is not the same for all files, those with most first."""
        if not self.is_classification:
            return []
        names = self.dataset.classes
        first = self.files[0].title
        found = []
        for number, expected in enumerate(self.classes[first]):
            others = {
                title: names[int(given[number])]
                for title, given in self.classes.items()
                if given[number] != expected
            }
            if others:
                known = self.truth[number] if self.truth else ""
                found.append(Difference(number, known, others, names[int(expected)]))
        return sorted(found, key=lambda each: -len(each.answers))

    # -- images ---------------------------------------------------------------------------------

    def photo(self, image: np.ndarray) -> np.ndarray:
        """An image of any size as the data have them.

        Args:
            image: uint8 (height, width), or with 1, 3 or 4 channels.

        Returns:
            uint8 of `image_shape`, resized as the data are.
        """
        from tfprune.data.image_files import resize

        assert self.image_shape is not None
        height, width, channels = self.image_shape
        image = _with_channels(image, channels)
        resized: np.ndarray = resize(image, (height, width)).numpy()
        return resized

    def drawing(self, ink: np.ndarray) -> np.ndarray:
        """What was drawn as the data have it: cut out, centred, on paper of the data's colour.

        Args:
            ink: (height, width), 0 where nothing was drawn and 255 where all is ink.

        Returns:
            uint8 of `image_shape`.
        """
        assert self.image_shape is not None
        rows, columns = np.nonzero(ink > 25)
        if len(rows):
            part = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            size = int(max(part.shape) * (1 + 2 * _MARGIN))
            square = np.zeros((size, size), np.uint8)
            top, left = (size - part.shape[0]) // 2, (size - part.shape[1]) // 2
            square[top : top + part.shape[0], left : left + part.shape[1]] = part
        else:
            square = np.zeros_like(ink, np.uint8)
        return self.photo(255 - square if self.is_bright else square)

    # -- figures --------------------------------------------------------------------------------

    @cached_property
    def costs(self) -> tuple[Figure, ...]:
        """The costs that a front can be walked in."""
        known = [figures.figure(name, self.figure) for name in ("bytes", *figures.COSTS)]
        return tuple(
            each
            for each in known
            if any(np.isfinite(float(file.row[each.name] or np.nan)) for file in self.files)
        )

    def front(self, cost: Figure) -> list[File]:
        """The files that no other one beats in both the compared figure and a cost.

        Args:
            cost: one of `costs`.

        Returns:
            The cheapest first.
        """
        price = np.array([file.row[cost.name] for file in self.files], float)
        value = np.array([self.figure.gain(file.row[self.figure.name]) for file in self.files])
        members = np.flatnonzero(pareto_front(price, value))
        return [self.files[place] for place in members[np.argsort(price[members], kind="stable")]]

    @cached_property
    def pictures(self) -> dict[str, str]:
        """An SVG of the layers of each variant: the weights and the channels that are left."""
        table = layer_sparsity(self.run)
        shown = layers.densities(table)
        return {
            str(variant): layers.bars(shown, str(variant), f"layers-{place}")
            for place, variant in enumerate(shown["variant"].unique())
        }


def open_run(
    directory: Path,
    *,
    seed: int | None = None,
    formats: Sequence[str] = (),
    limit: int = 200,
    data_dir: str | None = None,
) -> Contents:
    """Loads a run for the application: its data, and its files in their runtimes.

    Args:
        directory: of the run.
        seed: whose files are shown; the first one of the run if not given.
        formats: that are shown; all if none is given.
        limit: how many test examples are looked at.
        data_dir: where tensorflow-datasets keeps its sets.

    Raises:
        UsageError: the run has no such seed or format.
        TfpruneError: it is not a run, no file of it can be loaded, or its data are missing.
    """
    run = read_run(directory)
    table = comparison(run)
    seeds = list(dict.fromkeys(int(each) for each in table["seed"]))
    if seed is not None and seed not in seeds:
        raise UsageError(f"seed {seed} is not in {directory}: choose one of {seeds}")
    seed = seeds[0] if seed is None else seed
    table = table[table["seed"] == seed]
    there = list(dict.fromkeys(table["artifact"]))
    for name in formats:
        if name not in there:
            raise UsageError(f"{directory} has no {name}: choose one of {', '.join(there)}")
    pipeline = Pipeline.model_validate(run.record["pipeline"])
    dataset = load_data(pipeline.data, data_dir)
    rows = {(row["variant"], row["artifact"]): row for _, row in table.iterrows()}
    files, left_out = [], {}
    for delivery in run.deliveries:
        if delivery.seed != seed:
            continue
        for artifact in delivery.record["artifacts"]:
            variant, form = delivery.variant, artifact["format"]
            if formats and form not in formats:
                continue
            path = delivery.folder / artifact["path"]
            try:
                runtime = load(path)
            except TfpruneError as error:
                left_out[f"{variant}, {form}"] = str(error)
                continue
            files.append(File(variant, form, path, rows[variant, form], runtime))
    if not files:
        said = next(iter(left_out.values()), "it delivers none")
        raise TfpruneError(f"{directory} has no file that can be run here: {said}")
    return Contents(run, seed, dataset, files, left_out, limit)


def probabilities(values: np.ndarray) -> np.ndarray:
    """Outputs of one example as probabilities: as they are, or the softmax of logits.

    Args:
        values: shape (classes,).
    """
    # Rounded to 8 bits they may sum to a little more or less.
    if are_probabilities(values[None], tolerance=0.05):
        return values
    shifted = np.exp(values - values.max())
    share: np.ndarray = shifted / shifted.sum()
    return share


def _batch_of_one(
    example: np.ndarray | dict[str, np.ndarray],
) -> np.ndarray | dict[str, np.ndarray]:
    if isinstance(example, dict):
        return {name: np.asarray(value)[None] for name, value in example.items()}
    return np.asarray(example)[None]


def example_at(examples: Examples, number: int) -> Any:
    """One example without its batch, by its number."""
    inputs = examples.inputs
    if isinstance(inputs, dict):
        return {name: np.asarray(value)[number] for name, value in inputs.items()}
    (only,) = leaves(inputs)
    return np.asarray(only)[number]


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    image = np.atleast_3d(np.asarray(image, np.uint8))
    if image.shape[2] == 4:
        # What is transparent shows white paper.
        share = image[..., 3:] / 255
        image = (image[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)
    if channels == 1 and image.shape[2] == 3:
        # Rec. 601, as Pillow and TensorFlow turn colours into grey.
        grey = image @ np.array([0.299, 0.587, 0.114])
        return grey.round().astype(np.uint8)[..., None]
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image
