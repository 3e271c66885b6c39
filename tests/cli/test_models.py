"""Each command takes each kind of model, and what cannot be one is one line before any work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result
from keras import layers

import tfprune
from tfprune import functions
from tfprune.cli import main

SOURCE = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def build(input_shape, classes, width=4):
    x = inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(width, 3, activation="relu", name="conv")(Twice()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes)(x), name="mine")

def opened(width=4):
    x = inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(width, 3, name="conv")(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))

def fails(width=1):
    raise ValueError("no such width")

def nothing():
    pass
"""
DIGITS = ["--data", "digits"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Names of functions in a file that is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    Path("nets_of_mine.py").write_text(SOURCE)
    known = dict(keras.saving.get_custom_objects())
    yield lambda function: f"nets_of_mine.py:{function}"
    objects = keras.saving.get_custom_objects()
    objects.clear()
    objects.update(known)
    for module in ("nets_of_mine", "first_nets"):
        functions.imported_files().pop(module, None)
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("written")
def test_a_model_of_a_function_goes_all_the_way() -> None:
    # The process that tries exports keeps what it imported: a name is one file's.
    Path("nets_of_mine.py").rename("first_nets.py")
    short = ["--epochs", "1", "--batch-size", "512"]
    steps = (
        [
            "train",
            "first_nets.py:build",
            *DIGITS,
            *short,
            "--option",
            "width=8",
            "-o",
            "dense.keras",
        ],
        ["slim", "dense.keras", "--filters", "0.5", "-o", "slim.keras"],
        ["export", "slim.keras", "-f", "keras", "-o", "out"],
    )
    for arguments in steps:
        # The file of the function brings the layer `Twice`, in this process and in the next.
        result = run(*arguments, "--import", "first_nets.py")
        assert result.exit_code == 0, result.output
    dense, slim = (tfprune.load(name) for name in ("dense.keras", "out/model.keras"))
    assert dense.input_shape == (None, 8, 8, 1)
    assert [net.get_layer("conv").filters for net in (dense, slim)] == [8, 4]


KINDS = {
    "function": (lambda name: [name("opened"), "--option", "width=4"]),
    "zoo": (lambda _: ["VGG", "--option", "width=2", "--option", "classes=10"]),
    "application": (
        lambda _: [
            *["mobilenetv2", "--option", "classes=3", "--option", "weights='random'"],
            *["--option", "alpha=0.35"],
        ]
    ),
    "keras": (lambda _: ["net.keras"]),
    "h5": (lambda _: ["net.h5"]),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("kind", KINDS)
def test_inspect_takes_each_kind_and_sizes_that_are_open(written, kind: str) -> None:
    if kind in ("keras", "h5"):
        x = keras.Input((None, None, 1))
        net = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))
        net.save(f"net.{kind}")
    size = (32, 32, 3) if kind == "application" else (32, 32, 1)
    shape = "x".join(map(str, size))
    result = run("inspect", *KINDS[kind](written), "--input-shape", shape, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["macs"] > 0


@pytest.mark.slow
def test_slim_and_export_close_open_sizes(written) -> None:
    target = ["--filters", "0.5", "--input-shape", "8x8x1", "-o", "slim.keras"]
    result = run("slim", written("opened"), *target)
    assert result.exit_code == 0, result.output
    assert tfprune.load("slim.keras").input_shape == (None, 8, 8, 1)
    target = ["--filters", "0.5", *DIGITS, "-o", "open.keras"]
    assert run("slim", written("opened"), *target).exit_code == 0
    assert tfprune.load("open.keras").input_shape == (None, None, None, 1)
    taken = run("export", "open.keras", "-f", "tflite", "--input-shape", "8x8x1", "-o", "out")
    assert taken.exit_code == 0, taken.output
    (file,) = Path("out").glob("*.tflite")
    assert tfprune.formats.load(file).input_shape == (8, 8, 1)


ERRORS = {
    "missing file": (["none.py:build"], "none.py does not exist"),
    "missing function": (["nets_of_mine.py:buidl"], "has no function 'buidl': did you mean"),
    "missing argument": (["nets_of_mine.py:build"], "needs input_shape and classes: give --option"),
    "unknown option": (
        ["nets_of_mine.py:opened", "--option", "widht=3"],
        "unknown option 'widht' of nets_of_mine.py:opened: did you mean 'width'?",
    ),
    "no model": (["nets_of_mine.py:nothing"], "returns nothing: let it return a Keras model"),
    "error": (["nets_of_mine.py:fails"], "raises ValueError (no such width) in line 20: correct"),
    "no name": (["mobilnetv2"], "unknown model 'mobilnetv2': did you mean 'MobileNetV2'?"),
    "no shape": (["vgg"], "vgg needs input_shape: give data, or the shape of an image"),
    "bad shape": (["vgg", "--input-shape", "8x"], "'8x' is not a shape such as 224x224x3"),
    "shape twice": (
        ["vgg", "--input-shape", "8x8x1", "--input-shape", "9x9x1"],
        "'9x9x1' comes twice",
    ),
    "another shape": (
        ["nets_of_mine.py:opened", "--input-shape", "8x8x3"],
        "input_shape (8, 8, 3) does not fit input",
    ),
}


@pytest.mark.parametrize("command", ["inspect", "export"])
@pytest.mark.parametrize("case", ERRORS)
def test_what_is_no_model_is_one_line(written, case: str, command: str) -> None:
    arguments, message = ERRORS[case]
    where = ["-o", "out"] if command == "export" else []
    result = run(command, *arguments, *where)
    assert result.exit_code == (1 if case in ("missing file", "error") else 2)
    assert message in result.stderr.strip().splitlines()[-1]
    assert result.stdout == ""


def test_data_tell_a_function_its_shape_and_classes(written) -> None:
    result = run("inspect", written("build"), *DIGITS, "--json")
    assert result.exit_code == 0, result.output
    # A 3x3 kernel at 6x6 positions, and 4 features to 10 logits.
    assert json.loads(result.stdout)["macs"] == 36 * 9 * 4 + 40


def test_two_inputs_and_outputs_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two_of_mine.py").write_text(
        """
import keras
import numpy as np

def examples(count=60):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(count, 4)), rng.normal(size=(count, 2))
    return (
        {"left": left, "right": right},
        {"sign": (left[:, 0] > 0).astype(int), "sum": right.sum(axis=1)},
    )

def net():
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    x = keras.layers.Concatenate()([left, right])
    sizes = {"sign": 2, "sum": 1}
    ends = {name: keras.layers.Dense(size, name=name)(x) for name, size in sizes.items()}
    return keras.Model({"left": left, "right": right}, ends)
"""
    )
    Path("task.toml").write_text(
        'kind = { sign = "classification", sum = "regression" }\nfigure = "sum/mae"'
    )
    found = run(
        "train",
        "two_of_mine.py:net",
        *("--data", "two_of_mine.py:examples", "--task", "task.toml", "--epochs", "1"),
        *("-o", "two.keras"),
    )
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("two.keras: validation MAE of sum ")
    assert "48 train" in found.stderr.splitlines()[0]
    sys.modules.pop("two_of_mine", None)
