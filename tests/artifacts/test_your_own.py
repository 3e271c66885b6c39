"""Export of models of any task, with data in any form."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.artifacts.small import names, one_line
from tests.data.forms import FORMS
from tfprune.artifacts import export
from tfprune.artifacts.examples import by_input, compared
from tfprune.errors import UsageError
from tfprune.formats import load
from tfprune.model.compiled import kept_by_file

RNG = np.random.default_rng(0)
PARTS = {
    "left": RNG.uniform(0, 255, (60, 6, 6, 1)).astype(np.float32),
    "right": RNG.uniform(0, 255, (60, 4)).astype(np.float32),
}
LABELS = {"what": RNG.integers(0, 4, 60), "how": RNG.normal(size=(60, 2))}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_is_fed_alike(several: keras.Model, form: str) -> None:
    feeds = by_input(several, FORMS[form](PARTS, LABELS))
    assert list(feeds) == ["left", "right"]
    for name, values in feeds.items():
        np.testing.assert_array_equal(values, PARTS[name])
    if form not in ("split", "stream", "data set"):
        for name, values in by_input(several, FORMS[form](PARTS)).items():
            np.testing.assert_array_equal(values, PARTS[name])


@pytest.mark.slow
def test_every_form_of_the_same_data_calibrates_the_same_bytes(
    several: keras.Model, tmp_path: Path
) -> None:
    hashes = set()
    for form in ("arrays", "tf.data"):
        given, other = FORMS[form](PARTS, LABELS), FORMS["generator"](PARTS)
        (artifact,) = export(several, tmp_path / form, "tflite-int8", given, comparison_data=other)
        assert (artifact.compared, artifact.compared_on) == (60, "given")
        hashes.add(artifact.sha256)
    assert len(hashes) == 1


def test_streams_calibrate_and_compare_with_as_many_as_arrays() -> None:
    """1,024 examples are enough for 500 that calibrate and 256 others."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    endless = (np.full((8, 1), index) for index in iter(int, 1))
    feeds = by_input(model, endless)
    assert {len(values) for values in feeds.values()} == {1024}
    assert {len(values) for values in compared(model, feeds).values()} == {256}
    whole = by_input(model, np.zeros((5000, 1)))
    assert {len(values) for values in whole.values()} == {5000}


# Labels


def two_heads(*sizes: int) -> keras.Model:
    x = keras.Input((3,))
    ends = {
        f"head{place}": keras.layers.Dense(size, name=f"head{place}")(x)
        for place, size in enumerate(sizes)
    }
    return keras.Model(x, ends)


def test_labels_belong_to_the_output_that_has_so_many(tmp_path: Path) -> None:
    (artifact,) = export(two_heads(3, 2), tmp_path, "keras", labels=["a", "b", "c"])
    assert artifact.labels == ("a", "b", "c")
    with pytest.raises(UsageError) as error:
        export(two_heads(3, 3), tmp_path, "keras", labels=["a", "b", "c"])
    assert "3 labels fit the outputs head0, head1 alike" in one_line(error)
    with pytest.raises(UsageError) as error:
        export(two_heads(4, 2), tmp_path, "keras", labels=["a", "b", "c"])
    assert "for a model with 2 and 4 outputs" in one_line(error)


def test_a_single_sigmoid_has_two_classes(tmp_path: Path) -> None:
    for head, fits in (("sigmoid", True), ("linear", False)):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, head)])
        if fits:
            (artifact,) = export(model, tmp_path, "keras", labels=["no", "yes"])
            assert artifact.labels == ("no", "yes")
        else:
            with pytest.raises(UsageError):
                export(model, tmp_path, "keras", labels=["no", "yes"])


# The task of a file


def compiled(**settings: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="in")
    model = keras.Model(x, keras.layers.Dense(2, name="out")(x), name="net")
    if settings:
        model.compile("adam", **settings)
    return model


def my_loss(y: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y - y_pred))


