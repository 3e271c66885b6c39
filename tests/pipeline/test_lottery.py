"""A lottery kept in a directory: stopped anywhere, it goes on to the same tickets."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import UsageError


def _model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    )


class Training:
    """Multiplies weights by what is always the same; counts its calls, and dies at one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls = 0
        self._dies_at = dies_at

    def __call__(self, model, callbacks):
        if self.calls == self._dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        return self.train(model, callbacks)

    def train(self, model, callbacks):
        rng = np.random.default_rng(0)
        model.set_weights([value * rng.normal(1, 1, value.shape) for value in model.get_weights()])
        return {"loss": [float(np.abs(model.get_weights()[0]).sum())]}


class Fit(Training):
    """Really trains, two epochs of two steps."""

    def train(self, model, callbacks):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(32, 6)).astype("float32"), rng.integers(0, 3, 32)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=True)
        return model.fit(x, y, 16, 2, verbose=0, shuffle=False, callbacks=callbacks)


OPTIONS = {"rounds": 2, "prune_rate": 0.5, "rewind": "lr", "controls": ["random"]}


def _same(one: list[tfprune.weights.Ticket], other: list[tfprune.weights.Ticket]) -> None:
    assert [(t.level, t.method, t.density, t.result) for t in one] == [
        (t.level, t.method, t.density, t.result) for t in other
    ]
    for mine, theirs in zip(one, other, strict=True):
        for a, b in zip(mine.masks.values(), theirs.masks.values(), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(mine.model.get_weights(), theirs.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dies_at", range(5))
def test_killed_between_levels_it_does_none_twice_and_gives_the_same(tmp_path, dies_at, whole):
    killed = Training(dies_at)
    with pytest.raises(KeyboardInterrupt):
        list(tfprune.lottery(_model(), killed, directory=tmp_path, **OPTIONS))
    assert killed.calls == dies_at
    left = Training()
    drawn = list(tfprune.lottery(_model(), left, directory=tmp_path, **OPTIONS))
    assert left.calls == 5 - dies_at
    _same(drawn, whole)
    _same(list(tfprune.lottery(_model(), Training(0), directory=tmp_path, **OPTIONS)), whole)
    assert not list(tmp_path.rglob("*.partial"))


def test_the_step_to_rewind_to_is_kept_with_the_optimizer(tmp_path):
    options = {"rounds": 1, "prune_rate": 0.5, "rewind": 3}
    dense, ticket = tfprune.lottery(_model(), Fit(), **options)
    with pytest.raises(KeyboardInterrupt):
        list(tfprune.lottery(_model(), Fit(1), directory=tmp_path, **options))
    _same(list(tfprune.lottery(_model(), Fit(), directory=tmp_path, **options)), [dense, ticket])


@pytest.fixture(scope="module")
def whole():
    """The same lottery in memory."""
    return list(tfprune.lottery(_model(), Training(), **OPTIONS))


def test_each_folder_is_a_model_and_its_record(tmp_path, whole):
    list(tfprune.lottery(_model(), Training(), directory=tmp_path, **OPTIONS))
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()} - {".locks"}
    assert names == {"start", "ticket-0", "ticket-1", "ticket-2", "random-1", "random-2"}
    for ticket in whole:
        folder = tmp_path / f"{ticket.method}-{ticket.level}"
        model = keras.saving.load_model(folder / "model.keras")
        for a, b in zip(model.get_weights(), ticket.model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert json.loads((folder / "record.json").read_text())["result"] == ticket.result
    # Directories of earlier versions are read by this name.
    about = json.loads((tmp_path / "start" / "record.json").read_text())["about"]
    assert about["share"] == OPTIONS["prune_rate"]


def test_more_rounds_and_controls_go_on_from_there(tmp_path):
    options = OPTIONS | {"controls": []}
    list(tfprune.lottery(_model(), Training(), directory=tmp_path, **options))
    more = Training()
    options = OPTIONS | {"rounds": 3, "controls": ["reinit"]}
    drawn = list(tfprune.lottery(_model(), more, directory=tmp_path, **options))
    # The third ticket, and three controls.
    assert more.calls == 4
    assert len(drawn) == 7


def test_another_model_or_setting_needs_another_directory(tmp_path):
    next(tfprune.lottery(_model(), Training(), directory=tmp_path, **OPTIONS))
    with pytest.raises(UsageError) as caught:
        tfprune.lottery(_model(1), Training(), directory=tmp_path, **OPTIONS)
    assert str(caught.value) == (
        f"{tmp_path} holds the lottery of a model with other initial weights: seed yours before "
        f"it is built, load {tmp_path / 'start' / 'model.keras'}, or give another directory"
    )
    options = OPTIONS | {"prune_rate": 0.3}
    with pytest.raises(UsageError) as caught:
        tfprune.lottery(_model(), Training(), directory=tmp_path, **options)
    assert str(caught.value) == (
        f"{tmp_path} holds a lottery with prune_rate=0.5, not 0.3: give another directory"
    )
    start = keras.saving.load_model(tmp_path / "start" / "model.keras")
    left = Training()
    next(tfprune.lottery(start, left, directory=tmp_path, **OPTIONS))
    assert left.calls == 0


def test_a_result_that_no_file_takes_is_refused(tmp_path):
    def train(model, callbacks):
        return model

    with pytest.raises(UsageError) as caught:
        next(tfprune.lottery(_model(), train, rounds=1, directory=tmp_path))
    assert str(caught.value) == (
        "train returned a Sequential, which cannot be kept in a directory: return a History, or "
        "numbers, texts, lists and dicts of these"
    )


def test_a_file_that_the_training_misses_is_not_blamed_on_the_directory(tmp_path):
    def train(model, callbacks):
        return (tmp_path / "images.npz").read_bytes()

    with pytest.raises(FileNotFoundError, match=r"images\.npz"):
        next(tfprune.lottery(_model(), train, rounds=1, directory=tmp_path))


def test_layers_that_nobody_registered_come_back(tmp_path):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    def model():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((6,)), Doubled(), keras.layers.Dense(3)])

    first = list(tfprune.lottery(model(), Training(), rounds=1, directory=tmp_path))
    _same(list(tfprune.lottery(model(), Training(0), rounds=1, directory=tmp_path)), first)
