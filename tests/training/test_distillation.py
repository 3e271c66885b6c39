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


def test_a_teacher_of_other_classes_is_refused() -> None:
    teacher, student = classifier(1, outputs=3), compiled(classifier(2))
    teacher.name, student.name = "big", "small"
    with pytest.raises(tfprune.UsageError) as error, distilling(student, Teacher(teacher)):
        pass
    assert str(error.value) == (
        "teacher 'big' returns (None, 3), and student 'small' returns (None, 2): "
        "give a teacher with equal outputs"
    )
