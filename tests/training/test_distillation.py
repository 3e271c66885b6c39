from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.training.distillation import Teacher, distilling

X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def classifier(seed: int, softmax: bool = False, outputs: int = 2) -> keras.Model:
    keras.utils.set_random_seed(seed)
    activation = "softmax" if softmax else None
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(outputs, activation)]
    )


def compiled(model: keras.Model, softmax: bool = False) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    return model


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    def soft(logits: np.ndarray) -> np.ndarray:
        exponents = np.exp(logits / temperature)
        return exponents / exponents.sum(-1, keepdims=True)

    p, q = soft(teacher), soft(student)
    return float((p * np.log(p / q)).sum(-1).mean()) * temperature**2


@pytest.mark.parametrize("softmax", [False, True])
def test_the_loss_is_the_labels_and_the_teachers(softmax: bool) -> None:
    teacher, student = classifier(1, softmax), compiled(classifier(2, softmax), softmax)
    outputs = [np.asarray(model(X), np.float64) for model in (teacher, student)]
    if softmax:
        outputs = [np.log(probabilities) for probabilities in outputs]
    labels = student.evaluate(X, Y, verbose=0)[0]
    # With a learning rate of 0, the training loss is that of the present weights.
    student.optimizer.learning_rate = 0.0
    with distilling(student, Teacher(teacher, 0.3, 2.0)):
        loss = student.fit(X, Y, batch_size=32, verbose=0).history["loss"][0]
    expected = 0.7 * labels + 0.3 * divergence(*outputs, 2.0)
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_with_weight_1_a_student_learns_only_from_the_teacher() -> None:
    """The labels are the opposite of those of the teacher."""
    teacher = compiled(classifier(1))
    teacher.fit(X, Y, epochs=30, verbose=0)
    before = [np.array(weight) for weight in teacher.get_weights()]
    student = compiled(classifier(2))
    with distilling(student, Teacher(teacher, 1.0)):
        student.fit(X, 1 - Y, epochs=60, verbose=0)
    agreement = np.mean(np.argmax(student(X), -1) == np.argmax(teacher(X), -1))
    assert agreement > 0.9
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_student_is_unchanged_after_the_context() -> None:
    models = [compiled(classifier(2)), compiled(classifier(2))]
    with distilling(models[0], Teacher(classifier(1))):
        pass
    with distilling(models[1], None):
        pass
    for model in models:
        assert "compute_loss" not in vars(model)
    losses = [
        model.fit(X, Y, shuffle=False, verbose=0, epochs=2).history["loss"] for model in models
    ]
    assert losses[0] == losses[1]
    assert len(models[0].variables) == len(models[1].variables)


def test_the_validation_loss_does_not_contain_the_teacher() -> None:
    student = compiled(classifier(2))
    student.optimizer.learning_rate = 0.0
    own = student.evaluate(X, Y, verbose=0)[0]
    with distilling(student, Teacher(classifier(1), 0.9)):
        history = student.fit(X, Y, verbose=0, validation_data=(X, Y)).history
    assert history["val_loss"][0] == pytest.approx(own, rel=1e-5)
    assert history["loss"][0] != pytest.approx(own, rel=1e-2)


