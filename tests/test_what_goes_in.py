"""What the documents say goes in, goes in: each row of its table, from data to a measured file."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds
from click.testing import CliRunner
from PIL import Image

import tfprune
from tests.tables import slow
from tests.test_readme import ROOT, blocks, commands
from tfprune import data, formats, functions, measure
from tfprune.cli import main
from tfprune.data.checking import Options
from tfprune.data.sources.arrays import ArrayOptions
from tfprune.data.sources.folder import FolderOptions
from tfprune.data.sources.index import IndexOptions
from tfprune.tasks import metrics
from tfprune.tasks.spec import FIGURES, TaskSpec

COUNT = 80
MODULES = ("what_goes_in", "layers_that_go_in")
SOURCE = """
import keras
import numpy as np
from keras import layers

COUNT = 80


def _dark_and_bright(shape=(8, 8, 1)):
    labels = np.arange(COUNT) % 2
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, (COUNT, *shape)) + 120 * labels.reshape(-1, *[1] * len(shape))
    return pixels.astype(np.uint8), labels


def _numbers():
    x = np.random.default_rng(0).normal(size=(COUNT, 6)).astype(np.float32)
    return x, x.sum(axis=1)


def images(side=8):
    pixels, labels = _dark_and_bright((side, side, 1 if side == 8 else 3))
    return {"train": (pixels, labels), "classes": ["dark", "bright"]}


def kinds(kind):
    x, total = _numbers()
    return x, {
        "classification": (total > 0).astype(np.int64) + (total > 2),
        "binary": (total > 0).astype(np.float32),
        "multi-label": (x[:, :3] > 0).astype(np.float32),
        "regression": total,
    }[kind]


def maps():
    pixels, _ = _dark_and_bright()
    return pixels, (pixels[..., 0] > 110).astype(np.int64)


def two_ends():
    pixels, labels = _dark_and_bright()
    x, total = _numbers()
    return {"photo": pixels, "numbers": x}, {"sign": labels, "angle": total}


def net(input_shape, classes=2, width=8):
    x = inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(width, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="net")


def of_numbers(input_shape, outputs=1, activation=None):
    x = inputs = keras.Input(input_shape)
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(outputs, activation)(x), name="net")


def of_pixels():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(x))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x), name="net")


def of_two():
    photo, numbers = keras.Input((8, 8, 1), name="photo"), keras.Input((6,), name="numbers")
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(photo))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), numbers])
    x = layers.Dense(8, activation="relu")(x)
    outputs = {"sign": layers.Dense(2, name="sign")(x), "angle": layers.Dense(1, name="angle")(x)}
    return keras.Model({"photo": photo, "numbers": numbers}, outputs, name="net")


def open_net():
    return net((None, None, 1))


def pinball(true, predicted):
    difference = true - predicted
    return keras.ops.mean(keras.ops.maximum(0.8 * difference, -0.2 * difference), axis=-1)


def within_one(true, predicted):
    return keras.ops.mean(keras.ops.cast(keras.ops.abs(true - predicted) < 1, "float32"), axis=-1)
"""
LAYERS = """
import keras


@keras.saving.register_keras_serializable("what_goes_in")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""
DATA = ["--data", "what_goes_in.py:images"]
NET = "what_goes_in.py:net"


def run(*words: str) -> str:
    """The standard output of a command."""
    with warnings.catch_warnings():
        # After an epoch on few examples, a net may give one class for all.
        warnings.filterwarnings("ignore", "export: ")
        result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, f"{' '.join(words)}: {result.output}"
    return result.stdout


