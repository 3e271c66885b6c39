"""The steps of a schedule are updates that happen, whoever makes them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfprune.errors import UsageError
from tfprune.training.schedule import polynomial_decay
from tfprune.weights import PruneWeights

SCHEDULE = polynomial_decay(0.0, 0.5, begin=0, end=6, frequency=1)


class Gan(keras.Model):
    """Two nets, each with an optimizer of its own; the second takes two steps a batch."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.one, self.two = layers.Dense(4, name="one"), layers.Dense(4, name="two")
        both = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1)]
        if where == "attributes":
            self.one_optimizer, self.two_optimizer = both
        elif where == "list":
            self.both = both
        else:
            self.both = {"one": both[0], "two": both[1]}
        self._apply = both

    def call(self, x):
        return self.two(self.one(x))

    def train_step(self, data):
        x, y = data
        for layer, optimizer, times in zip((self.one, self.two), self._apply, (1, 2), strict=True):
            for _ in range(times):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((self(x) - y) ** 2)
                variables = layer.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


class ByHand(keras.Sequential):
    """Assigns its weights itself."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        variables = self.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return {"loss": loss}


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 4)).astype("float32"), rng.normal(size=(32, 4)).astype("float32")


class Seen(keras.callbacks.Callback):
    """The zeros of the kernels after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        found = [np.asarray(v) for v in self.model.trainable_variables if len(v.shape) == 2]
        self.shares.append(float(np.mean([np.mean(value == 0) for value in found])))


@pytest.mark.reliability("optimizers and loops of one's own", "right")
@pytest.mark.parametrize("where", ["attributes", "list", "dict"])
@pytest.mark.parametrize(("include", "batches"), [("one", 6), ("two", 3)])
def test_steps_are_those_of_the_optimizer_that_owns_the_weights(pairs, where, include, batches):
    model = Gan(where)
    model(pairs[0])
    model.compile()
    steps = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(pruner._last_step)

    pruner = PruneWeights(SCHEDULE, include=include)
    model.fit(*pairs, batch_size=4, verbose=0, callbacks=[pruner, Watch()])
    each = 6 // batches
    assert steps == [each * batch for batch in range(1, 9)]
    assert pruner.sparsity == 0.5


@pytest.mark.reliability("optimizers and loops of one's own", "right")
@pytest.mark.parametrize("execution", [1, 2])
def test_where_no_optimizer_moves_batches_count_and_zeros_are_zero_after_each(pairs, execution):
    model = ByHand([keras.Input((4,)), layers.Dense(6), layers.Dense(4)])
    model.compile(steps_per_execution=execution)
    seen = Seen()
    pruner = PruneWeights(SCHEDULE)
    model.fit(*pairs, batch_size=8, epochs=2, verbose=0, callbacks=[pruner, seen])
    assert seen.shares == sorted(seen.shares)
    assert seen.shares[-1] == pruner.sparsity == 0.5
    # Already after the first batch there are as many as after so many steps.
    assert seen.shares[0] > 0


@pytest.mark.reliability("optimizers and loops of one's own", "warned")
def test_batches_that_are_too_few_are_told_as_such(pairs):
    model = ByHand([keras.Input((4,)), layers.Dense(32), layers.Dense(4)])
    model.compile()
    told = "ended at batch 4, before .* at step 6: .* no optimizer of the model moved these weights"
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", True)
    )
    with pytest.warns(UserWarning, match=told):
        model.fit(
            *pairs, batch_size=8, epochs=2, verbose=0, callbacks=[PruneWeights(SCHEDULE), stop]
        )


@pytest.mark.reliability("optimizers and loops of one's own", "right")
def test_a_loop_that_heeds_no_constraint_has_zeros_after_each_update(pairs):
    model = ByHand([keras.Input((4,)), layers.Dense(4)])
    pruner = PruneWeights(SCHEDULE)
    pruner.set_model(model)
    with pruner:
        pruner.update(0)
        for step in range(1, 9):
            model.train_step(pairs)
            pruner.update(step)
            kernel = np.asarray(model.layers[0].kernel)
            (mask,) = pruner.masks.values()
            np.testing.assert_array_equal(kernel == 0, ~mask)
    assert pruner.sparsity == 0.5


@pytest.mark.reliability("optimizers and loops of one's own", "warned")
def test_steps_that_nobody_makes_are_told_in_a_loop(pairs):
    model = ByHand([keras.Input((4,)), layers.Dense(4)])
    pruner = PruneWeights(SCHEDULE)
    pruner.set_model(model)
    pruner.attach()
    with pytest.raises(UsageError, match="give the step yourself"):
        pruner.update()
    pruner.detach()
    model.compile()
    told = "no step of an optimizer was seen in 3 updates, so the sparsity is 0; give the step"
    with pytest.warns(UserWarning, match=told), pruner:
        for _ in range(3):
            model.train_step(pairs)
            pruner.update()


@pytest.mark.reliability("optimizers and loops of one's own", "right")
@pytest.mark.parametrize("execution", [1, 2])
def test_a_model_that_fit_builds_is_pruned(pairs, execution):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    for model in (keras.Sequential([layers.Dense(6), layers.Dense(4)]), Subclassed()):
        model.compile("adam", "mse", steps_per_execution=execution)
        pruner = PruneWeights(SCHEDULE)
        history = model.fit(*pairs, batch_size=4, verbose=0, callbacks=[pruner])
        assert pruner.sparsity == history.history["sparsity"][-1] == 0.5
        assert all(variable.constraint is None for variable in model.variables)
