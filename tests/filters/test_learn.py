from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune.filters import plan
from tfprune.filters.unit_weights import of_branches

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


@pytest.mark.parametrize("name", OPTIMIZERS)
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


def normed() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = x
    for index, size in enumerate((6, 8, 6)):
        y = layers.Conv2D(size, 3, padding="same", use_bias=False, name=f"conv{index}")(y)
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm{index}")(y))
    y = layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(y))
    return randomised(keras.Model(x, y))


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    return x, (x.mean((1, 2)).argmax(-1)).astype(np.int32)


def fit(model: keras.Model, images: tuple, learn: tfprune.LearnStructure, **said: object) -> dict:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = said.pop("optimizer", None) or keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, loss, steps_per_execution=said.pop("steps_per_execution", 1))
    arguments = {"batch_size": 8, "epochs": 4, "verbose": 0, "shuffle": False, **said}
    return model.fit(*images, callbacks=[learn], **arguments).history


@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@example("macs", 0.5, 0.2, 0.45, 9, 4, "taylor")
@given(
    name=st.sampled_from(["macs", "params", "filters"]),
    share=st.sampled_from([0.3, 0.5, 0.8]),
    begin=st.sampled_from([0.0, 0.2]),
    end=st.sampled_from([0.45, 0.8, 1.0]),
    frequency=st.integers(1, 9),
    per_execution=st.sampled_from([1, 4]),
    importance=st.sampled_from(["lasso", "taylor"]),
)
def test_a_target_is_met_by_dead_channels_alone(
    name: str,
    share: float,
    begin: float,
    end: float,
    frequency: int,
    per_execution: int,
    importance: str,
) -> None:
    """And what a plan at once would have kept of the cost is what is kept, to within a channel."""
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    images = x, x.mean((1, 2)).argmax(-1).astype(np.int32)
    model = normed()
    if importance == "taylor":
        # It listens before it plans, so it may need longer.
        end = min(end, 0.45)
    learn = tfprune.LearnStructure(
        **{name: share}, importance=importance, begin=begin, end=end, frequency=frequency
    )
    history = fit(model, images, learn, steps_per_execution=per_execution)
    slim = tfprune.slim(model, dead=True)
    assert_close(outputs(slim, [x]), outputs(model, [x]), 1e-5)
    cost = {
        "macs": tfprune.macs,
        "params": keras.Model.count_params,
        "filters": lambda each: sum(each.get_layer(f"conv{i}").filters for i in range(3)),
    }[name]
    kept = cost(slim) / cost(model)
    assert kept <= share
    assert kept > share - 0.2
    lives = [each for each in history if each.startswith("live/")]
    assert lives == ["live/conv0", "live/conv1", "live/conv2"]
    for each in lives:
        assert history[each][-1] == slim.get_layer(each.removeprefix("live/")).filters
        assert history[each] == sorted(history[each], reverse=True)


def test_channels_fade_towards_the_end_of_their_stage(images: tuple) -> None:
    """Without gradients, a norm falls by the same amount each update."""
    model, norms = normed(), []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            layer = model.get_layer("norm0")
            norms.append(np.hypot(np.asarray(layer.gamma), np.asarray(layer.beta)))

    learn = tfprune.LearnStructure(filters=0.5, end=1.0, frequency=8)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros((64, 3))
    model.fit(images[0], targets, batch_size=8, verbose=0, callbacks=[learn, Watch()])
    fading = norms[-1] == 0
    assert fading.any()
    assert not fading.all()
    first = norms[0][fading] / (1 - 1 / 8)
    for step, norm in enumerate(norms):
        np.testing.assert_allclose(norm[fading], first * (1 - (step + 1) / 8), atol=1e-5)
        np.testing.assert_array_equal(norm[~fading], norms[0][~fading])


def test_after_the_target_all_else_trains_freely(images: tuple) -> None:
    model, dead = normed(), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            dead.append(learn.dead_share())

    learn = tfprune.LearnStructure(0.01, macs=0.5, end=0.5, frequency=3)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    targets = np.zeros((64, 3))
    model.fit(images[0], targets, batch_size=8, epochs=6, verbose=0, callbacks=[learn, Watch()])
    assert 0 < dead[0] < dead[2] == dead[5]


@pytest.mark.parametrize("importance", ["lasso", "taylor"])
def test_taken_up_at_an_epoch_it_ends_the_same(images: tuple, importance: str) -> None:
    """As after a kill: the weights, the optimizer's state and the epoch are all that is known."""
    whole, parts = normed(), normed()
    said = {"macs": 0.4, "begin": 0.1, "end": 0.8, "frequency": 3, "importance": importance}
    fit(whole, images, tfprune.LearnStructure(**said), epochs=4)
    fit(parts, images, tfprune.LearnStructure(**said), epochs=4)
    again = normed()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    again.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    arguments = {"batch_size": 8, "verbose": 0, "shuffle": False}

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.model.stop_training = epoch == 1

    # Stopped as a kill would, on_train_end aside, which changes nothing here.
    again.fit(*images, epochs=4, callbacks=[tfprune.LearnStructure(**said), Stop()], **arguments)
    again.fit(
        *images, epochs=4, initial_epoch=2, callbacks=[tfprune.LearnStructure(**said)], **arguments
    )
    assert_same(again.get_weights(), whole.get_weights())
    assert_same(parts.get_weights(), whole.get_weights())


