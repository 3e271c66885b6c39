"""Importance of any task: the loss is the model's own, on data in any form."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tests.data.forms import FORMS
from tests.tables import slow
from tfprune.data import Examples
from tfprune.filters import IMPORTANCE, channel_groups, recalibrate, scores
from tfprune.filters.importance import Criterion
from tfprune.learning import LearnStructure
from tfprune.vocabulary import NEED_DATA

from .harness import randomised

COUNT = 48  # one batch
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(COUNT, 6, 6, 2)).astype(np.float32)
WORDS = RNG.integers(0, 7, (COUNT, 3))
WEIGHTS = RNG.uniform(0.5, 2, COUNT).astype(np.float32)
CLASSES = RNG.integers(0, 3, COUNT)
NUMBERS = RNG.normal(size=(COUNT, 2)).astype(np.float32)
INPUTS = {"words": WORDS, "image": IMAGES}


def two_ends(kind: type = list) -> keras.Model:
    """Two inputs, whole numbers among them, and two outputs; in lists or dicts."""
    words, image = (
        keras.Input((3,), dtype="int32", name="words"),
        keras.Input((6, 6, 2), name="image"),
    )
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Concatenate()([layers.Flatten()(layers.Embedding(7, 2)(words)), x])
    x = layers.Dense(5, "relu", name="hidden")(x)
    what = layers.Dense(3, "softmax", name="what")(x)
    where = layers.Dense(2, name="where")(x)
    if kind is dict:
        return randomised(
            keras.Model({"words": words, "image": image}, {"what": what, "where": where})
        )
    return randomised(keras.Model([words, image], [what, where]))


def single(*ends: Any) -> keras.Model:
    return randomised(
        keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="conv"), *ends])
    )


LOSSES = {"what": "sparse_categorical_crossentropy", "where": "mse"}
TASKS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "regression": (
        lambda: single(layers.Flatten(), layers.Dense(2)),
        {"loss": keras.losses.Huber()},
        (IMAGES, NUMBERS),
    ),
    "weights of examples": (
        lambda: single(layers.Flatten(), layers.Dense(3, "softmax")),
        {"loss": "sparse_categorical_crossentropy"},
        (IMAGES, CLASSES, WEIGHTS),
    ),
    "segmentation": (
        lambda: single(layers.Conv2D(3, 1)),
        {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        (IMAGES, RNG.integers(0, 3, (COUNT, 4, 4))),
    ),
    "binary": (
        lambda: single(layers.Flatten(), layers.Dense(1, "sigmoid")),
        {"loss": "binary_crossentropy"},
        (IMAGES, CLASSES > 0),
    ),
    "classes, in a dict": (
        lambda: keras.Model(
            (inner := single(layers.Flatten(), layers.Dense(3, "softmax"))).inputs,
            {"what": inner.outputs[0]},
        ),
        {"loss": {"what": "sparse_categorical_crossentropy"}},
        (IMAGES, CLASSES),
    ),
    "two outputs": (
        two_ends,
        {"loss": LOSSES, "loss_weights": {"what": 1.0, "where": 3.0}},
        (INPUTS, (CLASSES, NUMBERS)),
    ),
    "two outputs by name": (
        lambda: two_ends(dict),
        {"loss": LOSSES},
        (INPUTS, {"where": NUMBERS, "what": CLASSES}, {"where": WEIGHTS, "what": WEIGHTS[::-1]}),
    ),
    "one of two outputs": (
        lambda: two_ends(dict),
        {"loss": {"where": "mae", "what": None}},
        (INPUTS, {"where": NUMBERS}),
    ),
}


def loss_of(model: keras.Model, data: Any) -> float:
    """What Keras itself reports on the batch."""
    x, y, *weights = data
    if isinstance(y, tuple):
        y = list(y)
    if isinstance(y, dict) and len(y) < len(model.outputs):
        y = {"what": CLASSES, **y}
    found = model.evaluate(x, y, COUNT, 0, *weights, return_dict=True)
    return float(found["loss"])


@pytest.mark.parametrize(
    "task", [slow(task) if number % 2 else task for number, task in enumerate(TASKS)]
)
def test_taylor_is_the_change_of_the_models_own_loss(task: str) -> None:
    build, settings, data = TASKS[task]
    model = build()
    model.compile("adam", **settings)
    groups = channel_groups(model)
    found = scores(groups, "taylor", data)[groups.producers["conv"]]
    scaled = "norm" if isinstance(data[0], dict) else "conv"
    model.compile(**settings, jit_compile=False)
    step, changes = 1e-2, []
    for index in range(4):
        losses = []
        for factor in (1 + step, 1 - step):
            before = model.get_weights()
            for variable in model.get_layer(scaled).trainable_variables:
                value = np.array(variable)
                value[..., index] *= factor
                variable.assign(value)
            losses.append(loss_of(model, data))
            model.set_weights(before)
        changes.append(abs(losses[0] - losses[1]))
    wanted = np.array(changes) / np.mean(changes)
    np.testing.assert_allclose(found, wanted, rtol=0.1, atol=0.02)


TARGETS = {"what": CLASSES, "where": NUMBERS}


@pytest.fixture(scope="module")
def compiled() -> keras.Model:
    model = two_ends(dict)
    model.compile("adam", LOSSES)
    return model


@pytest.fixture(scope="module")
def ranked(compiled: keras.Model) -> np.ndarray:
    return scores(channel_groups(compiled), "taylor", (INPUTS, TARGETS, WEIGHTS))


@pytest.mark.parametrize("form", ["tf.data", "PyDataset", "stream"])
def test_every_form_of_the_same_data_ranks_alike(
    compiled: keras.Model, ranked: np.ndarray, form: str
) -> None:
    found = scores(channel_groups(compiled), "taylor", FORMS[form](INPUTS, TARGETS, WEIGHTS))
    np.testing.assert_array_equal(found, ranked)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_recalibrates_alike(compiled: keras.Model, form: str) -> None:
    found = recalibrate(compiled, FORMS[form](INPUTS, TARGETS), 16).get_layer("norm")
    images = np.asarray(compiled.get_layer("conv")(IMAGES)).reshape(3, -1, 4)
    np.testing.assert_allclose(found.moving_mean, images.mean(1).mean(0), rtol=1e-4, atol=1e-5)
    again = recalibrate(compiled, INPUTS, 16)
    np.testing.assert_array_equal(found.moving_mean, again.get_layer("norm").moving_mean)


def test_rounds_rank_several_times_and_read_a_generator_once() -> None:
    model = single(layers.Flatten(), layers.Dense(3))
    options = {"filters": 0.25, "importance": "taylor", "rounds": 2}
    plan = tfprune.plan(model, **options, data=FORMS["generator"](IMAGES, CLASSES))
    whole = tfprune.plan(model, **options, data=(IMAGES, CLASSES))
    assert plan.removed == whole.removed
    assert len(plan.removed["conv"]) == 3


def test_statistics_of_whole_numbers_are_those_of_training() -> None:
    """Ids beyond float32's whole numbers stay what they are."""
    ids = keras.Input((1,), dtype="int64")
    near = layers.Lambda(lambda x: keras.ops.cast(x - 2**24, "float32"), output_shape=(1,))(ids)
    model = keras.Model(ids, layers.BatchNormalization(name="norm")(near))
    values = 2**24 + np.array([[1], [3], [5], [7]])
    twin = recalibrate(model, values, 4)
    np.testing.assert_allclose(twin.get_layer("norm").moving_mean, [4.0])


