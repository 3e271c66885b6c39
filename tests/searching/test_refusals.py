"""A trial that fails by itself is refused and the search goes on; others end it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from keras import Input, Model, layers

import tfprune
from tfprune.errors import RefusedError, TfpruneError, UsageError
from tfprune.pipeline.working import JobOutcome

pytest.importorskip("optuna", reason="needs the extra search")

from tfprune.searching.running import _Trials


def _made(monkeypatch: pytest.MonkeyPatch, error: TfpruneError) -> dict[str, str]:
    """What is said of two trials, of which the second fails."""

    def made(self: object, trials: dict[str, object]) -> None:
        if "bad" in trials:
            raise error

    monkeypatch.setattr(_Trials, "_made", made)
    return _Trials._make(object.__new__(_Trials), {"good": None, "bad": None})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "error", [RefusedError("the loss became nan"), UsageError("macs=0.01 cannot be reached")]
)
def test_one_trial_that_fails_does_not_end_the_search(monkeypatch, error):
    assert _made(monkeypatch, error) == {"bad": str(error)}


def test_what_fails_every_trial_ends_it(monkeypatch):
    with pytest.raises(TfpruneError, match="cannot be written"):
        _made(monkeypatch, TfpruneError("out cannot be written (No space left on device)"))


@pytest.mark.parametrize("kind", [TfpruneError, UsageError, RefusedError])
def test_the_kind_of_an_error_comes_back_from_a_worker(kind):
    outcome = pickle.loads(pickle.dumps(JobOutcome(1.0, error="said", kind=kind)))
    assert type(outcome.raised()) is kind


def test_a_model_of_nan_is_refused_and_a_folder_that_cannot_be_written_is_not(tmp_path):
    x = Input((4,))
    model = Model(x, layers.Dense(2)(x))
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError) as raised:
        tfprune.export(model, tmp_path / "file" / "out", ["keras"])
    assert not isinstance(raised.value, RefusedError)
    model.set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    with pytest.raises(RefusedError, match="gives NaN or infinite outputs"):
        tfprune.export(model, tmp_path / "out", ["keras"])