def heads(seed: int, ends: tuple[str | None, str | None, str | None]) -> keras.Model:
    """Three outputs: classes, labels and numbers."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(8, "tanh")(inputs)
    outputs = [
        layers.Dense(2, activation, name=name)(x)
        for name, activation in zip(("classes", "labels", "numbers"), ends, strict=True)
    ]
    return keras.Model(inputs, outputs, name=f"heads{seed}")


LOGITS, PROBABILITIES = (None, None, None), ("softmax", "sigmoid", None)


@pytest.mark.parametrize(
    ("taught", "learns", "own"),
    [
        (LOGITS, LOGITS, False),
        (PROBABILITIES, LOGITS, False),
        (LOGITS, PROBABILITIES, False),
        (PROBABILITIES, PROBABILITIES, True),
    ],
)
def test_each_output_is_taught_as_its_kind(taught, learns, own: bool) -> None:
    """Whichever of the two gives probabilities, and whatever the losses are called."""
    teacher, student = heads(1, taught), heads(2, learns)
    probabilities = learns[0] is not None
    kinds = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities),
        keras.losses.BinaryCrossentropy(from_logits=not probabilities),
        "mse",
    ]
    if own:
        # Of a function of the user's, the activation of the output tells the kind.
        kinds[:2] = [lambda y, p, f=f: f(y, p) for f in kinds[:2]]
    loss_weights = [1.0, 0.5, 2.0]
    student.compile(keras.optimizers.SGD(0.0), kinds, loss_weights=loss_weights)
    targets = [Y, np.stack([Y, 1 - Y], 1).astype(np.float32), X[:, :2]]
    alone = student.fit(X, targets, batch_size=32, verbose=0).history["loss"][0]
    with distilling(student, Teacher(teacher, 0.3, 2.0)):
        loss = student.fit(X, targets, batch_size=32, verbose=0).history["loss"][0]

    def logits(model: keras.Model, ends) -> list[np.ndarray]:
        outputs = [np.asarray(output, np.float64) for output in model(X)]
        if ends[0]:
            outputs[0] = np.log(outputs[0])
            outputs[1] = np.log(outputs[1] / (1 - outputs[1]))
        return outputs

    theirs, ours = logits(teacher, taught), logits(student, learns)
    right, guess = (1 / (1 + np.exp(-z[1] / 2)) for z in (theirs, ours))
    crossentropy = -(right * np.log(guess) + (1 - right) * np.log(1 - guess)).mean() * 4
    squares = np.square(theirs[2] - ours[2]).mean()
    distances = [divergence(theirs[0], ours[0], 2.0), crossentropy, squares]
    expected = 0.7 * alone + 0.3 * np.dot(loss_weights, distances)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_a_student_of_maps_and_dicts_is_taught() -> None:
    """The classes of a segmentation are its last axis."""

    def segmenter(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4, 4, 1), name="image")
        return keras.Model({"image": inputs}, {"mask": layers.Conv2D(3, 1, name="mask")(inputs)})

    images = np.random.default_rng(1).normal(size=(8, 4, 4, 1)).astype(np.float32)
    masks = np.random.default_rng(2).integers(0, 3, (8, 4, 4))
    teacher, student = segmenter(1), segmenter(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.0), {"mask": loss})
    given = ({"image": images}, {"mask": masks})
    alone = student.evaluate(*given, verbose=0)
    with distilling(student, Teacher(teacher, 0.5, 3.0)):
        taught = student.fit(*given, batch_size=8, verbose=0).history["loss"][0]
    outputs = [np.asarray(m({"image": images})["mask"], np.float64) for m in (teacher, student)]
    assert taught == pytest.approx(0.5 * alone + 0.5 * divergence(*outputs, 3.0), rel=1e-4)


def test_a_teacher_of_other_inputs_is_refused() -> None:
    inputs = [keras.Input((4,)), keras.Input((3,))]
    outputs = layers.Dense(2)(layers.Concatenate()(inputs))
    teacher, student = keras.Model(inputs, outputs, name="big"), compiled(classifier(2))
    student.name = "small"
    with pytest.raises(tfprune.UsageError) as error, distilling(student, Teacher(teacher)):
        pass
    assert str(error.value) == (
        "teacher 'big' takes ((None, 4), (None, 3)), and student 'small' takes (None, 4): "
        "give a teacher with equal inputs"
    )


def test_a_teacher_of_other_classes_is_refused() -> None:
    teacher, student = classifier(1, outputs=3), compiled(classifier(2))
    teacher.name, student.name = "big", "small"
    with pytest.raises(tfprune.UsageError) as error, distilling(student, Teacher(teacher)):
        pass
    assert str(error.value) == (
        "teacher 'big' returns (None, 3), and student 'small' returns (None, 2): "
        "give a teacher with equal outputs"
    )