class MyError(keras.losses.MeanSquaredError):
    """Registered nowhere."""


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PLAIN: list[dict[str, Any]] = [
    {"loss": CROSS_ENTROPY, "metrics": ["accuracy"]},
    {"loss": "sparse_categorical_crossentropy"},
    {"loss": CROSS_ENTROPY, "metrics": [keras.metrics.SparseCategoricalAccuracy("accuracy")]},
]
KEPT: list[dict[str, Any]] = [
    {"loss": "mse", "metrics": ["mae"]},
    {"loss": {"out": "mae"}, "loss_weights": {"out": 2.0}, "weighted_metrics": ["mse"]},
    {"loss": keras.losses.mean_squared_error, "metrics": [keras.metrics.mean_absolute_error]},
    {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2)},
    {"loss": CROSS_ENTROPY, "metrics": [keras.metrics.SparseTopKCategoricalAccuracy(1, "top")]},
    {"loss": "bce", "metrics": [keras.metrics.BinaryAccuracy("right", threshold=0.3)]},
]
LOST: list[tuple[dict[str, Any], str]] = [
    ({"loss": my_loss}, "my_loss"),
    ({"loss": MyError()}, "MyError"),
    ({"loss": "mse", "metrics": ["mae", my_loss]}, "my_loss"),
    # Keras' own, whose config forgets the delta.
    ({"loss": keras.losses.Huber(delta=3.0)}, "Huber"),
]


def export_keras(model: keras.Model, folder: Path) -> Path:
    (artifact,) = export(model, folder, "keras")
    assert artifact.model_sha256 == artifact.sha256
    return artifact.path


def test_plain_classification_keeps_nothing_and_the_same_bytes(tmp_path: Path) -> None:
    bare = export_keras(compiled(), tmp_path / "bare").read_bytes()
    for place, settings in enumerate(PLAIN):
        path = export_keras(compiled(**settings), tmp_path / str(place))
        assert path.read_bytes() == bare
        assert not keras.saving.load_model(path).compiled


@pytest.mark.parametrize("settings", KEPT)
def test_a_file_keeps_the_task_and_no_optimizer(settings: dict[str, Any], tmp_path: Path) -> None:
    model = compiled(**settings)
    x, y = RNG.normal(size=(8, 3)), np.eye(2)[RNG.integers(0, 2, 8)]
    if settings["loss"] is CROSS_ENTROPY:
        y = y.argmax(axis=1)
    model.fit(x, y, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        path = export_keras(model, tmp_path / "a")
        loaded = keras.saving.load_model(path)
    # The step and the learning rate: no slot of Adam.
    assert len(loaded.optimizer.variables) == 2
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5
    )
    # Again, from what was trained as from what was read, whatever Keras has counted since.
    again = export_keras(model, tmp_path / "b")
    assert again.read_bytes() == path.read_bytes()
    assert export_keras(loaded, tmp_path / "c").read_bytes() == path.read_bytes()
    assert load(path).format == "keras"


@pytest.mark.reliability("your own task", "warned")
@pytest.mark.parametrize(("settings", "name"), LOST)
def test_what_does_not_come_back_is_named_and_nothing_is_kept(
    settings: dict[str, Any], name: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=f"export: {name}, which model 'net' is compiled with"):
        path = export_keras(compiled(**settings), tmp_path)
    assert not keras.saving.load_model(path).compiled
    assert names(tmp_path) == ["model.keras"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # Other formats keep no losses anyway.
        export(compiled(**settings), tmp_path, "savedmodel")


def test_objects_of_the_kept_settings_are_new() -> None:
    metric = keras.metrics.RootMeanSquaredError(name="rmse")
    settings, lost = kept_by_file(compiled(loss="mse", metrics=[metric]))
    assert lost is None
    assert settings is not None
    assert settings.metrics[0] is not metric
    assert settings.metrics[0].name == "rmse"
