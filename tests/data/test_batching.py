from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import UsageError, data


def numbered(count: int, size: int = 8, channels: int = 1) -> data.Split:
    """Images that differ by their label: every pixel of image i is i + 1, its label is i.

    Black (0) then means padding.
    """
    grey = np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (count, size, size, channels))
    return data.Arrays(images.copy(), np.arange(count, dtype=np.int64))


def stream(split: data.Split, batch_size: int, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(data.batches(split, batch_size, **options).as_numpy_iterator())


def assert_same(left, right) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=5, deadline=None)
@given(
    count=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(-(2**63), 2**63 - 1),
    cut=st.integers(0, 3),
)
def test_a_resumed_stream_continues_a_cut_one(count, batch_size, seed, cut):
    options = {"seed": seed, "epochs": 3, "augment": ("crop", "flip")}
    whole = stream(numbered(count), batch_size, **options)
    steps = data.steps_per_epoch(numbered(count), batch_size)
    assert len(whole) == 3 * steps
    assert_same(
        stream(numbered(count), batch_size, first_epoch=cut, **options), whole[cut * steps :]
    )


@settings(max_examples=5, deadline=None)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_an_epoch_sees_every_image_once_and_keeps_the_last_partial_batch(count, batch_size):
    seen = stream(numbered(count), batch_size, seed=3)
    assert [len(labels) for _, labels in seen[:-1]] == [batch_size] * (len(seen) - 1)
    labels = np.concatenate([labels for _, labels in seen])
    assert sorted(labels) == list(range(count))
    images = np.concatenate([images for images, _ in seen])
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels + 1)


def test_order_changes_with_the_epoch_and_with_the_seed():
    split = numbered(50)
    (_, first), (_, second) = stream(split, 50, seed=0, epochs=2)
    ((_, other),) = stream(split, 50, seed=1)
    assert len({tuple(order) for order in (first, second, other, range(50))}) == 4


@pytest.mark.parametrize("augment", [(), ("flip",), ("crop",), ("flip", "crop")])
@pytest.mark.parametrize("shape", [(5, 7, 1), (8, 8, 3)])
def test_batches_keep_shape_dtype_and_range(augment, shape):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    split = data.Arrays(images, np.zeros(20, np.int64))
    for pixels, labels in stream(split, 8, seed=0, augment=augment):
        assert pixels.dtype == np.float32
        assert labels.dtype == np.int64
        assert pixels.shape[1:] == shape
        assert pixels.min() >= 0
        assert pixels.max() <= 255


def test_flip_mirrors_about_half_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 5, 3), np.uint8)
    split = data.Arrays(images, np.arange(400))
    ((pixels, labels),) = stream(split, 400, seed=0, augment=("flip",))
    original = images[labels].astype(np.float32)
    kept = (pixels == original).all((1, 2, 3))
    mirrored = (pixels == original[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_crop_cuts_a_window_out_of_the_padded_image():
    images = np.random.default_rng(0).integers(1, 256, (800, 6, 5, 2), np.uint8)
    split = data.Arrays(images, np.arange(800))
    ((pixels, labels),) = stream(split, 800, seed=0, augment=("crop",))
    padded = np.pad(images[labels], ((0, 0), (4, 4), (4, 4), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 5), axis=(1, 2))
    matches = (np.moveaxis(windows, 3, -1) == pixels[:, None, None]).all((3, 4, 5))
    corners = {(y, x) for _, y, x in np.argwhere(matches)}
    assert matches.any((1, 2)).all()
    assert corners == {(y, x) for y in range(9) for x in range(9)}


def test_augmentation_differs_between_images_and_epochs():
    split = data.Arrays(
        np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), (40, 8, 8, 1)).copy(),
        np.zeros(40, np.int64),
    )
    (first, _), (second, _) = stream(split, 40, seed=0, epochs=2, augment=("crop",))
    assert len({image.tobytes() for image in first}) > 10
    assert (first != second).any()


def test_plain_batches_keep_the_order():
    split = numbered(10)
    seen = list(data.plain_batches(split, 4).as_numpy_iterator())
    assert [len(labels) for _, labels in seen] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in seen]), split.inputs)
    np.testing.assert_array_equal(np.concatenate([y for _, y in seen]), split.labels)


def test_batches_know_their_number():
    assert data.batches(numbered(10), 4, seed=0, epochs=5, first_epoch=2).cardinality() == 9
    assert data.plain_batches(numbered(10), 4).cardinality() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
        ({"batch_size": 4, "augment": ("flop",)}, "augmentation 'flop': did you mean 'flip'?"),
        (
            {"batch_size": 4, "augment": ("cutout",)},
            "augmentation 'cutout': choose one of crop, flip",
        ),
    ],
)
def test_impossible_batches_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        data.batches(numbered(4), seed=0, **options)


def test_an_empty_split_has_no_batches():
    with pytest.raises(UsageError, match="the split is empty"):
        data.plain_batches(numbered(0), 4)


def test_what_a_training_sees_first_is_what_its_batches_hold():
    train = data.load("digits").train
    first = data.seen(train, 20, seed=3, augment=["crop"])
    (images, _) = next(iter(data.batches(train, 20, seed=3, augment=["crop"])))
    np.testing.assert_array_equal(first, images)
    assert not np.array_equal(first, data.seen(train, 20, seed=3))
    assert len(data.seen(train, 10**6, seed=0)) == len(train)
