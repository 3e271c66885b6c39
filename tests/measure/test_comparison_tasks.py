"""Files of any task are measured by its figure, on data in any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from tests.data.forms import FORMS
from tfprune.artifacts import export
from tfprune.errors import UsageError
from tfprune.measure import FirstRun, comparison, measure_files
from tfprune.tasks import TaskSpec

RNG = np.random.default_rng(0)
LEFT, RIGHT = RNG.normal(size=(60, 5)).astype(np.float32), RNG.normal(size=(60, 2))
NUMBERS, CLASSES = RNG.normal(size=(60, 2)).astype(np.float32), RNG.integers(0, 3, 60)
INPUTS = {"left": LEFT, "right": RIGHT}
TARGETS = {"where": NUMBERS, "what": CLASSES}
# Speed and memory are tested elsewhere, and take processes of their own.
TIMES = {
    "median_ms": 1.0,
    "p10_ms": 1.0,
    "p90_ms": 1.0,
    "runs": 1,
    "threads": 1,
    "delegate": "none",
}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the processes were asked to run."""
    asked: dict[str, Any] = {}

    def first_runs(paths: list[Path], input_shape: Any, **_: Any) -> list[FirstRun]:
        asked["shape"] = input_shape
        return [FirstRun(1, 1)] * len(paths)

    def time_files(files: dict[str, Path], example: Any, **_: Any) -> pd.DataFrame:
        asked["example"] = example
        return pd.DataFrame([TIMES] * len(files))

    monkeypatch.setattr(comparison, "first_runs", first_runs)
    monkeypatch.setattr(comparison, "time_files", time_files)
    return asked


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    left, right = keras.Input((5,), name="left"), keras.Input((2,), name="right")
    x = keras.layers.Concatenate()([left, right])
    where = keras.layers.Dense(2, name="where")(x)
    what = keras.layers.Dense(3, "softmax", name="what")(x)
    model = keras.Model([left, right], {"where": where, "what": what})
    model.compile(
        "adam",
        {"where": "mse", "what": "sparse_categorical_crossentropy"},
        metrics={"where": ["mae"], "what": ["accuracy"]},
    )
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two")
    return [each.path for each in export(net(), folder, ["keras", "tflite"], INPUTS)]


SPEC = TaskSpec(figure="where/mae", better="lower")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_gives_the_same_figures(
    files: list[Path], asked: dict[str, Any], form: str
) -> None:
    if form == "data set":
        data: Any = FORMS[form](INPUTS, TARGETS).train
    else:
        data = FORMS[form](INPUTS, TARGETS)
    table = measure_files(files, data, task=SPEC, baseline=files[0])
    assert asked["shape"] == {"left": (5,), "right": (2,)}
    np.testing.assert_array_equal(asked["example"]["left"], LEFT[0])
    figure = table.attrs["figure"]
    assert (figure.better, "accuracy" in table) == ("lower", False)
    model = net()
    wanted = model.evaluate(INPUTS, TARGETS, verbose=0, return_dict=True)
    for row in table.to_dict("records"):
        assert row[figure.name] == pytest.approx(wanted["where_mae"], rel=1e-4)
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
    first, second = table.to_dict("records")
    assert first[f"{figure.name}_difference"] == 0
    assert second[f"{figure.name}_difference"] == second[figure.name] - first[figure.name]


def regression(loss: str | None, folder: Path) -> list[Path]:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    if loss:
        model.compile("sgd", loss, metrics=["mae"])
    return [each.path for each in export(model, folder, ["keras", "tflite"], LEFT)]


def test_a_keras_file_tells_the_task_of_the_others(tmp_path: Path, asked: dict[str, Any]) -> None:
    files = regression("mse", tmp_path)
    table = measure_files(files[::-1], (LEFT, NUMBERS))
    assert asked["shape"] == (5,)
    kept, plain = table["mae"]
    assert kept == pytest.approx(plain, rel=1e-5)
    weights = np.arange(60.0)
    weighted = measure_files(files, (LEFT, NUMBERS, weights))
    assert weighted["loss"][0] != pytest.approx(table["loss"][0], rel=1e-3)


@pytest.mark.slow
@pytest.mark.reliability("your own task", "refused")
def test_files_of_several_tasks_need_one(tmp_path: Path) -> None:
    files = [*regression("mse", tmp_path / "a"), *regression(None, tmp_path / "b")]
    by_mse = tmp_path / "c"
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    model.compile("sgd", "mae", metrics=["mse"])
    (other,) = export(model, by_mse, "keras", LEFT)
    with pytest.raises(UsageError, match="the files are of several tasks"):
        measure_files([files[0], other.path], (LEFT, NUMBERS))
    spec = TaskSpec(kind="regression", figure="mae")
    assert (
        measure_files([files[0], other.path, *files[2:]], (LEFT, NUMBERS), task=spec).shape[0] == 4
    )


@pytest.mark.reliability("your own data", "refused")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (INPUTS, "data has no targets to measure with"),
        (({"left": LEFT[:0], "right": RIGHT[:0]}, CLASSES[:0]), "data has no examples"),
        (FORMS["tf.data"](INPUTS, TARGETS).repeat(), "does not come to an end"),
    ],
)
def test_data_that_cannot_be_measured_on_is_one_line(
    files: list[Path], data: Any, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        measure_files(files, data)
