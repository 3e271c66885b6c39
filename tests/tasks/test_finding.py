"""A task comes from the specification, else from the compiled model, else from what is plain."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.small import COUNT, dataset, head, inputs_of, pixels, two_outputs
from tests.tasks.test_presets import agree
from tfprune import data
from tfprune.errors import UsageError
from tfprune.model.graph import output_activation
from tfprune.tasks import Task, TaskSpec, find_task

RNG = np.random.default_rng(0)
CLASSES = np.arange(COUNT) % 3
SIDES = np.arange(COUNT) % 2
HOT = np.eye(3, dtype=np.float32)[CLASSES]
MANY = (RNG.uniform(size=(COUNT, 3)) < 0.5).astype(np.int64)
NUMBERS = RNG.normal(size=COUNT).astype(np.float32)


def toys(model: keras.Model, targets: Any, **more: Any) -> data.Dataset:
    return dataset(inputs_of(model, np.random.default_rng(0)), targets, **more)


@pytest.mark.parametrize(
    ("model", "targets", "kind", "logits"),
    [
        (head(3), CLASSES, "classification", True),
        (head(3, "softmax"), CLASSES[:, None].astype(np.uint8), "classification", False),
        (head(3), HOT, "classification", True),
        (head(1, "sigmoid"), SIDES, "binary", False),
        (head(1, "sigmoid"), SIDES.astype(np.float32)[:, None], "binary", False),
        (head(3, "sigmoid"), MANY, "multi-label", False),
    ],
    ids=["logits", "softmax", "one-hot", "sigmoid", "float sides", "multi-hot"],
)
def test_what_is_plain_is_recognised(
    model: keras.Model, targets: np.ndarray, kind: str, logits: bool
) -> None:
    task = find_task(model, None, toys(model, targets))
    assert (task.heads[0].kind, task.heads[0].from_logits) == (kind, logits)
    agree(model, task, toys(model, targets), 5)


@pytest.mark.parametrize(
    ("model", "targets", "said"),
    [
        (head(1), NUMBERS, 'kind = "regression" or kind = "binary"'),
        (head(1), SIDES, 'kind = "regression" or kind = "binary"'),
        (head(1, "sigmoid"), NUMBERS, 'kind = "regression" or kind = "binary"'),
        (head(3), NUMBERS, "not class numbers: give a task"),
        (head(3), CLASSES.astype(np.float32), "may be classes: give a task"),
        (head(3), RNG.normal(size=(COUNT, 3)), "not class numbers: give a task"),
        (head(3), MANY, 'kind = "multi-label"'),
        (pixels(3), np.zeros((COUNT, 3, 5), int), 'kind = "segmentation"'),
        (two_outputs(), (CLASSES, NUMBERS), "2 outputs: give a task"),
    ],
)
def test_what_is_not_plain_is_asked(model: keras.Model, targets: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_task(model, None, toys(model, targets))
    assert said in str(caught.value)


class Mystery(keras.layers.Layer):
    """Nothing tells what it gives."""

    def call(self, x: Any) -> Any:
        return x * 2


def test_an_unknown_end_is_asked_for_logits() -> None:
    model = keras.Sequential([*head(3).layers, Mystery()])
    model.build((None, 4))
    task = find_task(model, None, toys(model, CLASSES))
    with pytest.raises(UsageError, match="from_logits = true or false"):
        task.compile_arguments()
    for logits in (True, False):
        told = find_task(model, TaskSpec(from_logits=logits))
        assert told.compile_arguments()["loss"].get_config()["from_logits"] is logits
    with pytest.raises(UsageError, match="leave from_logits out"):
        find_task(head(3, "softmax"), TaskSpec(from_logits=True))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: keras.layers.Dense(3)(x), "none"),
        (lambda x: keras.layers.Dense(3, "relu")(x), "none"),
        (lambda x: keras.layers.Softmax()(x), "softmax"),
        (lambda x: keras.ops.softmax(x), "softmax"),
        (lambda x: keras.ops.sigmoid(x), "sigmoid"),
        (lambda x: keras.layers.Activation("softmax", dtype="float32")(x), "softmax"),
        (lambda x: keras.layers.Reshape((2, 2))(keras.layers.Dense(4, "sigmoid")(x)), "sigmoid"),
        (lambda x: keras.layers.Activation("linear")(keras.layers.Softmax()(x)), "softmax"),
        (lambda x: head(3, "softmax")(x), "softmax"),
        (lambda x: keras.layers.Average()([keras.layers.Softmax()(x)] * 2), "softmax"),
        (lambda x: keras.layers.Dense(3, lambda y: y + 1)(x), None),
        (lambda x: Mystery()(x), None),
        (lambda x: x / keras.ops.sum(x), None),
        (lambda x: 1.0 - keras.ops.sigmoid(x), None),
        (lambda x: keras.ops.sigmoid(x) * keras.ops.sigmoid(x), None),
        (lambda x: keras.layers.Dense(3, "hard_sigmoid")(x), "sigmoid"),
        (lambda x: keras.ops.clip(keras.ops.sigmoid(x), 1e-6, 1 - 1e-6), "sigmoid"),
        (lambda x: keras.layers.Concatenate()([keras.ops.sigmoid(x)] * 2), "sigmoid"),
        (lambda x: keras.layers.Concatenate()([keras.ops.softmax(x)] * 2), None),
        (lambda x: keras.ops.softmax(x)[:, 1:2], None),
        (lambda x: keras.layers.Add()([keras.layers.Dense(4)(x), keras.ops.sigmoid(x)]), "none"),
        (lambda x: keras.layers.Rescaling(2.0)(keras.layers.Dense(4)(x)), "none"),
    ],
)
def test_the_last_operation_tells(build: Callable[[Any], Any], expected: str | None) -> None:
    x = keras.Input((4,))
    assert output_activation(keras.Model(x, build(x)).outputs[0]) == expected


ENDS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": keras.ops.sigmoid,
    "hard sigmoid": keras.layers.Activation("hard_sigmoid"),
    "softmax": keras.layers.Softmax(),
    "dense": lambda x: keras.layers.Dense(4, kernel_initializer="random_normal")(x) * 100.0,
    "one less": lambda x: 1.0 - x,
    "twice": lambda x: keras.layers.Concatenate()([x, x]),
    "part": lambda x: x[:, :2],
    "clipped": lambda x: keras.ops.clip(x, 1e-7, 1 - 1e-7),
    "sum": lambda x: keras.layers.Add()([x, x]),
    "product": lambda x: keras.layers.Multiply()([x, x]),
    "average": lambda x: keras.layers.Average()([x, x]),
    "largest": lambda x: keras.ops.maximum(x, x),
    "means": lambda x: keras.layers.Concatenate()([keras.ops.mean(x, -1, keepdims=True)] * 2),
    "shape": lambda x: keras.layers.Reshape((-1, 1))(x),
    "scaled": keras.layers.Rescaling(3.0, -1.0),
}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(sorted(ENDS)), min_size=1, max_size=3))
def test_what_is_called_probabilities_is_some_and_what_is_called_logits_is_none(
    chain: list[str],
) -> None:
    """A threshold of 0 for probabilities, or of 0.5 for logits, is a wrong accuracy."""
    x = keras.Input((4,))
    y = keras.layers.Dense(4, kernel_initializer="random_normal")(x) * 100.0
    for name in chain:
        y = keras.ops.reshape(y, (-1, math.prod(y.shape[1:]))) if len(y.shape) > 2 else y
        y = ENDS[name](y)
    told = output_activation(keras.Model(x, y).outputs[0])
    gives = np.asarray(keras.Model(x, y)(RNG.normal(size=(64, 4)).astype(np.float32)))
    within = gives.min() >= 0 and gives.max() <= 1
    # What is clipped to this range has it, whatever it was.
    assert (
        within
        if told in ("sigmoid", "softmax")
        else told is None or "clipped" in chain or not (within)
    ), (told, chain)


def compiled(model: keras.Model, **arguments: Any) -> keras.Model:
    model.compile("sgd", **arguments)
    return model


@pytest.mark.parametrize(
    ("arguments", "figure", "better"),
    [
        ({"loss": "mse", "metrics": ["mae"]}, "mae", "lower"),
        ({"loss": "mse"}, "loss", "lower"),
        (
            {"loss": keras.losses.Huber(0.5), "metrics": [keras.metrics.R2Score()]},
            "r2_score",
            "higher",
        ),
        ({"loss": "mse", "metrics": [keras.metrics.MeanAbsoluteError("off")]}, "off", "lower"),
        ({"loss": "mse", "weighted_metrics": ["mse"]}, "mse", "lower"),
        ({"loss": lambda y, p: abs(y - p), "metrics": [lambda y, p: y - p, "mse"]}, "mse", "lower"),
    ],
)
def test_a_compiled_model_carries_its_task(
    arguments: dict[str, Any], figure: str, better: str
) -> None:
    model = compiled(head(2), **arguments)
    some = toys(model, RNG.normal(size=(COUNT, 2)).astype(np.float32))
    task = find_task(model, None, some)
    assert (task.figure.name, task.figure.better) == (figure, better)
    agree(model, task, some, 6)


def test_a_compiled_model_keeps_its_task_in_a_file(tmp_path: Path) -> None:
    model = compiled(
        two_outputs(),
        loss={"sign": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "angle": "mae"},
        metrics={"sign": ["accuracy"], "angle": ["mse"]},
        loss_weights={"sign": 0.5, "angle": 2.0},
    )
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    some = toys(model, (CLASSES, NUMBERS))
    task = find_task(loaded, None, some)
    assert task.figure.name == "sign_accuracy"
    assert [each.weight for each in task.heads] == [0.5, 2.0]
    found = agree(loaded, task, some, 5)
    assert set(found.metrics) == {"sign_accuracy", "angle_mse"}


@pytest.mark.parametrize("labels", [CLASSES, HOT], ids=["numbers", "one-hot"])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_a_compiled_classifier_takes_labels_in_both_forms(loss: str, labels: np.ndarray) -> None:
    metric = f"{loss.removesuffix('crossentropy')}accuracy"
    model = compiled(head(3, "softmax"), loss=loss, metrics=[metric])
    task = find_task(model, None, toys(model, labels))
    assert task.figure.name == "accuracy"
    agree(model, task, toys(model, labels), 4)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(),
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
    ],
    ids=["object", "name", "function"],
)
def test_a_loss_compiled_for_the_wrong_outputs_is_said_and_put_right(loss: Any) -> None:
    model = compiled(head(3), loss=loss)
    with pytest.warns(UserWarning, match="compiled for probabilities"):
        task = find_task(model)
    assert task.compile_arguments()["loss"].get_config()["from_logits"] is True


@pytest.mark.parametrize("loss", ["binary_crossentropy", keras.losses.binary_crossentropy])
def test_where_the_end_does_not_tell_the_compiled_loss_does(loss: Any) -> None:
    x = keras.Input((4,))
    model = keras.Model(x, 1.0 - keras.layers.Dense(1, "sigmoid")(x))
    model.compile("sgd", loss, metrics=["accuracy"])
    some = toys(model, SIDES)
    task = find_task(model, None, some)
    assert task.heads[0].from_logits is False
    agree(model, task, some, 7)


def test_a_specification_goes_before_the_compiled_model() -> None:
    model = compiled(head(1), loss="mse", metrics=["mse"])
    assert find_task(model, TaskSpec(figure="mae")).figure.name == "mae"
    assert find_task(model, TaskSpec(kind="binary")).figure.name == "accuracy"


OWN = """
import keras