def test_weights_of_one_change_nothing() -> None:
    model = single(layers.Flatten(), layers.Dense(3))
    groups = channel_groups(model)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plain = scores(groups, "taylor", (IMAGES, CLASSES))
    weighted = scores(groups, "taylor", (IMAGES, CLASSES, np.ones(COUNT)))
    np.testing.assert_allclose(weighted, plain, rtol=1e-4)
    column = scores(groups, "taylor", (IMAGES, CLASSES[:, None]))
    np.testing.assert_array_equal(column, plain)


@pytest.mark.reliability("your own data", "refused")
@pytest.mark.parametrize(
    ("settings", "data", "says"),
    [
        (None, (INPUTS, [CLASSES, NUMBERS]), "which is not compiled, is not known (model "),
        (LOSSES, INPUTS, "data has no targets, and gradients need what model"),
        (LOSSES, (INPUTS, [CLASSES]), "there are 1 targets: give one array for each output"),
        (LOSSES, (INPUTS, {"what": CLASSES}), "targets for what and none for where"),
        (LOSSES, (INPUTS, {"what": CLASSES, "how": NUMBERS}), "targets for how, and the outputs"),
        (LOSSES, (INPUTS, [CLASSES, IMAGES]), "do not fit the loss of model"),
    ],
)
def test_targets_that_do_not_fit_are_one_line(settings: Any, data: Any, says: str) -> None:
    model = two_ends()
    if settings:
        model.compile("adam", settings)
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.plan(model, macs=0.5, importance="taylor", data=data)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_learn_structure_reads_the_data_of_an_importance_of_your_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Examples] = []

    def first(groups: Any, data: Examples) -> np.ndarray:
        seen.append(data)
        return np.arange(1.0, groups.unit_count + 1)

    monkeypatch.setitem(IMPORTANCE, "first", Criterion(first, needs_data=True))
    with pytest.raises(tfprune.UsageError, match="'first' needs labelled examples: give LearnStr"):
        LearnStructure(filters=0.5, importance="first")
    model = single(layers.GlobalAveragePooling2D(), layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = FORMS["generator"](IMAGES, CLASSES)
    learner = LearnStructure(filters=0.5, importance="first", data=data, frequency=2)
    model.fit(IMAGES, CLASSES, 4, 2, verbose=0, callbacks=[learner])
    assert len(seen) > 1
    assert {len(each) for each in seen} == {COUNT}
    dead = np.abs(np.asarray(model.get_layer("conv").kernel)).sum(axis=(0, 1, 2)) == 0
    np.testing.assert_array_equal(dead, [True, True, False, False])
    # Gradients of the training are enough for `taylor`.
    LearnStructure(filters=0.5, importance="taylor")


def test_the_names_that_need_data_are_the_vocabularys() -> None:
    assert {name for name, row in IMPORTANCE.items() if row.needs_data} == NEED_DATA
