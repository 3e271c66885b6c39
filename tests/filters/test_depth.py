"""Residual blocks that add nothing: what goes, what stays, and that no output changes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tests.versions import newer_keras
from tfprune import zoo
from tfprune.filters.depth import remove_dead_blocks, removed_layers
from tfprune.model.cloning import copy
from tfprune.model.graph import named_layers

from .harness import assert_same, examples, outputs, randomised
from .models import conv, head, image
from .strategies import NUMBERS, Graph, Step, built, described

BLOCKS = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]


def silence(*silent: layers.Layer) -> None:
    """Lets layers answer zero, whatever they are asked."""
    for layer in silent:
        for variable in layer.trainable_variables:
            variable.assign(np.zeros(variable.shape))


def branch(x: keras.KerasTensor, name: str, filters: int | None = None) -> keras.KerasTensor:
    y = conv(3, name=f"{name}_conv")(x)
    y = conv(filters or x.shape[-1], activation="relu", name=f"{name}_last")(layers.ReLU()(y))
    return layers.BatchNormalization(name=name)(y)


def checked(model: keras.Model) -> keras.Model:
    """The model without dead blocks, once it is known to answer as before."""
    before, inputs = model.get_weights(), examples(model)
    wanted = outputs(model, inputs)
    slim = remove_dead_blocks(model)
    assert_same(outputs(slim, inputs), wanted)
    # An ordinary model, whose graph holds no trace of the work.
    assert type(slim) is type(model)
    assert [each.shape for each in slim.inputs] == [each.shape for each in model.inputs]
    for one, other in zip(slim.inputs + slim.outputs, model.inputs + model.outputs, strict=True):
        assert one._keras_history.operation.name == other._keras_history.operation.name
        assert one.dtype == other.dtype
    assert_same(outputs(copy(slim), inputs), wanted)
    # The original is as it was.
    assert_same(model.get_weights(), before)
    assert_same(outputs(model, inputs), wanted)
    return slim


@pytest.fixture(scope="module")
def resnet() -> keras.Model:
    return randomised(zoo.build("resnet20", (8, 8, 3), 4, width=2))


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(st.sets(st.sampled_from(BLOCKS)))
def test_each_dead_block_takes_two_layers_of_a_resnet(resnet: keras.Model, dead: set[str]) -> None:
    model = copy(resnet)
    silence(*(model.get_layer(f"{block}_bn2") for block in dead))
    slim = checked(model)
    gone = removed_layers(model, slim)
    parts = ("conv1", "bn1", "relu1", "conv2", "bn2", "add")
    assert sorted(gone) == sorted(f"{block}_{part}" for block in dead for part in parts)
    # Layers called once have one output.
    assert slim.get_layer("logits").output is slim.output
    # Depth counts the weights on the main path.
    depth = sum(
        name.endswith(("_conv", "_conv1", "_conv2", "logits")) for name in named_layers(slim)
    )
    shortcuts = sum(name.endswith("_shortcut_conv") for name in named_layers(slim))
    assert depth - shortcuts == 20 - 2 * len(dead)
    assert (tfprune.macs(slim) < tfprune.macs(model)) == bool(dead)
    assert remove_dead_blocks(slim).count_params() == slim.count_params()


def test_a_dead_shortcut_leaves_the_branch(resnet: keras.Model) -> None:
    model = copy(resnet)
    silence(model.get_layer("stage2_block1_shortcut_bn"))
    found = removed_layers(model, checked(model))
    wanted = ["stage2_block1_shortcut_conv", "stage2_block1_shortcut_bn", "stage2_block1_add"]
    assert sorted(found) == sorted(wanted)


def test_a_layer_without_weights_is_as_dead_as_a_norm() -> None:
    x = image(4)
    last = conv(4, name="last")
    model = randomised(
        keras.Model(x, head(layers.Add(name="sum")([x, last(conv(3, name="a")(x))])))
    )
    assert removed_layers(model, checked(model)) == []
    silence(last)
    assert removed_layers(model, checked(model)) == ["a", "last", "sum"]
    last.bias.assign([0, 1e-9, 0, 0])
    assert removed_layers(model, checked(model)) == []


def test_it_stays_compiled_and_can_be_saved_and_trained(tmp_path: Path) -> None:
    x = image(4)
    y = layers.Add()([branch(x, "live"), branch(x, "dead")])
    model = randomised(keras.Model(x, head(y)))
    silence(model.get_layer("dead"))
    assert not remove_dead_blocks(model).compiled
    model.compile("sgd", "mse")
    slim = checked(model)
    slim.save(tmp_path / "slim.keras")
    loaded = keras.saving.load_model(tmp_path / "slim.keras")
    inputs = examples(model)
    assert_same(outputs(loaded, inputs), outputs(model, inputs))
    # Filters of what is left can go as before.
    assert tfprune.macs(tfprune.slim(slim, filters=0.5)) < tfprune.macs(slim) < tfprune.macs(model)
    slim.fit(inputs[0], np.zeros((len(inputs[0]), 2)), verbose=0)
    assert slim.optimizer is not model.optimizer


@pytest.mark.parametrize("wrapped", [False, True])
def test_nested_models(wrapped: bool) -> None:
    """A block inside, called twice, and a model that is a dead branch as a whole."""
    start = image(4)
    total = layers.Add(name="inner_sum")([start, branch(start, "dead"), branch(start, "live")])
    inner = keras.Model(start, [conv(4)(total)] if not wrapped else conv(4)(total), name="inner")
    if wrapped:
        inner = keras.Sequential([image(4), inner, layers.ReLU()], name="chain")
    start = image(4)
    whole = keras.Model(start, branch(start, "whole"), name="nothing")
    x = image(4)
    y = inner(layers.ReLU()(inner(x)[0] if not wrapped else inner(x)))
    y = layers.Add(name="outer_sum")([y[0] if not wrapped else y, whole(x)])
    model = randomised(keras.Model(x, head(y)))
    found = named_layers(model)
    prefix = "chain/inner" if wrapped else "inner"
    silence(found[f"{prefix}/dead"], found["nothing/whole"])
    slim = checked(model)
    gone = removed_layers(model, slim)
    assert {f"{prefix}/dead_conv", "nothing/whole_conv", "outer_sum"} <= set(gone)
    # Two operands are left inside.
    assert {f"{prefix}/inner_sum", f"{prefix}/live_conv"} <= set(named_layers(slim))
    assert len(slim.get_layer("chain" if wrapped else "inner")._inbound_nodes) == 2


def test_a_shared_layer_stays_where_something_else_needs_it() -> None:
    x = image(4)
    shared = conv(4, name="shared")
    dead = layers.BatchNormalization(name="dead")(layers.ReLU(name="gone")(shared(x)))
    y = layers.Add(name="sum")([x, dead])
    both = layers.Add(name="both")
    y = both([shared(y), layers.BatchNormalization(name="silent")(conv(4, name="unheard")(y))])
    y = both([y, x])
    model = randomised(keras.Model(x, head(y)))
    silence(model.get_layer("dead"), model.get_layer("silent"))
    gone = removed_layers(model, checked(model))
    assert sorted(gone) == ["dead", "gone", "silent", "sum", "unheard"]


@newer_keras("a model reads all its inputs")
def test_several_inputs_and_outputs_one_of_them_a_sum() -> None:
    x, y = keras.Input((6, 6, 4), name="x"), keras.Input((6, 6, 4), name="unheard")
    dead = layers.BatchNormalization(name="dead")(conv(4)(y))
    total = layers.Add(name="sum")([x, dead])
    model = randomised(keras.Model({"x": x, "unheard": y}, {"a": total, "b": head(total)}))
    silence(model.get_layer("dead"))
    inputs = dict(zip(("unheard", "x"), examples(model), strict=True))
    slim = remove_dead_blocks(model)
    for key, wanted in model(inputs).items():
        np.testing.assert_array_equal(slim(inputs)[key], wanted)
    assert slim.output_names == model.output_names
    assert [each.name for each in slim.inputs] == [each.name for each in model.inputs]
    assert isinstance(slim.get_layer("sum"), layers.Identity)
    assert "dead" in removed_layers(model, slim)


def test_a_raw_sum_goes_too() -> None:
    x = image(4)
    dead = conv(4, use_bias=False, name="dead")
    model = randomised(keras.Model(x, head(x + dead(x) + 0.5)))
    silence(dead)
    assert removed_layers(model, checked(model)) == ["dead"]


def test_sums_of_nothing() -> None:
    """Every operand is zero, and the sum is an operand of another one."""
    x = image(4)
    nothing = layers.Add(name="nothing")([branch(x, "one"), branch(x, "other")])
    model = randomised(keras.Model(x, head(layers.Add(name="sum")([nothing, x]))))
    silence(model.get_layer("one"), model.get_layer("other"))
    assert {"one", "other", "nothing", "sum"} <= set(removed_layers(model, checked(model)))
    x = image(4)
    model = randomised(keras.Model(x, head(layers.Add()([branch(x, "one"), branch(x, "other")]))))
    silence(model.get_layer("one"), model.get_layer("other"))
    # Something has to be zero.
    assert {"one", "other"} & set(named_layers(checked(model))) == {"one"}


def test_a_zero_that_spreads_or_has_another_type_stays() -> None:
    x = image(4)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    dead = layers.BatchNormalization(name="dead")(conv(4)(x))
    half = layers.Identity(dtype="float16")(x)
    sums = [layers.Add()([gate, dead]), layers.Add(dtype="float32")([half, dead])]
    model = randomised(keras.Model(x, [head(each) for each in sums]))
    silence(model.get_layer("dead"))
    assert removed_layers(model, checked(model)) == []


def test_a_sum_that_carries_a_mask_stays() -> None:
    x = keras.Input((5,), dtype="int32")
    y = layers.Embedding(4, 3, mask_zero=True)(x)
    dead = layers.Dense(3, name="dead")
    total = layers.Add(name="sum")([y, dead(y)])
    z = layers.Dense(3, name="later")(layers.LSTM(3)(total))
    model = randomised(keras.Model(x, layers.Add()([z, layers.Dense(3, name="gone")(z)])))
    silence(dead, model.get_layer("gone"))
    assert removed_layers(model, checked(model)) == ["gone"]


def test_own_classes_and_frozen_layers_stay() -> None:
    class Own(keras.Model):
        pass

    x = image(4)
    y = layers.Add()([branch(conv(4, name="held")(x), "live"), branch(x, "dead")])
    model = randomised(Own(x, head(y)))
    silence(model.get_layer("dead"))
    model.get_layer("held").trainable = False
    slim = checked(model)
    assert not slim.get_layer("held").trainable
    assert slim.get_layer("live_conv").trainable


def test_a_model_without_a_graph() -> None:
    class Subclassed(keras.Model):
        pass

    with pytest.raises(tfprune.UsageError, match="has no graph"):
        remove_dead_blocks(Subclassed())


ADDING = ["residual", "merge", "nested", "arithmetic", "shared", "batch_norm", "another_input"]
STEPS = st.builds(Step, st.sampled_from(ADDING), st.integers(0, 3), NUMBERS, NUMBERS)


@pytest.mark.slow
@settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(STEPS, min_size=2, max_size=6), st.integers(0, 9))
@newer_keras("a model reads all its inputs")
def test_any_graph(steps: list[Step], seed: int) -> None:
    model = randomised(built(Graph(tuple(steps))))
    note("\n".join(described(model)))
    rng = np.random.default_rng(seed)
    silence(*(each for each in named_layers(model).values() if rng.random() < 0.4))
    slim = checked(model)
    # Once is enough.
    assert removed_layers(slim, remove_dead_blocks(slim)) == []