def off(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)

def whole(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred))

class Pinball(keras.losses.Loss):
    def __init__(self, quantile=0.5):
        super().__init__()
        self.quantile = quantile

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return keras.ops.mean(
            keras.ops.maximum(self.quantile * error, (self.quantile - 1) * error), axis=-1
        )

class Far(keras.metrics.MeanMetricWrapper):
    def __init__(self, name="far", **options):
        super().__init__(off, name=name, **options)

far = keras.metrics.MeanMetricWrapper(off, name="farther")
bad = Far("worse")
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    # A module is imported once: each test needs a name of its own.
    path = tmp_path / f"own_{abs(hash(tmp_path))}.py"
    path.write_text(OWN)
    return str(path)


def test_functions_classes_and_instances_of_a_file(own: str) -> None:
    model = head(2)
    some = toys(model, RNG.normal(size=(COUNT, 2)).astype(np.float32), weights=np.abs(NUMBERS))
    for loss in (f"{own}:off", {"class_name": f"{own}:Pinball", "config": {"quantile": 0.9}}):
        for metric, name in (("off", "off"), ("Far", "far"), ("far", "farther")):
            spec = TaskSpec(loss=loss, metrics=[f"{own}:{metric}"], figure=name, better="lower")
            task = find_task(model, spec, some)
            assert task.figure.name == name
            agree(model, task, some, 6)


