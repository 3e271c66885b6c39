from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfprune import UsageError, data
from tfprune.tasks import TaskSpec, find_task
from tfprune.training import Training, check, fit
from tfprune.training.binding import Binding

RNG = np.random.default_rng(0)
COUNT = 24
AGE = RNG.normal(size=(COUNT, 1)).astype(np.float32)
SOUND = RNG.normal(size=(COUNT, 16, 2)).astype(np.float32)
SIGN = (AGE[:, 0] > 0).astype(np.int64)
ANGLE = SOUND.mean(axis=(1, 2))[:, None]


def dataset(inputs: Any, targets: Any, weights: Any = None) -> data.Dataset:
    split = data.Arrays(inputs, targets, weights)
    return data.Dataset("toy", (), split, split, split, "a toy")


def two(wrap_in: Callable[[Any, Any], Any], wrap_out: Callable[[Any, Any], Any]) -> keras.Model:
    """A model with two inputs and two outputs, in whichever structure."""
    # The names are not in the order of the alphabet, and not in that of the keys.
    age, sound = keras.Input((1,), name="z_age"), keras.Input((16, 2), name="a_sound")
    one = layers.Dense(2, name="sign")(age)
    other = layers.Dense(1, name="angle")(layers.GlobalAveragePooling1D()(sound))
    return keras.Model(wrap_in(age, sound), wrap_out(one, other))


def as_list(one, other):
    return [one, other]


def as_tuple(one, other):
    return (one, other)


def inputs_by_name(age, sound):
    return {"z_age": age, "a_sound": sound}


def outputs_by_name(sign, angle):
    return {"sign": sign, "angle": angle}


def nested(age, sound):
    return [{"z_age": age}, {"a_sound": sound}]


# A dict of the data may have its keys in any order.
NAMED = ({"a_sound": SOUND, "z_age": AGE}, {"angle": ANGLE, "sign": SIGN})
ORDERED = ((AGE, SOUND), (SIGN, ANGLE))


@pytest.mark.parametrize("wrap_out", [as_list, outputs_by_name])
@pytest.mark.parametrize("wrap_in", [as_list, as_tuple, inputs_by_name, nested])
@pytest.mark.parametrize("trees", [NAMED, ORDERED], ids=["named", "ordered"])
def test_each_array_reaches_its_input_and_its_output(wrap_in, wrap_out, trees) -> None:
    model = two(wrap_in, wrap_out)
    toy = dataset(*trees)
    if trees is ORDERED and (wrap_in is inputs_by_name or wrap_out is outputs_by_name):
        # The order of a dict that Keras flattens is not the one in which it was written.
        with pytest.raises(UsageError, match="have an order, and the model has a dict of a"):
            Binding(model, toy)
        return
    inputs, targets = next(iter(Binding(model, toy).bound(data.plain_batches(toy.train, COUNT))))
    with warnings.catch_warnings():
        # Keras warns of a structure that is not that of the model.
        warnings.simplefilter("error")
        outputs = model(inputs)
    expected = [
        np.asarray(model.get_layer("sign")(AGE)),
        np.asarray(model.get_layer("angle")(SOUND.mean(axis=1))),
    ]
    if isinstance(outputs, dict):
        outputs, targets = ([tree["sign"], tree["angle"]] for tree in (outputs, targets))
    for output, array in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, array, rtol=1e-5)
    np.testing.assert_array_equal(targets[0], SIGN)
    np.testing.assert_array_equal(targets[1], ANGLE)


@pytest.mark.parametrize(("named", "weighted"), [(True, "each"), (False, "all"), (False, None)])
def test_a_training_equals_that_of_keras(named: bool, weighted: str | None) -> None:
    """Two inputs, two outputs, with sample weights for both outputs together or for each."""
    keras.utils.set_random_seed(0)
    ours = two(inputs_by_name if named else as_list, outputs_by_name if named else as_list)
    keras.utils.set_random_seed(0)
    theirs = two(as_list, as_list)
    some, others = RNG.uniform(size=(2, COUNT)).astype(np.float32)
    if weighted == "each":
        given: Any = {"angle": others, "sign": some} if named else (some, others)
    else:
        given = some if weighted else None
    toy = dataset(*(NAMED if named else ORDERED), given)
    training = Training(epochs=2, batch_size=COUNT, learning_rate=0.1, schedule="constant")
    kinds = {"sign": "classification", "angle": "regression"}
    task = find_task(ours, TaskSpec(kind=kinds, figure="angle/mae"), toy)
    history = fit(ours, toy, training, seed=0, task=task).history
    assert {task.figure.name, f"val_{task.figure.name}"} <= set(history.columns)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    loss = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
    theirs.compile(optimizer, loss)
    both = {None: None, "all": [some, some], "each": [some, others]}[weighted]
    expected = theirs.fit(
        [AGE, SOUND], [SIGN, ANGLE], COUNT, epochs=2, sample_weight=both, verbose=0
    )
    np.testing.assert_allclose(history["loss"], expected.history["loss"], rtol=1e-5)
    for name in ("sign", "angle"):
        for one, other in zip(
            ours.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)
    assert {"val_sign_loss", "val_angle_loss"} <= set(history.columns)


def test_one_array_in_a_dict_reaches_the_only_input() -> None:
    model = keras.Sequential([keras.Input((16, 2)), layers.Flatten(), layers.Dense(1)])
    toy = dataset({"sound": SOUND}, {"angle": ANGLE})
    task = find_task(model, TaskSpec(kind="regression"), toy)
    history = fit(model, toy, Training(epochs=1), seed=0, task=task).history
    assert {"mae", "val_mae", "loss", "val_loss"} <= set(history.columns)
    guessed = model.predict(SOUND, verbose=0)
    assert history["val_mae"].iloc[-1] == pytest.approx(np.abs(guessed - ANGLE).mean(), rel=1e-5)


