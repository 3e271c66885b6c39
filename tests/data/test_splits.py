from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import UsageError, data
from tfprune.data.splits import first


def stream(split: data.Split, batch_size: int, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(data.batches(split, batch_size, **options).as_numpy_iterator())


def rows(split: data.Split) -> list[bytes]:
    return [image.tobytes() for image in split.inputs]


@pytest.fixture(scope="module")
def whole_digits() -> data.Dataset:
    return data.load("digits")


def test_importing_tfprune_does_not_import_data():
    code = "import sys, tfprune; assert not {'tensorflow', 'tfprune.data'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_are_what_scikit_learn_embeds(whole_digits):
    assert whole_digits.image_shape == (8, 8, 1)
    assert whole_digits.classes == tuple("0123456789")
    assert [len(s) for s in (whole_digits.train, whole_digits.validation, whole_digits.test)] == [
        1293,
        144,
        360,
    ]
    everything = np.concatenate([whole_digits.train.inputs, whole_digits.test.inputs])
    assert (everything.min(), everything.max()) == (0, 255)


def test_note_says_where_the_images_came_from(whole_digits):
    assert whole_digits.note.startswith("digits, embedded in scikit-learn ")
    assert whole_digits.note.endswith(
        "1,293 train, 144 validation (0.1 of the train split, held out stratified with seed 0), "
        "360 test images"
    )


def test_the_note_says_what_was_changed():
    note = data.load("digits", image_size=(4, 6), limit=30).note
    assert note.endswith(", resized to 4x6; every split capped at 30 images")


@settings(max_examples=5, deadline=None)
@given(share=st.floats(0.02, 0.98), seed=st.integers(0, 2**32 - 1))
def test_train_and_validation_are_disjoint_and_cover_whatever_the_seed(share, seed):
    first, other = data.load("digits"), data.load("digits", validation=share, seed=seed)
    assert sorted(rows(other.train) + rows(other.validation)) == sorted(
        rows(first.train) + rows(first.validation)
    )
    assert len(other.validation) == np.ceil(share * 1437)
    assert rows(other.test) == rows(first.test)


def test_no_test_image_is_trained_on(whole_digits):
    # The 1,797 digits are all different, so equal bytes mean the same image.
    seen = set(rows(whole_digits.train)) | set(rows(whole_digits.validation))
    assert len(seen) == 1437
    assert not seen & set(rows(whole_digits.test))
    fed = np.concatenate([x for x, _ in stream(whole_digits.train, 100, seed=0)])
    assert {image.astype(np.uint8).tobytes() for image in fed} == set(rows(whole_digits.train))


def test_validation_holds_every_class_in_proportion(whole_digits):
    counts = np.bincount(whole_digits.validation.labels, minlength=10)
    share = np.bincount(whole_digits.train.labels, minlength=10) / len(whole_digits.train)
    np.testing.assert_allclose(counts, share * 144, atol=1)


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_limit_caps_every_split(limit):
    capped = data.load("digits", limit=limit)
    assert [len(s) for s in (capped.train, capped.validation, capped.test)] == [limit] * 3


def test_image_size_resizes():
    resized = data.load("digits", image_size=(12, 20))
    assert resized.image_shape == (12, 20, 1)
    assert resized.train.inputs.dtype == np.uint8
    # Interpolation keeps the mean grey level, to rounding and the border's weight.
    plain = data.load("digits")
    assert resized.test.inputs.mean() == pytest.approx(plain.test.inputs.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "validation=0.0 must be a share between 0 and 1"),
        ({"validation": 1.5}, "validation=1.5 must be a share between 0 and 1"),
        ({"validation": 0.001}, "cannot split 1,437 train examples"),
        ({"seed": -1}, "seed=-1 cannot split"),
        ({"limit": 0}, "limit=0 must be 1 example or more"),
        ({"image_size": (0, 8)}, "image_size=.* must be .height, width."),
        ({"image_size": (8,)}, "image_size=.* must be .height, width."),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        data.load("digits", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "targets", "weights"),
    [
        (np.zeros((2, 4)), np.zeros(3), None),
        (np.zeros((2, 4)), np.zeros(2), np.zeros(3)),
        ({"a": np.zeros((2, 4)), "b": np.zeros((3, 4))}, np.zeros(2), None),
        (np.zeros((2, 4)), np.float32(1), None),
    ],
)
def test_arrays_are_of_equally_many_examples(inputs, targets, weights):
    with pytest.raises(UsageError, match="are not of equally many examples"):
        data.Arrays(inputs, targets, weights)


def _tree(split: data.Split, batch_size: int = 3) -> list[tuple]:
    return list(data.plain_batches(split, batch_size).as_numpy_iterator())