def test_a_metric_of_one_number_a_batch_is_said(own: str) -> None:
    model = head(2)
    some = toys(model, RNG.normal(size=(COUNT, 2)).astype(np.float32))
    spec = TaskSpec(loss="mse", metrics=[f"{own}:whole"], figure="whole", better="lower")
    with pytest.warns(UserWarning, match="one number a batch"):
        find_task(model, spec, some).check(model, some)


def test_class_numbers_written_as_floats_are_asked_for() -> None:
    some = toys(head(3), CLASSES.astype(np.float32))
    with pytest.raises(UsageError, match="whole numbers written as floats, which may be classes"):
        find_task(head(3), None, some)
    assert find_task(head(3), TaskSpec(kind="classification"), some).figure.name == "accuracy"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"loss": "OWN:nothing"}, "has no function 'nothing'"),
        ({"loss": "no.py:loss"}, "no.py"),
        ({"loss": "mean_sqared_error"}, "did you mean 'mean_squared_error'"),
        ({"loss": {"class_name": "Huber", "config": {"dleta": 1}}}, "correct its config"),
        ({"loss": "mse", "metrics": ["OWN:off"]}, 'figure = "off" and better'),
        ({"loss": "mse", "metrics": ["mae", "MeanAbsoluteError"]}, "two metrics called 'mae'"),
        (
            {"kind": "regression", "metrics": ["OWN:off"], "figure": "of", "better": "lower"},
            "did you mean 'off'",
        ),
        ({"loss": "OWN:far"}, "is a MeanMetricWrapper"),
        ({"loss": "mse", "metrics": ["OWN:bad"]}, "cannot be made anew"),
        ({"kind": "binary"}, 'give kind = "classification" or "multi-label"'),
        ({"kind": "segmentation"}, 'give kind = "classification"'),
        ({"kind": {"other": "regression"}}, "kind.other is unknown"),
        ({"loss": ["mse", "mse"]}, "2 entries"),
        ({"kind": "multi-label", "figure": "precision"}, "needs probabilities"),
        ({"kind": "regression", "class_weights": "balanced"}, "class_weights need one output"),
    ],
)
def test_a_mistake_is_one_line(own: str, table: dict[str, Any], said: str) -> None:
    model = head(2)
    targets = MANY[:, :2].astype(np.float32)

    def given(value: Any) -> Any:
        return value.replace("OWN", own) if isinstance(value, str) else value

    table = {
        key: [given(each) for each in value] if isinstance(value, list) else given(value)
        for key, value in table.items()
    }
    some = toys(model, targets)
    with pytest.raises(UsageError) as caught:
        task = find_task(model, TaskSpec.model_validate(table), some)
        task.check(model, some)
        task.compile_arguments()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