def test_texts_are_inputs_too() -> None:
    words = np.array([["good film"], ["bad film"]] * 8, dtype=object)
    vectors = layers.TextVectorization(output_sequence_length=2, vocabulary=["good", "bad", "film"])
    inputs = keras.Input((1,), dtype="string")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(6, 4)(vectors(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    split = data.Arrays(words.astype("S"), np.array([1, 0] * 8))
    toy = data.Dataset("films", ("bad", "good"), split, split, split, "films")
    training = Training(epochs=20, batch_size=4, optimizer="adam", learning_rate=0.1)
    history = fit(model, toy, training, seed=0).history
    assert history["val_accuracy"].iloc[-1] == 1.0


def plain(shape=(16, 2), dtype="float32", batch=None) -> keras.Model:
    inputs = keras.Input(shape, batch_size=batch, dtype=dtype)
    x = layers.Lambda(lambda t: tf.zeros((tf.shape(t)[0], 4)), output_shape=(4,))(inputs)
    return keras.Model(inputs, layers.Dense(1)(x), name="net")


SOUNDS = "and toy has inputs of (None, 16, 2): build it with this input shape"


@pytest.mark.parametrize(
    ("model", "trees", "message"),
    [
        (
            lambda: plain((16, 3)),
            (SOUND, ANGLE),
            f"model 'net' takes (None, 16, 3), {SOUNDS}",
        ),
        (lambda: plain((32,)), (SOUND, ANGLE), f"model 'net' takes (None, 32), {SOUNDS}"),
        (
            lambda: plain(batch=8),
            (SOUND, ANGLE),
            "model 'net' takes only batches of 8, and the last batch of a data set may be "
            "smaller: build it with an open batch size",
        ),
        (
            lambda: plain(dtype="int32"),
            (SOUND, ANGLE),
            "model 'net' takes int32, and toy has inputs of float32: build it with an input of "
            "float32, or give data of int32",
        ),
        (
            lambda: plain((1,), "string"),
            (AGE, ANGLE),
            "model 'net' takes string, and toy has inputs of float32: build it with an input of "
            "float32, or give data of string",
        ),
        (
            plain,
            ((AGE, SOUND), ANGLE),
            "model 'net' does not fit toy: the number of inputs is 2: give one array for each of "
            "INPUT, in this order",
        ),
        (
            plain,
            (SOUND, (SIGN, ANGLE)),
            "model 'net' does not fit toy: the number of targets is 2: give one array for each of "
            "OUTPUT, in this order",
        ),
        (
            lambda: two(as_list, as_list),
            ({"z_age": AGE, "sound": SOUND}, NAMED[1]),
            "model 'MODEL' does not fit toy: the inputs are named z_age, sound: give one array for "
            "each of z_age, a_sound",
        ),
        (
            lambda: two(as_list, as_list),
            ((SOUND, AGE), ORDERED[1]),
            "input 'z_age' of model 'MODEL' takes (None, 1), and toy has inputs of (None, 16, 2): "
            "build it with this input shape",
        ),
        (
            plain,
            (SOUND, None),
            "toy has inputs without targets, and a training needs both: give pairs of inputs and "
            "targets",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(model, trees, message: str) -> None:
    built = model()
    names = {
        "MODEL": built.name,
        "INPUT": built.inputs[0].name,
        "OUTPUT": built.output_names[0],
    }
    for word, name in names.items():
        message = message.replace(word, name)
    with pytest.raises(UsageError) as error:
        check(built, dataset(*trees), 8)
    assert str(error.value) == message


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_found_before_the_first_epoch(value, streamed) -> None:
    age = AGE.copy()
    age[5] = value
    model = two(as_list, as_list)
    bad = data.Arrays((age, SOUND), (SIGN, ANGLE))
    if streamed:
        given = bad.examples.given
        bad = data.Stream(
            lambda seed, epoch: tf.data.Dataset.from_tensor_slices(given), COUNT, bad.element_spec
        )
    good = data.Arrays((AGE, SOUND), (SIGN, ANGLE))
    toy = data.Dataset("toy", (), good, bad, good, "a toy")
    kinds = {"sign": "classification", "angle": "regression"}
    task = find_task(model, TaskSpec(kind=kinds, figure="angle/mae"), toy)
    with pytest.raises(UsageError) as error:
        check(model, toy, 8, task)
    assert str(error.value) == (
        "toy (validation) has inputs for 'z_age' that are not finite, first in example 5, counted "
        "from 0: replace them, or leave these examples out"
    )


def test_a_model_without_a_graph_is_refused() -> None:
    model = keras.Sequential([layers.Dense(1)], name="lazy")
    with pytest.raises(UsageError, match="model 'lazy' has no input"):
        check(model, dataset(AGE, ANGLE), 8)


def test_a_model_without_anything_to_train_is_refused() -> None:
    model = plain()
    model.trainable = False
    with pytest.raises(UsageError, match="model 'net' has no trainable weights"):
        check(model, dataset(SOUND, ANGLE), 8)


def test_a_quantized_model_is_refused() -> None:
    model = keras.Sequential([keras.Input((16, 2)), layers.Flatten(), layers.Dense(4)], name="net")
    model.layers[-1].quantize("int8")
    with pytest.raises(UsageError, match="model 'net' is quantized, and integers cannot be"):
        check(model, dataset(SOUND, ANGLE), 8)


def test_a_last_axis_of_one_is_added_or_dropped_as_keras_does() -> None:
    for shape, array in (((16, 2, 1), SOUND), ((), AGE)):
        model, toy = plain(shape), dataset(array, ANGLE)
        check(model, toy, 8, find_task(model, TaskSpec(kind="regression"), toy))
