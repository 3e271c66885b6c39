from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import UsageError, data
from tfprune.training import Training, fit
from tfprune.training.precision import mixed_precision

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 1)).astype(np.float32)
Y = (X.mean(axis=(1, 2, 3)) > 0).astype(np.int64)


@keras.saving.register_keras_serializable("tests")
class Probe(layers.Layer):
    """Notes in which dtype it computes, and in which mode."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seen: list[tuple[str, bool]] = []

    def call(self, x, training=False):
        self.seen.append((keras.backend.standardize_dtype(x.dtype), bool(training)))
        return x


class Last(layers.Dense):
    """A last layer that notes its dtype."""

    def call(self, x, training=False):
        self.seen.append((keras.backend.standardize_dtype(x.dtype), bool(training)))
        return super().call(x)


def toy(probes: bool = False, dropout: float = 0.2) -> keras.Model:
    """A nested model with a raw sum, BatchNorm and dropout; ends in a softmax layer."""
    block = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same"), layers.ReLU()], name="block"
    )
    inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(0.5)(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = x + block(x)
    x = Probe(name="inside")(x) if probes else x
    x = layers.Dropout(dropout, seed=1)(layers.GlobalAveragePooling2D()(x))
    if not probes:
        return keras.Model(inputs, layers.Softmax()(layers.Dense(2)(x)))
    last = Last(2, "softmax", name="last")
    last.seen = []
    return keras.Model(inputs, last(x))


@cache
def dataset() -> data.Dataset:
    splits = [data.Arrays(X, Y), data.Arrays(X[:16], Y[:16]), data.Arrays(X[:16], Y[:16])]
    return data.Dataset("toy", ("no", "yes"), *splits, "a toy")


def policies(model: keras.Model) -> set[str]:
    return {layer.dtype_policy.name for layer in model._flatten_layers()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_layers_compute_in_16_bits_in_training_steps_alone(dtype: str) -> None:
    model = toy(probes=True)
    inside, last = model.get_layer("inside"), model.get_layer("last")
    inside.seen, last.seen = [], []
    weights = [id(weight) for weight in model.weights]
    training = Training(epochs=1, batch_size=16, precision=f"mixed_{dtype}")
    history = fit(model, dataset(), training, seed=0).history
    assert set(inside.seen) == {(dtype, True), ("float32", False)}
    assert set(last.seen) == {("float32", True), ("float32", False)}
    # An ordinary float32 model is left, with the same variables.
    assert policies(model) == {"float32"}
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert [id(weight) for weight in model.weights] == weights
    assert "train_step" not in vars(model)
    # Small gradients are 0 in float16 alone.
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled is (dtype == "float16")
    # The validation figures are those of this model.
    answers = np.asarray(model(X[:16], training=False)).argmax(1)
    assert history["val_accuracy"].iloc[-1] == pytest.approx((answers == Y[:16]).mean())


@pytest.mark.slow
def test_the_weights_differ_from_those_of_float32_by_little() -> None:
    """Each learns the same; 16 bits have other roundings, and would have other random numbers."""
    losses = {}
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        keras.utils.set_random_seed(0)
        training = Training(epochs=2, batch_size=16, precision=precision, learning_rate=0.01)
        losses[precision] = fit(toy(dropout=0.0), dataset(), training, seed=0).history["loss"]
    for precision in ("mixed_bfloat16", "mixed_float16"):
        assert (losses[precision] != losses["float32"]).any()
        np.testing.assert_allclose(losses[precision], losses["float32"], rtol=0.02)


@pytest.mark.slow
def test_masks_and_channels_hold_in_float16() -> None:
    """With a loss scale, whose optimizer stands around the one that moves the weights."""
    training = Training(epochs=2, batch_size=8, precision="mixed_float16", learning_rate=0.05)
    pruned, learnt = toy(), toy()
    schedule = tfprune.polynomial_decay(0.0, 0.75, begin=0, end=8)
    fit(pruned, dataset(), training, seed=0, callbacks=[tfprune.PruneWeights(schedule)])
    kernel = np.asarray(pruned.layers[2].kernel)
    assert np.mean(kernel == 0) == pytest.approx(0.75, abs=0.02)
    learner = tfprune.LearnStructure(filters=0.5, frequency=2)
    fit(learnt, dataset(), training, seed=0, callbacks=[learner])
    assert learner.dead_share() == pytest.approx(0.5)
    assert policies(pruned) == policies(learnt) == {"float32"}


def test_a_layer_that_cannot_compute_in_16_bits_is_named_before_the_first_step() -> None:
    import tensorflow as tf

    class Fixed(layers.Layer):
        def call(self, x):
            return x + tf.ones((4,), tf.float32)

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(4), Fixed(), layers.Dense(2)]
    )
    before = model.get_weights()
    training = Training(epochs=1, precision="mixed_bfloat16")
    with pytest.raises(UsageError, match=r"cannot be trained with precision = 'mixed_b") as error:
        fit(model, dataset(), training, seed=0)
    assert "\n" not in str(error.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert policies(model) == {"float32"}


def test_float32_changes_nothing() -> None:
    model = toy()
    with mixed_precision(model, "float32"):
        assert "train_step" not in vars(model)