@dataclass(frozen=True)
class Case:
    """A row of the table, as a command line says it.

    Attributes:
        model: the model that is trained.
        data: options of each command that say what data it takes.
        options: of the command that trains.
        task: of the commands that compare.
        figure: what is compared.
        train: examples of the train split; None where a hash of names chooses them.
        before: makes what the row needs.
        after: checks the trained and the slim model.
    """

    model: str = NET
    data: list[str] = field(default_factory=lambda: DATA)
    options: list[str] = field(default_factory=list)
    task: list[str] = field(default_factory=list)
    figure: str = "accuracy"
    train: int | None = COUNT * 81 // 100
    before: Callable[[], None] = lambda: None
    after: Callable[[keras.Model, keras.Model], None] = lambda dense, small: None

    def goes_through(self) -> None:
        """Trains, slims, exports and measures."""
        self.before()
        given = [*self.data, *self.task]
        short = ["--epochs", "1", "--batch-size", "32", "--optimizer", "adam", "--learning-rate"]
        imports = [*self.options[at : at + 2]] if (at := self._imports()) is not None else []
        made = run("train", self.model, *given, *self.options, *short, "0.01", "-o", "dense.keras",
                   "--json")  # fmt: skip
        assert f"val_{self.figure}" in json.loads(made)["history"]
        run("slim", "dense.keras", "--filters", "0.5", *given, *imports, "-o", "slim.keras")
        run("export", "slim.keras", "-f", "keras", *self.data, *imports, "-o", "out")
        dense, small = tfprune.load("dense.keras"), tfprune.load("slim.keras")
        assert small.count_params() < dense.count_params()
        self.after(dense, small)
        loaded = self.loaded()
        assert self.train is None or len(loaded.train) == self.train
        measured = [
            measure.evaluate(formats.load(Path(file)), loaded.test, self.spec)
            for file in ("slim.keras", "out/model.keras")
        ]
        assert {each.figure for each in measured} == {self.figure}
        assert measured[0].value == measured[1].value
        assert measured[0].examples == len(loaded.test) > 0

    def loaded(self) -> data.Dataset:
        options = dict(zip(self.data[::2], self.data[1::2], strict=True))
        size = options.get("--image-size")
        named = [v for k, v in zip(self.data[::2], self.data[1::2], strict=True)
                 if k == "--data-option"]  # fmt: skip
        return data.load(
            options["--data"],
            options.get("--data-dir"),
            image_size=tuple(map(int, size.split("x"))) if size else None,
            options={key: json.loads(value) for key, _, value in (v.partition("=") for v in named)},
        )

    @property
    def spec(self) -> TaskSpec | None:
        return TaskSpec.read(self.task[1]) if self.task else None

    def _imports(self) -> int | None:
        return self.options.index("--import") if "--import" in self.options else None


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Images of two classes, the second brighter."""
    labels = np.arange(COUNT) % 2
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 100, (COUNT, 8, 8, 1)) + 120 * labels.reshape(-1, 1, 1, 1)
    return grey.astype(np.uint8), labels


def folder(name: str = "photos") -> None:
    for number, (image, label) in enumerate(zip(*pixels(), strict=True)):
        path = Path(name, ("dark", "bright")[label], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)


def index() -> None:
    folder()
    names = sorted(path.as_posix() for path in Path("photos").rglob("*.png"))
    table = pd.DataFrame({"photo": names, "label": [name.split("/")[1] for name in names]})
    table.to_csv("photos.csv", index=False)


def arrays() -> dict[str, np.ndarray]:
    x, y = pixels()
    return {"x_train": x[:64], "y_train": y[:64], "x_test": x[64:], "y_test": y[64:]}


def npy() -> None:
    Path("arrays").mkdir()
    for name, array in arrays().items():
        np.save(f"arrays/{name}.npy", array)


def prepared() -> None:
    """A set of tensorflow-datasets, as it prepares one."""

    class Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        def _info(self):
            keys = ("image", "label")
            return tfds.core.DatasetInfo(
                builder=self, features=self._feature_spec, supervised_keys=keys
            )

    images = [
        (str(number), {"image": image, "label": label})
        for number, (image, label) in enumerate(zip(*pixels(), strict=True))
    ]
    Builder(
        name="dark_and_bright",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["dark", "bright"]),
            }
        ),
        split_datasets={"train": images[:60], "test": images[60:]},
        data_dir="tfds",
    ).download_and_prepare()


def saved(suffix: str) -> Callable[[], None]:
    def save() -> None:
        layers = keras.layers
        net = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(6, 3, activation="relu", name="mine"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2),
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net.save(f"net{suffix}")

    return save


def custom() -> None:
    """A model in a file that holds a layer of one's own, which nothing here knows any more."""
    Path("layers_that_go_in.py").write_text(LAYERS)
    scope: dict[str, type] = {}
    exec(LAYERS, scope)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, activation="relu")(scope["Twice"]()(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(x))
    keras.Model(inputs, keras.layers.Dense(2)(x)).save("custom.keras")
    keras.saving.get_custom_objects().pop("what_goes_in>Twice", None)


def own_task() -> None:
    Path("own.toml").write_text(
        'loss = "what_goes_in.py:pinball"\nmetrics = ["what_goes_in.py:within_one"]\n'
        'figure = "within_one"\nbetter = "higher"\n'
    )


def two_task() -> None:
    Path("two.toml").write_text(
        '[task]\nkind = { sign = "classification", angle = "regression" }\nfigure = "angle/mae"\n'
    )


def has(kind: type) -> Callable[[keras.Model, keras.Model], None]:
    def check(dense: keras.Model, small: keras.Model) -> None:
        assert all(any(isinstance(layer, kind) for layer in m.layers) for m in (dense, small))

    return check


def called(name: str) -> Callable[[keras.Model, keras.Model], None]:
    def check(dense: keras.Model, small: keras.Model) -> None:
        assert dense.get_layer(name).filters == 2 * small.get_layer(name).filters

    return check


def twice(dense: keras.Model, small: keras.Model) -> None:
    names = [type(layer).__name__ for layer in small.layers]
    assert "Twice" in names


def takes(*shape: int) -> Callable[[keras.Model, keras.Model], None]:
    def check(dense: keras.Model, small: keras.Model) -> None:
        assert dense.input_shape == small.input_shape == (None, *shape)

    return check


def frozen_below(dense: keras.Model, small: keras.Model) -> None:
    # A kernel and a bias of two logits.
    assert [tuple(each.shape)[-1] for each in dense.trainable_variables] == [2, 2]


def of_kind(kind: str, outputs: int, activation: str | None, figure: str) -> Case:
    return Case(
        "what_goes_in.py:of_numbers",
        ["--data", "what_goes_in.py:kinds", "--data-option", f'kind="{kind}"'],
        ["--option", f"outputs={outputs}", "--option", f"activation='{activation or 'linear'}'"],
        ["--task", kind],
        figure,
    )


CASES = {
    "data: `digits`": Case(data=["--data", "digits"], train=1293),
    "data: `NAME`": Case(
        data=["--data", "dark_and_bright", "--data-dir", "tfds"], before=prepared, train=54
    ),
    "data: `FOLDER` of images": Case(data=["--data", "photos"], before=folder, train=None),
    "data: `FILE.npz`": Case(
        data=["--data", "images.npz"], before=lambda: np.savez("images.npz", **arrays()), train=57
    ),
    "data: `FOLDER` of `.npy` files": Case(data=["--data", "arrays"], before=npy, train=57),
    "data: `FILE.csv` or `FILE.toml`": Case(
        data=["--data", "photos.csv", "--data-option", 'inputs="photo"',
              "--data-option", 'targets="label"'],
        before=index, train=None,
    ),
    "data: `FILE.py:FUNCTION`": Case(),
    "model: `FILE.keras`": Case("net.keras", before=saved(".keras"), after=called("mine")),
    "model: `FILE.h5`": Case("net.h5", before=saved(".h5"), after=called("mine")),
    "model: `FILE.py:FUNCTION`": Case(options=["--option", "width=12"], after=takes(8, 8, 1)),
    "model: `vgg`, `resnet20`, `conv2`, …": Case(
        "vgg", options=["--option", "width=4", "--option", "blocks=[1]"],
        after=has(keras.layers.BatchNormalization),
    ),
    "model: `mobilenetv2`, `resnet50`, …": Case(
        "mobilenet",
        [*DATA, "--data-option", "side=32"],
        ["--option", "alpha=0.1", "--option", "weights='random'", "--option", "trainable='head'"],
        after=frozen_below,
    ),
    "model: `--import my_layers.py`": Case(
        "custom.keras", options=["--import", "layers_that_go_in.py"], before=custom, after=twice
    ),
    "model: `--input-shape 224x224x3`": Case(
        "what_goes_in.py:open_net", options=["--input-shape", "8x8x1"], after=takes(8, 8, 1)
    ),
    "task: `classification`": of_kind("classification", 3, None, "accuracy"),
    "task: `binary`": of_kind("binary", 1, "sigmoid", "accuracy"),
    "task: `multi-label`": of_kind("multi-label", 3, "sigmoid", "binary_accuracy"),
    "task: `segmentation`": Case(
        "what_goes_in.py:of_pixels", ["--data", "what_goes_in.py:maps"],
        task=["--task", "segmentation"], figure="mean_iou",
    ),
    "task: `regression`": of_kind("regression", 1, None, "mae"),
    "task: losses and metrics of your own": Case(
        "what_goes_in.py:of_numbers",
        ["--data", "what_goes_in.py:kinds", "--data-option", 'kind="regression"'],
        task=["--task", "own.toml"], figure="within_one", before=own_task,
    ),
    "task: several inputs and outputs": Case(
        "what_goes_in.py:of_two", ["--data", "what_goes_in.py:two_ends"],
        task=["--task", "two.toml"], figure="angle_mae", before=two_task,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder_of_functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the functions; what they register is forgotten afterwards.

    It is one for all rows: the process that tries exports keeps what it imported.
    """
    place = tmp_path_factory.mktemp("rows")
    (place / "what_goes_in.py").write_text(SOURCE)
    known = dict(keras.saving.get_custom_objects())
    yield place
    objects = keras.saving.get_custom_objects()
    objects.clear()
    objects.update(known)
    for module in MODULES:
        functions.imported_files().pop(module, None)
        sys.modules.pop(module, None)


@pytest.fixture
def place(folder_of_functions: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder_of_functions)
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", "cache")
    return folder_of_functions


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    text = "\n" + ROOT.joinpath(document).read_text()
    below = text.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", below, re.M)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_row_of_the_table_has_a_test():
    table = rows("docs/your-own.md", "# Your own data, model and task")
    assert [f"{what}: {written}" for what, written, _ in table] == list(CASES)


# A deep net, and rows that many other tests go through.
SLOW = (
    "data: `NAME`",
    "data: `FOLDER` of images",
    "data: `digits`",
    "model: `FILE.h5`",
    "model: `FILE.py:FUNCTION`",
    "model: `--input-shape 224x224x3`",
    "task: several inputs and outputs",
    "task: `binary`",
    "task: `regression`",
    "model: `FILE.keras`",
    "model: `vgg`, `resnet20`, `conv2`, …",
    "model: `mobilenetv2`, `resnet50`, …",
    "model: `--import my_layers.py`",
)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("row", [slow(row) if row in SLOW else row for row in CASES])
def test_what_the_table_says_goes_in(row):
    CASES[row].goes_through()


@pytest.mark.slow
def test_the_newcomers_three_lines(place, monkeypatch):
    folder("my_photos")
    block = next(
        block.text
        for block in blocks(ROOT.joinpath("docs/your-own.md").read_text())
        if block.language == "shell" and "my_photos" in block.text
    )
    lines = list(commands(block))
    assert [words[1] for words in lines] == ["train", "slim", "export"]
    for words in lines:
        run(*words[1:])
    assert (place / "out/model.int8.tflite").is_file()


@pytest.mark.parametrize(
    "heading, options",
    [
        ("### A folder of images", FolderOptions),
        ("### Files of arrays", ArrayOptions),
        ("### An index", IndexOptions),
    ],
)
def test_the_page_of_data_has_every_option(heading: str, options: type[Options]):
    named = [cell[0].strip("`") for cell in rows("docs/data.md", heading)]
    assert sorted(named) == sorted(options.model_fields)


def test_the_page_of_tasks_has_every_kind_key_and_metric():
    kinds = {row[0].strip("`"): row[-1].strip("`") for row in rows("docs/tasks.md", "## Kinds")}
    assert kinds == FIGURES
    keys = [row[0].strip("`") for row in rows("docs/tasks.md", "## The table `[task]`")]
    assert keys == list(TaskSpec.model_fields)
    by_direction = {
        row[0]: re.findall(r"`(\w+)`", row[1]) for row in rows("docs/tasks.md", "## Metrics")
    }
    for better in ("higher", "lower"):
        assert by_direction[better] == [row.name for row in metrics.METRICS if row.better == better]
