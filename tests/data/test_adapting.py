"""Examples are the same in every form, and what cannot be examples is one line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.data.forms import FORMS, Batches, rows_of
from tfprune.data import Arrays, Examples, examples
from tfprune.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 4, 4, 1)).astype(np.float32)
IDS = RNG.integers(0, 9, (40, 5))
LABELS = np.arange(40)
WEIGHTS = RNG.uniform(size=40).astype(np.float32)


@pytest.fixture(scope="module")
def one() -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 1), name="pixels"), keras.layers.Flatten()])


@pytest.fixture(scope="module")
def two() -> keras.Model:
    """The order of its inputs is not that of their names."""
    words, image = keras.Input((5,), dtype="int32", name="words"), keras.Input((4, 4, 1), name="i")
    ends = [keras.layers.Embedding(9, 2)(words), image]
    return keras.Model([words, image], [keras.layers.Flatten()(end) for end in ends])


def equal(mine: Any, other: Any) -> None:
    keras.tree.assert_same_structure(mine, other)
    keras.tree.map_structure(np.testing.assert_array_equal, mine, other)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(one: keras.Model, two: keras.Model, form: str) -> None:
    found = examples(FORMS[form](IMAGES, LABELS, WEIGHTS), model=one)
    equal(found.inputs, {"pixels": IMAGES})
    equal((found.targets, found.weights), (LABELS, WEIGHTS))
    named, targets = {"i": IMAGES, "words": IDS}, {"a": LABELS, "b": WEIGHTS}
    found = examples(FORMS[form](named, targets), model=two)
    assert list(found.inputs) == ["words", "i"]
    equal((found.inputs, found.targets), (named, targets))
    if form not in ("split", "stream", "data set"):
        assert examples(FORMS[form](IMAGES), model=one).targets is None
    without_a_model = examples(FORMS[form](IMAGES, LABELS))
    equal((without_a_model.inputs, without_a_model.targets), (IMAGES, LABELS))


@pytest.mark.parametrize("form", FORMS)
def test_a_part_is_spread_or_comes_first(form: str) -> None:
    found = examples(FORMS[form](IMAGES, LABELS), 7)
    first = np.arange(7)
    spread = np.linspace(0, 39, 7).round().astype(int)
    wanted = {"tf.data": first, "generator": first, "list of batches": first}
    if form == "PyDataset":
        # Only as many batches as are needed are read: here the first.
        wanted["PyDataset"] = np.linspace(0, 15, 7).round().astype(int)
    np.testing.assert_array_equal(found.targets, wanted.get(form, spread))
    np.testing.assert_array_equal(found.inputs, IMAGES[found.targets])


def test_batches_of_a_py_dataset_are_spread() -> None:
    found = examples(Batches(IMAGES, LABELS, batch=4), 12)
    # Three of ten batches.
    np.testing.assert_array_equal(found.targets, [0, 1, 2, 3, 16, 17, 18, 19, 36, 37, 38, 39])


@pytest.mark.parametrize(
    "inputs",
    [
        {"i": IMAGES, "words": IDS},
        [IDS, IMAGES],
        (IDS, IMAGES),
        Examples((IDS, IMAGES)),
        Arrays((IDS, IMAGES), LABELS),
        [{"i": IMAGES, "words": IDS}],
        [[IDS, IMAGES]],
        [[IDS[:9], IMAGES[:9]], (IDS[9:], IMAGES[9:])],
        [([IDS, IMAGES], LABELS)],
        (([IDS, IMAGES]), LABELS),
        ({"words": IDS.tolist(), "i": IMAGES.tolist()}, LABELS.tolist()),
    ],
)
def test_several_inputs_come_by_name_or_in_the_order_of_the_model(
    two: keras.Model, inputs: Any
) -> None:
    equal(examples(inputs, model=two).inputs, {"words": IDS, "i": IMAGES.astype(float)})


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGES,
        [IMAGES],
        list(IMAGES),
        [IMAGES[:9], IMAGES[9:]],
        {"any": IMAGES},
        IMAGES.tolist(),
        IMAGES[..., 0],
        [IMAGES, LABELS],
        (IMAGES,),
    ],
)
def test_a_single_input_comes_in_any_wrapping(one: keras.Model, inputs: Any) -> None:
    """Keras adds a last axis of 1, too."""
    found = examples(inputs, model=one).inputs["pixels"]
    np.testing.assert_array_equal(found.astype(np.float32), IMAGES)


def test_a_generator_is_read_no_further_than_needed() -> None:
    read: list[int] = []

    def endless() -> Iterator[Any]:
        for index in itertools.count():
            read.append(index)
            yield IMAGES[:8], LABELS[:8]

    generator = endless()
    assert len(examples(generator, 20)) == 20
    assert read == [0, 1, 2]
    # What is left goes on where it was.
    assert len(examples(generator, 8)) == 8
    assert read == [0, 1, 2, 3]
    endless_set = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8).repeat()
    assert len(examples(endless_set, 100)) == 100

    class Endless(Batches):
        num_batches = None

        def __getitem__(self, index: int) -> Any:
            return rows_of(self.trees, slice(0, 8))

    assert len(examples(Endless(IMAGES, LABELS), 20)) == 20


def test_arrays_may_stay_whole() -> None:
    found = examples((IMAGES, LABELS), 7, whole_arrays=True)
    assert found.inputs is IMAGES
    assert len(examples(Examples(IMAGES), 7, whole_arrays=True)) == 40
    assert len(examples(iter([IMAGES]), 7, whole_arrays=True)) == 7


def test_sixteen_bits_of_tensorflow_are_numbers() -> None:
    found = examples(tf.constant([[1.5, 2.0]], tf.bfloat16))
    assert found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs, [[1.5, 2.0]])


def of_batches(*batches: Any) -> Iterator[Any]:
    yield from batches


def exhausted() -> Iterator[Any]:
    generator = of_batches((IMAGES, LABELS))
    next(generator)
    return generator


NAN = np.where(np.arange(40)[:, None, None, None] == 0, np.nan, IMAGES)
FLAT = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))


@pytest.mark.reliability("your own data", "refused")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (FLAT, "data is not batched: give it .batch(32), as fit takes it"),
        (FLAT.map(lambda x, y: x), "data is not batched: give it .batch(32)"),
        (of_batches((IMAGES[0], LABELS[0])), "data is not batched: give batches"),
        (exhausted(), "data has no examples, or a generator that was used before: give a new one"),
        (FLAT.take(0).batch(3), "data has no examples: give at least one"),
        (IMAGES[:0], "data has no examples"),
        (Arrays(IMAGES[:0], LABELS[:0]), "data has no examples"),
        (Batches(IMAGES[:0], LABELS[:0]), "data has no examples"),
        (NAN, "data has NaN or infinite values for input pixels: give finite numbers"),
        (
            (IMAGES, np.where(LABELS == 0, np.nan, 1.0)),
            "data has NaN or infinite values in its targets",
        ),
        (
            (IMAGES, LABELS, WEIGHTS * np.inf),
            "data has NaN or infinite values in its sample weights",
        ),
        ((IMAGES, LABELS[:3]), "parts of different lengths: give equally many examples in each"),
        ((IMAGES, LABELS, WEIGHTS, WEIGHTS), "data is a tuple of 4: give (x, y) or (x, y, sample"),
        (IMAGES[:, :3], "an example of shape (3, 4, 1) does not fit input pixels"),
        ({"a": IMAGES, "b": IMAGES}, "the inputs of data are named a, b: give one array for each"),
        (
            ([IMAGES, IMAGES], LABELS),
            "the number of inputs of data is 2: give one array for each of pix",
        ),
        (of_batches(IMAGES[:2], IMAGES[:2, :3]), "examples have other shapes than those before"),
        (["a", "b"], "data has dtype <U1 for input pixels: give numbers"),
        ([[1, 2], [3]], "NumPy makes no array of numbers"),
        (7, "data is a int: give arrays, a dict of arrays by input, (x, y), a tf.data.Dataset"),
        (lambda: FLAT, "data is a function"),
    ],
)
def test_what_is_not_examples_is_one_line(one: keras.Model, data: Any, says: str) -> None:
    with pytest.raises(UsageError) as error:
        examples(data, 10, model=one)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.reliability("your own data", "refused")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"words": IDS, "image": IMAGES}, "are named words, image: give one array for each of wo"),
        (
            [IDS],
            "the number of inputs of data is 1: give one array for each of words, i, in this order",
        ),
        ([IMAGES, IDS], "does not fit input words of model"),
        ([IDS, IMAGES[:9]], "parts of different lengths"),
        ([IDS + 0.5, IMAGES], "has fractions for input words"),
        (tf.data.Dataset.from_tensor_slices({"words": IDS, "i": IMAGES}), "is not batched"),
    ],
)
def test_what_does_not_fit_several_inputs_is_one_line(
    two: keras.Model, data: Any, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        examples(data, 10, model=two)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
