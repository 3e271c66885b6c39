"""Early steps are kept exactly, or it is said why not; a replay ends where the training ended."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.errors import UsageError
from tfprune.weights import prune_once, untrained_control
from tfprune.weights.attached import KeepMasks
from tfprune.weights.lottery import RestoreState, SaveState


def _fit(model, data, callbacks, epochs=2, **options):
    return model.fit(*data, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **options)


def test_the_weights_of_a_step_are_kept(compiled, data):
    model = compiled()
    keep = SaveState(model, 4)
    # Four steps an epoch.
    _fit(model, data, [keep], epochs=1)
    for kept, value in zip(keep.state().weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, value)
    assert keep.state().step == 4


def test_a_step_that_never_came_or_was_passed_over_is_told(compiled, data):
    model = compiled(steps_per_execution=4)
    late, between = SaveState(model, 9), SaveState(model, 3)
    _fit(model, data, [late, between])
    with pytest.raises(UsageError, match="train ended after 8 steps, before step 9 to rewind to"):
        late.state()
    with pytest.raises(UsageError, match=r"rewind is step 3, which train passed over .* step 4"):
        between.state()


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("known", [True, False])
def test_a_replay_ends_at_the_last_step_of_the_whole_training(compiled, data, known):
    batches = tf.data.Dataset.from_tensor_slices(data).batch(16)
    if not known:
        # A filter leaves nobody knowing how many batches there are.
        batches = batches.filter(lambda x, y: True)
    model, again = compiled(), compiled()
    keep = SaveState(model, 3)
    model.fit(batches, epochs=3, verbose=0, shuffle=False, callbacks=[keep])
    again.fit(batches, epochs=3, verbose=0, shuffle=False, callbacks=[RestoreState(keep.state())])
    # Where an epoch ends unforeseen, Keras counts one step that finds no data.
    assert int(model.optimizer.iterations) == (12 if known else 15)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)


def test_a_replay_wants_the_same_optimizer(compiled, data):
    model = compiled("adam")
    keep = SaveState(model, 1)
    _fit(model, data, [keep])
    with pytest.raises(UsageError, match="train: the optimizer has other variables than in the"):
        _fit(compiled("sgd"), data, [RestoreState(keep.state())])


def test_masks_are_held_within_a_model_around_the_one_they_are_of(make_model, data):
    model = make_model()
    mask = np.arange(48).reshape(6, 8) % 3 > 0
    around = keras.Sequential([keras.Input((6,)), keras.layers.Rescaling(2.0), model])
    around.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernel = model.get_layer("first").kernel
    _fit(around, data, [KeepMasks([kernel], [mask])])
    np.testing.assert_array_equal(np.asarray(kernel) != 0, mask)
    assert kernel.constraint is None


@pytest.mark.parametrize("method", ["reinit", "random"])
def test_a_control_has_as_many_weights_in_each_tensor_and_others_than_the_ticket(
    make_model, kernels, method
):
    ticket = prune_once(make_model(), 0.5)
    control = kernels(untrained_control(ticket, method, seed=0))
    for name, kernel in kernels(ticket).items():
        same = np.array_equal(control[name] != 0, kernel != 0)
        assert same == (method == "reinit")
        assert np.count_nonzero(control[name]) == np.count_nonzero(kernel)
        assert not np.any((control[name] == kernel) & (kernel != 0))
