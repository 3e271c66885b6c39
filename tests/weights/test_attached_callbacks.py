"""Whatever callbacks stand beside, and in whatever order: what masks say is dead is zero."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfprune.learning import LearnStructure
from tfprune.training.schedule import constant_sparsity, polynomial_decay
from tfprune.weights import KeepZeros, PruneWeights


def _fill(model):
    """Sets all weights, as someone does who knows of no masks."""
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))


def _callbacks(directory):
    """Makers of callbacks by name; those of one name are made afresh."""
    ramp = polynomial_decay(0.0, 0.75, begin=0, end=4, frequency=1)
    make = keras.callbacks
    return {
        "all": lambda: PruneWeights(ramp),
        "again": lambda: PruneWeights(constant_sparsity(0.5, begin=2)),
        "first": lambda: PruneWeights(ramp, include="first"),
        "last": lambda: PruneWeights(constant_sparsity(0.5), include="last", scope="global"),
        "keep": lambda: KeepZeros(),
        # The first epoch has the highest loss, mostly.
        "stop": lambda: make.EarlyStopping("loss", mode="max", restore_best_weights=True),
        "swap": lambda: make.SwapEMAWeights(swap_on_epoch=True),
        "swap for tests": lambda: make.SwapEMAWeights(),
        "save": lambda: make.ModelCheckpoint(
            directory / "saved.weights.h5", save_weights_only=True
        ),
        "backup": lambda: make.BackupAndRestore(directory / "backup"),
        "epoch": lambda: make.LambdaCallback(on_epoch_end=lambda epoch, logs: _fill(MODEL[0])),
        "end": lambda: make.LambdaCallback(on_train_end=lambda logs: _fill(MODEL[0])),
        "learn": lambda: LearnStructure(0.01),
    }


NAMES = list(_callbacks(None))
MODEL: list[keras.Model] = []


@pytest.mark.reliability("callbacks in any order beside the masks", "right")
@pytest.mark.filterwarnings("ignore:PruneWeights. .* put weights in at the end of the training")
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
@pytest.mark.slow
def test_zeros_are_where_masks_are_dead_and_figures_are_those_of_the_model(
    compiled, data, tmp_path, names
):
    shutil.rmtree(tmp_path / "backup", ignore_errors=True)
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    model = compiled(optimizer, run_eagerly=True)
    MODEL[:] = [model]
    optimizer.build(model.trainable_variables)
    kernel = np.asarray(model.layers[0].kernel).copy()
    kernel[:2] = 0
    model.layers[0].kernel.assign(kernel)
    found = _callbacks(tmp_path)
    callbacks = [found[name]() for name in names]
    x, y = data[0][:8], data[1][:8]
    history = model.fit(
        x, y, batch_size=4, epochs=3, verbose=0, callbacks=callbacks, validation_data=(x, y)
    )
    pruners = [each for each in callbacks if isinstance(each, PruneWeights)]
    for pruner in pruners:
        for kernel, mask in zip(pruner._nested.kernels, pruner._nested.masks, strict=True):
            value = np.asarray(kernel.variable)
            assert not value[~mask].view(np.uint32).any()
        values = [np.asarray(kernel.variable) for kernel in pruner._nested.kernels]
        assert pruner.sparsity == _share(values)
    if pruners and "learn" not in names:
        together = {k.path: np.asarray(k.variable) for p in pruners for k in p._nested.kernels}
        # A kept zero that nobody prunes is a zero of the model as well.
        assert history.history["sparsity"][-1] <= _share(together.values()) + 1e-9
        if not {"keep", "stop", "end"} & {*names}:
            assert history.history["sparsity"][-1] == _share(together.values())
    if "keep" in names:
        assert not np.asarray(model.layers[0].kernel)[:2].any()
    if "save" in names:
        for pruner in pruners:
            dead = {
                k.path: ~mask
                for k, mask in zip(pruner._nested.kernels, pruner._nested.masks, strict=True)
            }
            model.load_weights(tmp_path / "saved.weights.h5")
            for path, where in dead.items():
                if "stop" not in names:
                    assert not np.asarray(model.get_layer(path).kernel)[where].any()
    assert all(variable.constraint is None for variable in model.variables)
    assert "make_train_function" not in vars(model)


def _share(values) -> float:
    values = list(values)
    return sum(np.count_nonzero(v == 0) for v in values) / sum(v.size for v in values)


@pytest.mark.reliability("callbacks in any order beside the masks", "warned")
@pytest.mark.parametrize("first", [True, False])
def test_weights_put_back_get_the_masks_and_it_is_said(compiled, data, first):
    pruner = PruneWeights(polynomial_decay(0.0, 0.75, begin=0, end=12, frequency=1))
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    model = compiled()
    callbacks = [pruner, stop] if first else [stop, pruner]
    with pytest.warns(UserWarning) as warned:
        # Four steps an epoch; the first is the best.
        model.fit(*data, batch_size=16, epochs=4, verbose=0, callbacks=callbacks)
    (message,) = [str(each.message) for each in warned if each.category is UserWarning]
    assert message.startswith(
        "PruneWeights: EarlyStopping put weights in at the end of the training whose sparsity was "
        "0.528; the masks were applied to them again, so it is 0.75, but they have not trained so:"
    )
    assert pruner.sparsity == 0.75


@pytest.mark.slow
@pytest.mark.reliability("callbacks in any order beside the masks", "right")
def test_a_validation_looks_at_a_sparse_net_though_averages_are_swapped_in(compiled, data):
    shares = []

    class Look(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            shares.append(_share([np.asarray(layer.kernel) for layer in self.model.layers]))

    swap = keras.callbacks.SwapEMAWeights()
    pruner = PruneWeights(constant_sparsity(0.5))
    model = compiled(keras.optimizers.Adam(0.01, use_ema=True))
    model.fit(
        *data, verbose=0, callbacks=[pruner, swap, Look()], validation_data=data, batch_size=32
    )
    assert shares == [0.5, 0.5]


@pytest.mark.reliability("callbacks in any order beside the masks", "right")
def test_a_list_of_callbacks_that_is_used_again_is_as_it_was(compiled, data):
    model = compiled()
    own = [PruneWeights(constant_sparsity(0.5)), KeepZeros()]
    several = keras.callbacks.CallbackList(own, add_history=True, model=model, epochs=1, steps=4)
    model.fit(*data, batch_size=16, verbose=0, callbacks=several)
    assert several.callbacks[:2] == own
    assert len(several.callbacks) == 3
    assert own[0].sparsity == 0.5
