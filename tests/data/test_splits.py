from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import UsageError, data


def stream(split: data.Split, batch_size: int, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(data.batches(split, batch_size, **options).as_numpy_iterator())


def rows(split: data.Split) -> list[bytes]:
    return [image.tobytes() for image in split.images]


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
    everything = np.concatenate([whole_digits.train.images, whole_digits.test.images])
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
    assert resized.train.images.dtype == np.uint8
    # Interpolation keeps the mean grey level, to rounding and the border's weight.
    plain = data.load("digits")
    assert resized.test.images.mean() == pytest.approx(plain.test.images.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "validation=0.0 must be a share between 0 and 1"),
        ({"validation": 1.5}, "validation=1.5 must be a share between 0 and 1"),
        ({"validation": 0.001}, "cannot split 1,437 train images"),
        ({"seed": -1}, "seed=-1 cannot split"),
        ({"limit": 0}, "limit=0 must be 1 image or more"),
        ({"image_size": (0, 8)}, "image_size=.* must be .height, width."),
        ({"image_size": (8,)}, "image_size=.* must be .height, width."),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        data.load("digits", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 1)), np.zeros(2, np.int64), "images must be uint8"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64), "images must be uint8"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int64), "labels must be int64"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2), "labels must be int64"),
    ],
)
def test_a_split_checks_what_it_holds(images, labels, message):
    with pytest.raises(UsageError, match=message):
        data.Split(images, labels)


def test_statistics_are_those_of_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2500, 5, 4, 3), np.uint8)
    mean, std = data.statistics(data.Split(images, np.zeros(2500, np.int64)))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)