def test_what_taylor_hears_are_the_gradients_of_the_training(images: tuple) -> None:
    """Of the scale of each unit, summed over the unit, squared for each update."""
    model = normed()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learn = tfprune.LearnStructure(filters=0.5, importance="taylor", frequency=100)
    model.compile(keras.optimizers.SGD(0.0), loss)
    heard = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            # Before the callback after this one plans, and begins to listen anew.
            heard.append(np.array(learn._heard))

    model.fit(*images, batch_size=32, shuffle=False, verbose=0, callbacks=[Watch(), learn])
    assert "apply" not in vars(model.optimizer)
    again = normed()
    for step, batch in enumerate((slice(0, 32), slice(32, 64))):
        with tf.GradientTape() as tape:
            value = loss(images[1][batch], again(images[0][batch], training=True))
        norms = [again.get_layer(f"norm{index}") for index in range(3)]
        weights = [(norm.gamma, norm.beta) for norm in norms]
        found = tape.gradient(value, [[each.value for each in pair] for pair in weights])
        total = np.concatenate(
            [
                sum(np.asarray(w) * np.asarray(g) for w, g in zip(*pair, strict=True))
                for pair in zip(weights, found, strict=True)
            ]
        )
        np.testing.assert_allclose(heard[step], np.square(total), rtol=1e-3, atol=1e-9)


def test_channels_that_die_together_do_not_take_their_group_along(images: tuple) -> None:
    """Each removal makes what is left of a group matter more, so none collapses."""
    model = normed()
    norm = model.get_layer("norm0")
    # A group whose channels differ more than those of the others.
    norm.gamma.assign(np.geomspace(0.05, 5, 6))
    learn = tfprune.LearnStructure(filters=0.5, end=0.9, frequency=1)
    history = fit(model, images, learn, optimizer=keras.optimizers.SGD(0.0))
    assert history["live/conv0"][-1] >= 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "LearnStructure needs a strength, or a target such as macs=0.5"),
        ({"macs": 0.5, "params": 0.5}, "LearnStructure takes one target, not macs and params"),
        (
            {"penalty": tfprune.GroupLasso(0.1, "depth"), "macs": 0.5},
            "LearnStructure has targets for filters only: give depth a strength",
        ),
        ({"macs": 1.5}, "macs=1.5 is not a share to keep: give a number in 0..1"),
        (
            {"macs": 0.5, "begin": 0.5, "end": 0.5},
            "begin=0.5, end=0.5 is no part of a training: give 0 <= begin < end <= 1",
        ),
    ],
)
def test_what_cannot_be_learnt_is_said(said: dict, message: str) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.LearnStructure(**said)
    assert str(error.value) == message


def test_a_target_wants_a_training_of_known_length(images: tuple) -> None:
    def endless():
        while True:
            yield images[0][:8], np.zeros((8, 3))

    model = normed()
    model.compile("sgd", "mse")
    with pytest.raises(tfprune.UsageError) as error:
        model.fit(
            endless(),
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[tfprune.LearnStructure(macs=0.5)],
        )
    assert str(error.value) == (
        "a target needs to know how long the training is: give fit steps_per_epoch"
    )


def blocks(projection: bool = False) -> keras.Model:
    """Three residual blocks; the first may have a shortcut that is computed."""
    x = keras.Input((8, 8, 4))
    y = layers.ReLU()(layers.Conv2D(4, 3, padding="same", name="stem")(x))
    for index in range(3):
        z = layers.Conv2D(4, 3, padding="same", name=f"inner{index}")(y)
        z = layers.ReLU()(layers.BatchNormalization(name=f"inner_norm{index}")(z))
        z = layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{index}")(z)
        z = layers.Dropout(0.1)(layers.BatchNormalization(name=f"norm{index}")(z))
        if projection and index == 0:
            y = layers.BatchNormalization(name="shortcut")(layers.Conv2D(4, 1)(y))
        y = layers.ReLU()(layers.Add(name=f"add{index}")([y, z]))
    return randomised(keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y))))


def test_depth_takes_whole_branches_to_zero(images: tuple) -> None:
    x = np.concatenate([images[0], images[0][..., :1]], -1)
    model = blocks()
    for index, size in enumerate((0.05, 1.0, 4.0)):
        for weight in model.get_layer(f"norm{index}").trainable_weights:
            weight.assign(weight * size)
    learn = tfprune.LearnStructure(tfprune.GroupLasso(0.02, "depth"))
    history = fit(model, (x, images[1]), learn)
    dead = []
    for index in range(3):
        norm = model.get_layer(f"norm{index}")
        zero = (np.asarray(norm.gamma) == 0) & (np.asarray(norm.beta) == 0)
        assert zero.all() or not zero.any()
        assert history[f"live/norm{index}"][-1] == int(not zero.all())
        dead.append(zero.all())
    assert 0 < sum(dead) < 3
    assert history["sparsity"][-1] == pytest.approx(sum(dead) / 3)


def test_a_branch_beside_a_computed_shortcut_is_none() -> None:
    assert of_branches(blocks()).names == ("norm0", "norm1", "norm2")
    assert of_branches(blocks(projection=True)).names == ("norm1", "norm2")


def test_depth_wants_branches(images: tuple) -> None:
    model = normed()
    model.compile("sgd", "mse")
    learn = tfprune.LearnStructure(tfprune.GroupLasso(0.1, "depth"))
    with pytest.raises(tfprune.UsageError) as error:
        model.fit(images[0], np.zeros((64, 3)), verbose=0, callbacks=[learn])
    assert str(error.value) == (
        f"model {model.name!r} has no residual branch to learn about: depth is for blocks that "
        "are added to what they take"
    )