def _streamed(arrays: data.Arrays) -> data.Stream:
    whole = tf.data.Dataset.from_tensor_slices(arrays.examples.given)
    return data.Stream(lambda seed, epoch: whole, len(arrays), arrays.element_spec)


@pytest.mark.parametrize("kind", ["memory", "file", "stream"])
def test_a_tree_comes_back_whatever_it_is_made_of_and_wherever_it_lies(kind, tmp_path):
    count = 10
    numbers = np.arange(count, dtype=np.float32)
    inputs = {"left": np.stack([numbers, numbers], 1), "right": (numbers + 1).astype(np.int32)}
    if kind == "file":
        np.save(tmp_path / "left.npy", inputs["left"])
        inputs["left"] = np.load(tmp_path / "left.npy", mmap_mode="r")
    split: data.Split = data.Arrays(inputs, (numbers, numbers * 2), numbers + 3)
    if kind == "stream":
        split = _streamed(split)
    for batch in (*_tree(split), *data.batches(split, 3, seed=0, epochs=2).as_numpy_iterator()):
        inputs, targets, weights = batch
        np.testing.assert_array_equal(inputs["left"][:, 0], targets[0])
        np.testing.assert_array_equal(inputs["right"], targets[0] + 1)
        assert inputs["right"].dtype == np.int32
        np.testing.assert_array_equal(targets[1], 2 * targets[0])
        np.testing.assert_array_equal(weights, targets[0] + 3)
    order = [batch[1][0] for batch in data.batches(split, 3, seed=0, epochs=2).as_numpy_iterator()]
    assert len(order) == 8
    first, second = np.concatenate(order[:4]), np.concatenate(order[4:])
    assert sorted(first) == sorted(second) == list(numbers)
    assert list(first) != list(second)
    later = data.batches(split, 3, seed=0, epochs=2, first_epoch=1).as_numpy_iterator()
    np.testing.assert_array_equal(np.concatenate([batch[1][0] for batch in later]), second)
    sample = split.sample(4)
    np.testing.assert_array_equal(sample.targets[0], [0, 3, 6, 9])


@pytest.mark.parametrize("epochs", [1, 2, 5, 8])
def test_the_parts_of_a_stream_make_it_whole(epochs):
    stream = _streamed(data.Arrays(np.arange(9.0), np.arange(9)))
    first, rest = stream.part(0, 2), stream.part(2, 7)
    assert [len(first), len(rest)] == [2, 7]
    np.testing.assert_array_equal(
        np.concatenate([batch[1] for batch in _tree(first) + _tree(rest)]), np.arange(9)
    )
    steps = list(data.batches(rest, 4, seed=1, epochs=epochs).as_numpy_iterator())
    assert len(steps) == 2 * epochs
    for epoch in range(epochs):
        seen = np.concatenate([targets for _, targets in steps[2 * epoch : 2 * epoch + 2]])
        assert sorted(seen) == list(range(2, 9))


@pytest.mark.parametrize(
    ("tree", "names", "expected"),
    [
        (1, ["x"], {"x": 1}),
        ((1, 2), ["x", "y"], {"x": 1, "y": 2}),
        ({"y": 2, "x": 1}, ["x", "y"], {"x": 1, "y": 2}),
        ({"image": 1}, ["x"], {"x": 1}),
        ((1, 2), ["x"], "the number of inputs is 2"),
        ({"x": 1, "z": 2}, ["x", "y"], "the inputs are named x, z"),
    ],
)
def test_arrays_find_their_names(tree, names, expected):
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            data.by_name(tree, names)
    else:
        assert data.by_name(tree, names) == expected


def test_maps_are_mirrored_with_their_image_and_are_not_cropped():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5, 3), np.uint8)
    split = data.Arrays(images, images[..., 0].astype(np.int64))

    for pixels, maps in data.batches(split, 10, seed=0, augment=["flip"]):
        np.testing.assert_array_equal(pixels[..., 0], tf.cast(maps, tf.float32))

    with pytest.raises(UsageError, match="no class of the maps"):
        data.batches(split, 10, seed=0, augment=["crop"])
    with pytest.raises(UsageError, match="is for examples that are one image each"):
        data.batches(data.Arrays(images[:, 0], images[:, 0, 0]), 10, seed=0, augment=["flip"])


def test_statistics_are_those_of_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2500, 5, 4, 3), np.uint8)
    mean, std = data.statistics(data.Arrays(images, np.zeros(2500, np.int64)))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)


def test_what_can_be_read_as_a_whole_only_has_no_first_examples():
    class Whole(data.Split):
        def __len__(self):
            return 3

        ordered = shuffled = sample = None

    whole = Whole()
    assert first(whole, 3) is whole
    with pytest.raises(UsageError, match="neither in any order nor in parts"):
        first(whole, 2)