TWO = {"sign": "classification", "angle": "regression"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": TWO}, "one of sign/accuracy, angle/mae, loss"),
        ({"kind": TWO, "figure": "angle/accuracy"}, None),
        ({"kind": TWO, "figure": "left/mae"}, "no output 'left'"),
        ({"kind": TWO, "figure": "mse"}, "is not there"),
        ({"kind": {"sign": "classification"}, "figure": "accuracy"}, "neither a kind nor a loss"),
        ({"loss": {"sign": "mse", "angel": "mse"}}, "did you mean 'angle'"),
        ({"kind": TWO, "metrics": ["mae"], "figure": "mae"}, "a table of sign, angle"),
        (
            {"kind": "regression", "metrics": {"sign": ["mae"], "angle": ["mae"]}, "figure": "mae"},
            '"sign/mae" or "angle/mae"',
        ),
    ],
)
def test_mistakes_about_several_outputs(table: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert find_task(two_outputs(), TaskSpec.model_validate(table)).figure.name
        return
    with pytest.raises(UsageError) as caught:
        find_task(two_outputs(), TaskSpec.model_validate(table))
    assert said in str(caught.value)


def check(task: Task, model: keras.Model, some: data.Dataset) -> None:
    task.check(model, some)


@pytest.mark.parametrize(
    ("kind", "model", "targets", "said"),
    [
        ("classification", head(3), CLASSES + 1, "labels from 1 to 3"),
        ("classification", head(3), CLASSES - 1, "labels from -1 to 1"),
        ("classification", head(3), CLASSES * 0, "a single class"),
        ("classification", head(3), np.zeros((COUNT, 4)), "targets of shape (4,)"),
        ("classification", head(1), SIDES, 'give kind = "binary"'),
        ("binary", head(1), CLASSES, "0 to 1"),
        ("multi-label", head(3), MANY * 2, "from 0 to 2"),
        ("multi-label", head(3), CLASSES, "one 0 or 1 a label"),
        ("multi-label", head(3, "softmax"), MANY, "a softmax sums to 1"),
        ("segmentation", pixels(3), np.full((COUNT, 3, 5), 7), "labels from 7 to 7"),
        ("segmentation", pixels(3), np.zeros((COUNT, 5, 3), int), "targets of shape (5, 3)"),
        ("regression", head(1), NUMBERS * np.nan, "NaN"),
        ("regression", head(3), NUMBERS, "one number an output"),
        ("regression", head(3), NUMBERS[:, None], "one number an output"),
        ("regression", two_outputs(), (NUMBERS, NUMBERS), "one number an output"),
        ("regression", head(1), (NUMBERS, NUMBERS), "the number of targets is 2"),
    ],
)
def test_targets_that_do_not_fit_are_one_line(
    kind: Any, model: keras.Model, targets: Any, said: str
) -> None:
    some = toys(model, targets)
    with pytest.raises(UsageError) as caught:
        find_task(model, TaskSpec(kind=kind, figure="loss"), some).check(model, some)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "said"),
    [(-np.ones(COUNT), "negative"), (np.ones(COUNT) * np.nan, "negative or not finite")],
)
def test_weights_that_cannot_be_are_one_line(weights: np.ndarray, said: str) -> None:
    model = head(3)
    some = toys(model, CLASSES, weights=weights)
    with pytest.raises(UsageError, match=said):
        find_task(model, None, some).check(model, some)


