"""A fit that breaks down: nothing of it in files, and the next training is right."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import optimizers

from tfprune.training.schedule import constant_sparsity
from tfprune.weights import KeepZeros, MaskConstraint, PruneWeights


class BrokenError(Exception):
    pass


class Break(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 8:
            raise BrokenError


def masked(model: keras.Model) -> list[bool]:
    return [isinstance(variable.constraint, MaskConstraint) for variable in model.variables]


@pytest.fixture
def broken(compiled, data):
    """A model that a fit with these callbacks has left, with half of its weights at zero."""

    def make(*callbacks, model=None):
        model = model or compiled(optimizers.SGD(0.1))
        with pytest.raises(BrokenError):
            model.fit(*data, batch_size=4, verbose=0, callbacks=[*callbacks, Break()])
        assert any(masked(model))
        return model

    return make


def zeros(model) -> list[int]:
    return [int(np.count_nonzero(np.asarray(v) == 0)) for v in model.trainable_variables[::2]]


def test_the_next_fit_is_free_and_nothing_remains(broken, data):
    model = broken(PruneWeights(constant_sparsity(0.5)))
    assert zeros(model) == [24, 12]
    model.fit(*data, batch_size=4, verbose=0)
    assert sum(zeros(model)) < 10
    assert not any(masked(model))
    assert "make_train_function" not in vars(model)


def test_the_next_train_on_batch_is_free(broken, data):
    model = broken(PruneWeights(constant_sparsity(0.5)))
    model.train_on_batch(*data)
    assert sum(zeros(model)) < 10
    assert not any(masked(model))


def test_two_callbacks_hold_masks_and_both_let_go(broken, data):
    pruner, keeper = PruneWeights(constant_sparsity(0.5), include="first"), KeepZeros(["last"])
    model = broken(pruner, keeper)
    assert zeros(model)[0] == 24
    model.fit(*data, batch_size=4, verbose=0)
    assert not any(masked(model))
    # Together they do not take each other's masks off.
    model.optimizer.iterations.assign(0)
    model.fit(*data, batch_size=4, verbose=0, callbacks=[pruner, KeepZeros(["last"])])
    assert zeros(model)[0] == 24
    assert not any(masked(model))
    assert "make_train_function" not in vars(model)


def test_the_next_fit_with_another_pruner_is_its_own(broken, data):
    model = broken(PruneWeights(constant_sparsity(0.5), include="first"))
    model.fit(
        *data, batch_size=4, verbose=0, callbacks=[PruneWeights(constant_sparsity(0.5, begin=9))]
    )
    assert zeros(model) == [24, 12]
    assert not any(masked(model))


def test_a_loop_in_a_with_is_free_after_an_error(compiled, data):
    model = compiled()
    pruner = PruneWeights(constant_sparsity(0.5))
    pruner.set_model(model)
    with pytest.raises(BrokenError), pruner:
        pruner.update(0)
        raise BrokenError
    assert not any(masked(model))
    assert zeros(model) == [24, 12]


def test_a_file_saved_after_the_error_trains_freely(broken, data, tmp_path):
    model = broken(PruneWeights(constant_sparsity(0.5)))
    model.save(tmp_path / "left.keras")
    loaded = keras.saving.load_model(tmp_path / "left.keras")
    assert zeros(loaded) == [24, 12]
    assert not any(masked(loaded))
    loaded.fit(*data, batch_size=4, verbose=0)
    assert sum(zeros(loaded)) < 10
