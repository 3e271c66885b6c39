from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune.filters.unit_weights import of_branches

from .harness import assert_close, assert_same, outputs, randomised


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


@pytest.mark.slow
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


@pytest.mark.slow
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
            heard.append(learn._proximal.progress().gradients)

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
        (
            {"macs": 0.5, "params": 0.5},
            "give exactly one target of filters, macs, params, cycles, latency, milliseconds, "
            "sram, flash, not macs and params",
        ),
        (
            {"penalty": tfprune.GroupLasso(0.1, "depth"), "macs": 0.5},
            "LearnStructure has targets for filters only: give depth a strength",
        ),
        ({"macs": 1.5}, "macs=1.5 is not a share to keep: give a number in 0..1"),
        (
            {"macs": 0.5, "begin": 0.5, "end": 0.5},
            "begin=0.5, end=0.5 is not a part of a training: give 0 <= begin < end <= 1",
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


@pytest.mark.slow
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
