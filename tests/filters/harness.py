"""One harness for every construct that channels can pass through, as Keras' `run_layer_test`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import UsageError
from tfprune.filters import ChannelGroups, RemovalPlan, rebuild
from tfprune.filters.groups import ModelSize
from tfprune.model.graph import finalize_states
from tfprune.slimming import plan

BATCH = 3


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Gives every weight a value that matters: zero biases and unit variances hide bugs."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("moving_variance", "variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif variable.name == "gamma":
            value = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        else:
            value = rng.normal(scale=0.5, size=shape)
        variable.assign(value)
    finalize_states(model)
    return model


def examples(model: keras.Model, seed: int = 1) -> list[np.ndarray]:
    """A random batch for each input of a model."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 4, (BATCH, *each.shape[1:])).astype(each.dtype)
        if each.dtype.startswith("int")
        else rng.normal(size=(BATCH, *each.shape[1:])).astype(np.float32)
        for each in model.inputs
    ]


def outputs(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What a model answers at inference, each output an array."""
    found = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [
        np.asarray(keras.ops.convert_to_numpy(each), np.float32)
        for each in keras.tree.flatten(found)
    ]


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert np.isfinite(other).all()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@contextmanager
def silenced(groups: ChannelGroups, alive: np.ndarray, roles: set[str]) -> Iterator[None]:
    """While it lasts, the weights of the given roles are zero for the units that go."""
    before = groups.model.get_weights()
    for entry in groups.trace.slices.values():
        if entry.role in roles:
            shape = [1] * len(entry.variable.shape)
            shape[entry.axis] = -1
            kept = groups.kept(alive, entry.ids).reshape(shape)
            entry.variable.assign(np.asarray(entry.variable) * kept)
    yield
    groups.model.set_weights(before)


def random_alive(groups: ChannelGroups, rng: np.random.Generator) -> np.ndarray:
    """Units that live: each removable one goes by chance, but every group keeps one."""
    alive = np.ones(groups.unit_count, bool)
    for group in groups:
        units = rng.permutation(group.units[group.removable])
        going = rng.integers(0, min(len(units), group.size - 1) + 1)
        alive[units[:going]] = False
    return alive


def asked(groups: ChannelGroups, alive: np.ndarray) -> dict[str, list[int]]:
    """What to ask of `remove_filters` to keep `alive`: one channel a unit, the rest must follow."""
    wanted: dict[str, list[int]] = {}
    for group in groups:
        path = group.layers[0]
        for unit in group.units[~alive[group.units]]:
            index = int(np.flatnonzero(groups.producers[path] == unit)[-1])
            wanted.setdefault(path, []).append(index)
    return wanted


def assert_ordinary(found: RemovalPlan, slim: keras.Model) -> None:
    """A slim model keeps names and interface, and is as small as the plan's cost says."""
    model, cost = found.groups.model, ModelSize(found.groups)
    assert type(slim) is type(model)
    assert [each.name for each in slim.layers] == [each.name for each in model.layers]
    for one, other in zip(slim.inputs + slim.outputs, model.inputs + model.outputs, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        # Keras names a tensor after its Input only where the Input was named by hand.
        assert one._keras_history.operation.name == other._keras_history.operation.name
    assert slim.count_params() == cost.params(found.alive) <= model.count_params()
    assert tfprune.macs(slim) == cost.macs(found.alive) <= tfprune.macs(model)
    for layer in slim.layers:
        assert not type(layer).__module__.startswith("tfprune")


def coupled_alike(found: RemovalPlan, slim: keras.Model) -> bool:
    """Whether the channels that a plan left still go together as they did.

    What was coupled may come loose, as when the groups of a convolution are left with one channel.
    """
    after = ChannelGroups(slim).producers
    return all(
        _partition(units[found.alive[units]]) == _partition(after.get(path, np.empty(0, int)))
        for path, units in found.groups.producers.items()
    )


def _partition(units: np.ndarray) -> list[int]:
    return np.unique(units, return_inverse=True)[1].tolist()


def run_slim_test(
    model: keras.Model,
    *,
    removable: bool | None = True,
    exact: bool = True,
    dies: bool | None = True,
    tolerance: float = 1e-5,
    save: bool = True,
    seed: int = 0,
) -> ChannelGroups:
    """Checks all that is true of slimming on one model.

    Args:
        model: uncompiled; its weights become random.
        removable: whether a channel can go; None where that is not known.
        exact: whether every plan promises that slim equals masked.
        dies: whether a unit whose filter and scale weights are zero is silent; None where
            that is not known.
        tolerance: relative to the largest output.
        save: whether to save and load the slim model; off where its layers forbid it.
        seed: of weights, inputs and plans.

    Returns:
        The channel groups of the model.
    """
    rng = np.random.default_rng(seed)
    randomised(model, seed)
    before = [np.array(each) for each in model.get_weights()]
    inputs = examples(model, seed + 1)
    wanted = outputs(model, inputs)
    groups = ChannelGroups(model)
    found_removable = any(group.removable.any() for group in groups)
    assert removable in (None, found_removable)

    # Nothing removed: the same bits.
    assert_same(outputs(tfprune.remove_filters(model, {}), inputs), wanted)
    if not found_removable:
        with pytest.raises(UsageError, match="removes nothing"):
            plan(model, filters=0.5)
        return groups

    # Slim equals masked, and is an ordinary model.
    half = plan(model, filters=0.5)
    for group in half.groups:
        fixed = int((~group.removable).sum())
        share = round(0.5 * int(group.removable.sum()))
        assert half.alive[group.units].sum() == max(1, fixed + share)
    slim = rebuild(half)
    fewer = half.alive & random_alive(groups, rng)
    for group in groups:
        if not fewer[group.units].any():
            fewer[group.units] = half.alive[group.units]
    by_name = tfprune.remove_filters(model, asked(groups, fewer))
    for alive, slimmer in ((half.alive, slim), (fewer, by_name)):
        found = RemovalPlan(groups, alive)
        assert_ordinary(found, slimmer)
        assert not (exact and found.inexact)
        if not found.inexact:
            with silenced(groups, alive, {"input"}):
                masked = outputs(model, inputs)
            assert_close(outputs(slimmer, inputs), masked, tolerance)

    # Twice equals once with both plans.
    rest = {
        path: np.flatnonzero(~fewer[units[half.alive[units]]]).tolist()
        for path, units in groups.producers.items()
        if not fewer[units[half.alive[units]]].all()
    }
    if coupled_alike(half, slim):
        twice = tfprune.remove_filters(slim, rest)
        assert_same(twice.get_weights(), by_name.get_weights())
        assert_same(outputs(twice, inputs), outputs(by_name, inputs))

    # Dead is free, and exactly the dead go.
    alive = random_alive(groups, rng)
    with silenced(groups, alive, {"filter", "scale"}):
        freed = plan(model, dead=True)
        assert (freed.alive >= alive).all()
        if dies is not None:
            np.testing.assert_array_equal(freed.alive, alive if dies else np.ones_like(alive))
        assert_close(outputs(rebuild(freed), inputs), outputs(model, inputs), tolerance)

    if save:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slim.keras"
            by_name.save(path)
            loaded = keras.saving.load_model(path)
        assert_same(outputs(loaded, inputs), outputs(by_name, inputs))

    # The original is as it was.
    assert_same(model.get_weights(), before)
    assert_same(outputs(model, inputs), wanted)
    return groups