def test_weights_of_images_are_not_those_of_pixels() -> None:
    """With five images of width five, Keras would multiply columns by weights of images."""
    model = pixels(3)
    x = inputs_of(model, RNG, 5)
    some = dataset(x, RNG.integers(0, 3, (5, 3, 5)), np.ones(5))
    with pytest.raises(UsageError, match="one for each of the"):
        find_task(model, TaskSpec(kind="segmentation"), some).check(model, some)


def test_classes_that_a_split_lacks_are_named() -> None:
    model = head(3)
    x = inputs_of(model, RNG)
    train = data.Arrays(x, np.minimum(CLASSES, 1))
    other = data.Arrays(x, CLASSES)
    some = data.Dataset("toys", ("ape", "bee", "cow"), train, other, train, "toys")
    with pytest.warns(UserWarning) as caught:
        find_task(model, None, some).check(model, some)
    said = [str(each.message) for each in caught]
    assert said == [
        "toys (train) has no example of cow",
        "toys (validation) has classes that the train split lacks: cow",
    ]


def test_fewer_outputs_than_classes() -> None:
    model = head(3)
    some = toys(model, CLASSES, classes=("a", "b", "c", "d"))
    with pytest.raises(UsageError, match="4 classes: build it with one output for each class"):
        find_task(model, None, some).check(model, some)


def test_a_long_stream_is_not_read_to_find_its_task() -> None:
    import tensorflow as tf

    model, read = head(3), []

    def epoch(seed: int, number: int) -> tf.data.Dataset:
        def examples() -> Any:
            for row in range(3000):
                read.append(row)
                yield np.zeros(4, np.float32), np.eye(3, dtype=np.float32)[row % 3]

        specs = (tf.TensorSpec(4, tf.float32), tf.TensorSpec(3, tf.float32))
        return tf.data.Dataset.from_generator(examples, output_signature=specs)

    spec = (tf.TensorSpec(4, tf.float32), tf.TensorSpec(3, tf.float32))
    stream = data.Stream(epoch, 3000, spec)
    some = data.Dataset("toys", (), stream, stream, stream, "toys")
    task = find_task(model, TaskSpec(figure="top_2_accuracy"), some)
    task.check(model, some)
    assert task.heads[0].labels == "one-hot"
    assert len(read) < 3000
