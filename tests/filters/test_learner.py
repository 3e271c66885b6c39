from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tests.tables import slow
from tfprune.slimming import plan

from .harness import assert_close, assert_same, outputs, randomised


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Eight batches of eight; one of five features decides."""
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    return x, np.tanh(x[:, :1])


def mlp(activation: str = "relu", **last: object) -> keras.Model:
    return randomised(
        keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(6, activation, name="a"),
                layers.Dense(4, activation, name="b"),
                layers.Dense(1, name="out", **last),
            ]
        )
    )


def residual() -> keras.Model:
    x = keras.Input((5,))
    y = layers.Dense(8, "relu", name="start")(x)
    z = layers.BatchNormalization(name="norm")(layers.Dense(6, name="inside")(y))
    z = layers.Dense(8, name="end")(layers.ReLU()(z))
    return randomised(keras.Model(x, layers.Dense(1, name="out")(layers.Add()([y, z]))))


def group_norms(model: keras.Model, name: str) -> np.ndarray:
    kernel, bias = (np.asarray(each, np.float64) for each in model.get_layer(name).weights)
    return np.sqrt(np.square(kernel).sum(0) + bias**2)


def shrunk(kernel: np.ndarray, bias: np.ndarray, threshold: float) -> list[np.ndarray]:
    size = kernel.shape[0] + 1
    norms = np.sqrt(np.square(kernel).sum(0) + bias**2)
    factor = np.maximum(0, 1 - threshold * np.sqrt(size) / norms)
    return [kernel * factor, bias * factor]


def test_one_step_is_a_gradient_step_and_a_proximal_step(data: tuple) -> None:
    x, y = (each[:8] for each in data)
    model, plain = mlp("tanh"), mlp("tanh")
    rate, strength = 0.5, 0.55
    plain.compile(keras.optimizers.SGD(rate), "mse")
    plain.fit(x, y, batch_size=8, verbose=0)
    model.compile(keras.optimizers.SGD(rate), "mse")
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[tfprune.LearnStructure(strength)])
    after = plain.get_weights()
    wanted = [
        *shrunk(*after[0:2], rate * strength),
        *shrunk(*after[2:4], rate * strength),
        # The output layer is frozen.
        *after[4:6],
    ]
    for found, each in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(found, each, rtol=1e-5, atol=1e-6)
    assert 0 < (group_norms(model, "a") == 0).sum() < 6


@pytest.mark.parametrize("accumulated", [None, 2])
def test_each_update_takes_one_threshold_off_each_norm(
    data: tuple, accumulated: int | None
) -> None:
    """Without gradients; accumulated or not."""
    model = mlp()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated)
    model.compile(optimizer, "mse")
    before = group_norms(model, "a")
    learn = tfprune.LearnStructure(0.3)
    model.fit(*data, batch_size=8, verbose=0, callbacks=[learn], sample_weight=np.zeros(64))
    updates = 8 / (accumulated or 1)
    wanted = np.maximum(0, before - updates * 0.1 * 0.3 * np.sqrt(6))
    np.testing.assert_allclose(group_norms(model, "a"), wanted, rtol=1e-4, atol=1e-6)


class DeadEachEpoch(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.dead: list[set[int]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.dead.append(set(np.flatnonzero(group_norms(self.model, "a") == 0).tolist()))


def test_dead_channels_stay_dead(data: tuple) -> None:
    """A silent ReLU unit has no gradient, so plain SGD never wakes it."""
    model, watch = mlp(), DeadEachEpoch()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    learn = tfprune.LearnStructure(0.15)
    model.fit(*data, batch_size=8, epochs=6, verbose=0, callbacks=[learn, watch])
    for earlier, later in zip(watch.dead, watch.dead[1:], strict=False):
        assert earlier <= later
    assert 0 < len(watch.dead[-1]) < 6


# With the strength at which some of the eight channels die, and not all.
OPTIMIZERS = {
    "momentum": (lambda: keras.optimizers.SGD(0.05, momentum=0.9), 0.03),
    "adam": (lambda: keras.optimizers.Adam(0.02), 0.5),
    "averaged weights": (
        lambda: keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.5),
        0.5,
    ),
    "loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.02)),
        0.5,
    ),
}


@pytest.mark.parametrize(
    "name", ["momentum", "adam", *map(slow, ["averaged weights", "loss scale"])]
)
def test_coupled_channels_die_together_and_for_free(data: tuple, name: str) -> None:
    policy = keras.config.dtype_policy()
    if name == "loss scale":
        keras.config.set_dtype_policy("mixed_float16")
    try:
        model = residual()
    finally:
        keras.config.set_dtype_policy(policy)
    optimizer, strength = OPTIMIZERS[name]
    model.compile(optimizer(), "mse", steps_per_execution=4)
    learn = tfprune.LearnStructure(tfprune.GroupLasso(strength))
    history = model.fit(*data, batch_size=8, epochs=6, verbose=0, callbacks=[learn]).history
    dead = {each: group_norms(model, each) == 0 for each in ("start", "end", "inside", "out")}
    np.testing.assert_array_equal(dead["start"], dead["end"])
    assert 0 < dead["start"].sum() < 8
    assert not dead["out"].any()
    norm = model.get_layer("norm")
    np.testing.assert_array_equal(np.asarray(norm.gamma) == 0, dead["inside"])
    np.testing.assert_array_equal(np.asarray(norm.beta) == 0, dead["inside"])
    share = (dead["start"].sum() + dead["inside"].sum()) / (8 + 6)
    assert history["sparsity"][-1] == pytest.approx(share)
    assert learn.dead_share() == pytest.approx(share)

    found = plan(model, dead=True)
    assert found.removed["start"] == np.flatnonzero(dead["start"]).tolist()
    slim = tfprune.slim(model, dead=True)
    tolerance = 5e-3 if name == "loss scale" else 1e-5
    assert_close(outputs(slim, [data[0]]), outputs(model, [data[0]]), tolerance)


def test_nothing_of_it_stays(data: tuple) -> None:
    """A second fit moves the weights that were zero: tanh has a slope at zero."""
    model = mlp("tanh")
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(*data, batch_size=8, verbose=0, callbacks=[tfprune.LearnStructure(1.0)])
    dead = group_norms(model, "b") == 0
    assert dead.any()
    assert all(variable.constraint is None for variable in model.variables)
    model.fit(*data, batch_size=8, verbose=0)
    assert (group_norms(model, "b") > 0)[dead].all()


def test_it_composes_with_a_constraint_on_the_last_variable(data: tuple) -> None:
    class AtMost(keras.constraints.Constraint):
        def __call__(self, value: object) -> object:
            return keras.ops.minimum(value, -0.25)

    constraint = AtMost()
    model = mlp(bias_constraint=constraint)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(*data, batch_size=8, verbose=0, callbacks=[tfprune.LearnStructure(1.0)])
    assert (group_norms(model, "a") == 0).any()
    assert float(np.asarray(model.get_layer("out").bias)[0]) <= -0.25
    assert model.get_layer("out").bias.constraint is constraint


def test_zero_strength_trains_as_without(data: tuple) -> None:
    models = [mlp(), mlp()]
    for model, callbacks in zip(models, ([], [tfprune.LearnStructure(0.0)]), strict=True):
        model.compile(keras.optimizers.SGD(0.05), "mse")
        model.fit(*data, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    assert_same(models[0].get_weights(), models[1].get_weights())


def test_errors(data: tuple) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.LearnStructure(tfprune.GroupLasso(0.1, "channel"))
    assert str(error.value) == (
        "LearnStructure learns which filters or branches can go, not 'channel' groups: "
        "put such a GroupLasso on the kernels as their regularizer"
    )
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)], name="mine")
    model.compile("sgd", "mse")
    with pytest.raises(tfprune.UsageError) as error:
        model.fit(*data, verbose=0, callbacks=[tfprune.LearnStructure(0.1)])
    assert str(error.value) == (
        "model 'mine' has no removable channel to learn about: see "
        "`tfprune inspect` for what freezes them"
    )
