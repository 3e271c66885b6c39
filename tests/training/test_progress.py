from __future__ import annotations

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from tfprune.training.progress import Progress


@pytest.fixture(scope="module")
def model() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)], name="toy")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


class LogSparsity(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["sparsity"] = 0.5


def fit(model: keras.Model, progress: Progress, **options) -> None:
    inputs, labels = np.zeros((12, 2), np.float32), np.zeros(12, np.int64)
    with progress:
        model.fit(
            inputs,
            labels,
            batch_size=4,
            verbose=0,
            callbacks=[LogSparsity(), progress],
            **{"epochs": 3, **options},
        )


def plain() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_one_plain_line_for_each_epoch_without_a_terminal(model):
    console = plain()
    fit(model, Progress("toy [red]", console=console))
    lines = console.file.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"toy [red]: epoch {n}/3" for n in (1, 2, 3)]
    for line in lines:
        assert "loss " in line and "accuracy " in line and "sparsity 0.5000" in line
        assert line.endswith(" left")
    assert lines[-1].endswith("0:00:00 left")


def test_a_resumed_training_counts_on(model):
    console = plain()
    fit(model, Progress("toy", first_epoch=2, console=console), initial_epoch=2)
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("toy: epoch 3/3")


def test_a_bar_on_a_terminal_shows_the_state_and_goes_away(model):
    console = terminal()
    fit(model, Progress("toy", console=console))
    shown = console.file.getvalue()
    assert "toy" in shown and "epoch 3/3" in shown and "loss" in shown
    # The cursor is shown again, after the last line was cleared.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_the_bar_is_full_at_the_end_for_any_first_epoch(model):
    for first in (0, 1):
        progress = Progress("toy", first_epoch=first, console=terminal())
        fit(model, progress, initial_epoch=first)
        (task,) = progress._bar.tasks
        assert task.total == (3 - first) * 3
        assert task.completed == task.total


def test_the_bar_is_cleared_when_training_fails(model):
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("out of luck")

    console = terminal()
    progress = Progress("toy", console=console)
    with pytest.raises(RuntimeError, match="out of luck"), progress:
        model.fit(np.zeros((4, 2)), np.zeros(4), epochs=1, verbose=0, callbacks=[progress, Fail()])
    assert not progress._bar.live.is_started


def test_progress_is_on_stderr(model, capsys):
    fit(model, Progress("toy"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("toy: epoch") == 3


def test_the_time_of_the_run_includes_the_work_after(model):
    console = plain()
    fit(model, Progress("toy", console=console, after=lambda seconds: 3600), epochs=1)
    line = console.file.getvalue().splitlines()[-1]
    assert line.endswith(", 0:00:00 left, 1:00:00 of the run")
