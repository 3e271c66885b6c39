from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import TfpruneError, UsageError, data


def numbered(count: int, size: int = 8, channels: int = 1) -> data.Split:
    """Images that are told apart by their label: every pixel of image i is i + 1, its label is i.

    Black (0) then means padding.
    """
    grey = np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(grey[:, None, None, None], (count, size, size, channels))
    return data.Split(images.copy(), np.arange(count, dtype=np.int64))


def stream(split: data.Split, batch_size: int, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(data.batches(split, batch_size, **options).as_numpy_iterator())


def assert_same(left, right) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def rows(split: data.Split) -> list[bytes]:
    return [image.tobytes() for image in split.images]


@pytest.fixture(scope="module")
def whole_digits() -> data.Dataset:
    return data.load("digits")


# Splits


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


# tensorflow_datasets


@pytest.fixture
def make_set(tmp_path):
    """Prepares a set of 40 images a split, image i all of grey i + 1, and leaves its files."""

    def make(
        name: str,
        *,
        splits: tuple[str, ...] = ("train", "test"),
        sizes: tuple[int, ...] = (6,),
        dtype: type = np.uint8,
        label: object = None,
        keys: tuple[str, str] | None = ("image", "label"),
    ) -> Path:
        class Squares(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=self._feature_spec, supervised_keys=keys
                )

        def examples(split: str):
            for i in range(40):
                size = sizes[i % len(sizes)]
                pixels = np.full((size, size, 3), i + 1, dtype)
                yield f"{split}{i}", {"image": pixels, "label": i % 2}

        side = sizes[0] if len(sizes) == 1 else None
        features = {
            "image": tfds.features.Image(shape=(side, side, 3), dtype=dtype, encoding_format="png"),
            "label": label or tfds.features.ClassLabel(names=["even", "odd"]),
        }
        Squares(
            name=name,
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(examples(split)) for split in splits},
            data_dir=tmp_path,
        ).download_and_prepare()
        return tmp_path

    return make


def test_a_prepared_set_loads_with_its_own_names(make_set, capsys):
    directory = make_set("squares")
    capsys.readouterr()
    loaded = data.load("squares", directory, validation=0.25)
    assert loaded.classes == ("even", "odd")
    assert loaded.image_shape == (6, 6, 3)
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [30, 10, 40]
    assert loaded.note.startswith("squares/1.0.0 of tensorflow_datasets ")
    for split in (loaded.train, loaded.validation, loaded.test):
        np.testing.assert_array_equal((split.images[:, 0, 0, 0] - 1) % 2, split.labels)
    assert capsys.readouterr().out == ""


def test_the_environment_names_the_directory(make_set, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(make_set("squares")))
    assert len(data.load("squares").test) == 40


def test_validation_serves_as_test_where_there_is_none(make_set):
    loaded = data.load("squares", make_set("squares", splits=("train", "validation")))
    assert len(loaded.test) == 40
    assert "no test split: its validation split serves as test" in loaded.note


def test_varying_sizes_need_an_image_size(make_set):
    directory = make_set("squares", sizes=(4, 5, 6))
    with pytest.raises(UsageError, match="squares vary in size: give image_size"):
        data.load("squares", directory)
    assert data.load("squares", directory, image_size=(5, 7)).image_shape == (5, 7, 3)


@pytest.mark.parametrize(
    "changes",
    [{"keys": None}, {"label": np.int64}, {"dtype": np.uint16}],
    ids=["not supervised", "regression", "16 bits"],
)
def test_other_kinds_of_sets_are_refused(make_set, changes):
    directory = make_set("squares", **changes)
    with pytest.raises(UsageError, match="does not pair one 8-bit image with one class label"):
        data.load("squares", directory)


def test_a_set_without_test_images_is_refused(make_set):
    directory = make_set("squares", splits=("train", "extra"))
    with pytest.raises(UsageError, match=r"has the splits .*: take a set with 'train' and 'test'"):
        data.load("squares", directory)


def test_damaged_files_are_named(make_set):
    directory = make_set("squares")
    for record in directory.glob("squares/1.0.0/*tfrecord*"):
        record.write_bytes(b"not a record" * 100)
    with pytest.raises(TfpruneError, match=r"cannot be read .*: delete its folder there") as error:
        data.load("squares", directory)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar9", "unknown data set 'cifar9': did you mean 'cifar10'?"),
        ("Digits", "unknown data set 'Digits': did you mean 'digits'?"),
        ("MNIST!", "unknown data set 'MNIST!': did you mean 'mnist'?"),
        ("qqqqq", "unknown data set 'qqqqq': see tensorflow_datasets' catalog for names"),
        ("mnist:0.0.1", "data set 'mnist:0.0.1' cannot be opened: "),
    ],
)
def test_a_wrong_name_gets_a_hint(tmp_path, name, message):
    with pytest.raises(UsageError) as error:
        data.load(name, tmp_path)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("failure", "kind", "advice"),
    [
        (ConnectionError("no route\nto host"), TfpruneError, "go online once, or set data_dir"),
        (PermissionError("denied"), UsageError, "holds it or can be written"),
    ],
)
def test_missing_data_says_which_where_and_what_to_do(tmp_path, monkeypatch, failure, kind, advice):
    def fail(self):
        print("noise of a download")
        raise failure

    builder = type(tfds.builder("mnist", data_dir=tmp_path))
    monkeypatch.setattr(builder, "download_and_prepare", fail)
    with pytest.raises(kind, match=advice) as error:
        data.load("mnist", tmp_path)
    assert type(error.value) is kind
    assert f"mnist is not in {tmp_path}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_data_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file: name a directory"):
        data.load("mnist", tmp_path / "file")


def test_cifar10_loads_as_tensorflow_datasets_prepared_it(cifar10_dir):
    loaded = data.load("cifar10", cifar10_dir, limit=50)
    assert loaded.image_shape == (32, 32, 3)
    assert len(loaded.classes) == 10
    assert set(loaded.train.labels) == set(range(10))
    assert loaded.note.startswith("cifar10/3.")


# Batches


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
    split = data.Split(images, np.zeros(20, np.int64))
    for pixels, labels in stream(split, 8, seed=0, augment=augment):
        assert pixels.dtype == np.float32
        assert labels.dtype == np.int64
        assert pixels.shape[1:] == shape
        assert pixels.min() >= 0
        assert pixels.max() <= 255


def test_flip_mirrors_about_half_and_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (400, 4, 5, 3), np.uint8)
    split = data.Split(images, np.arange(400))
    ((pixels, labels),) = stream(split, 400, seed=0, augment=("flip",))
    original = images[labels].astype(np.float32)
    kept = (pixels == original).all((1, 2, 3))
    mirrored = (pixels == original[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_crop_cuts_a_window_out_of_the_padded_image():
    images = np.random.default_rng(0).integers(1, 256, (800, 6, 5, 2), np.uint8)
    split = data.Split(images, np.arange(800))
    ((pixels, labels),) = stream(split, 800, seed=0, augment=("crop",))
    padded = np.pad(images[labels], ((0, 0), (4, 4), (4, 4), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 5), axis=(1, 2))
    found = (np.moveaxis(windows, 3, -1) == pixels[:, None, None]).all((3, 4, 5))
    corners = {(y, x) for _, y, x in np.argwhere(found)}
    assert found.any((1, 2)).all()
    assert corners == {(y, x) for y in range(9) for x in range(9)}


def test_augmentation_differs_between_images_and_epochs():
    split = data.Split(
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
    np.testing.assert_array_equal(np.concatenate([x for x, _ in seen]), split.images)
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
