from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune import data
from tfprune.data.sources import Request, find_source

CATS_AND_DOGS = {"cat": 30, "dog": 30}


def contents(split: data.Split) -> list[bytes]:
    """The images of a split, in no order."""
    some = split.sample(len(split))
    return sorted(image.tobytes() for image in some.inputs)


def test_pixels_and_classes_are_those_of_keras(write_photos):
    root = write_photos({"dog": 4, "cat": 3, "Ant": 2}, ("train", "test"), ".JPG")
    ours = data.load(str(root), image_size=(5, 6), validation=0.4)
    theirs = keras.utils.image_dataset_from_directory(
        root / "test", image_size=(5, 6), shuffle=False, verbose=False
    )
    assert ours.classes == tuple(theirs.class_names) == ("Ant", "cat", "dog")
    pairs = [
        {(image.tobytes(), int(label)) for image, label in zip(*batch, strict=True)}
        for batch in (
            next(theirs.as_numpy_iterator()),
            next(data.plain_batches(ours.test, 32).as_numpy_iterator()),
        )
    ]
    assert pairs[0] == pairs[1]


def test_folders_of_splits_are_taken_as_they_are(write_photos):
    root = write_photos({"cat": 3, "dog": 2}, ("train", "val", "test"))
    loaded = data.load(str(root))
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [5, 5, 5]
    assert loaded.image_shape == (5, 6, 3)
    assert np.bincount(loaded.train.labels).tolist() == [3, 2]
    assert "held out" not in loaded.note


def test_a_new_file_moves_no_other(write_photos, write_image):
    root = write_photos(CATS_AND_DOGS)
    names = ("train", "validation", "test")
    before = data.load(str(root))
    assert all(len(getattr(before, split)) > 0 for split in names)
    write_image(root / "cat" / "a new one.png", 1000)
    after = data.load(str(root))
    moved = 0
    for split in names:
        old, new = (contents(getattr(loaded, split)) for loaded in (before, after))
        assert set(old) <= set(new)
        moved += len(new) - len(old)
    assert moved == 1
    assert before.fingerprint != after.fingerprint


def test_shares_and_the_validation_share_are_what_is_asked_for(write_photos):
    root = write_photos({"cat": 150, "dog": 150}, shape=(1, 1, 1))
    sizes = {}
    for name, request in {
        "default": {},
        "validation": {"validation": 0.5},
        "shares": {"options": {"shares": [50, 0, 50]}, "validation": 0.1},
    }.items():
        loaded = data.load(str(root), **request)
        sizes[name] = [len(s) for s in (loaded.train, loaded.validation, loaded.test)]
    shares = {name: [size / 300 for size in found] for name, found in sizes.items()}
    assert shares["default"] == pytest.approx([0.81, 0.09, 0.1], abs=0.09)
    assert shares["validation"] == pytest.approx([0.45, 0.45, 0.1], abs=0.09)
    # The share of the train split that the loader holds out.
    assert shares["shares"] == pytest.approx([0.45, 0.05, 0.5], abs=0.09)
    assert sum(sizes["default"]) == 300


def test_a_limit_takes_images_of_every_class(write_photos):
    loaded = data.load(str(write_photos({"cat": 40, "dog": 40})), limit=10)
    assert set(loaded.train.labels) == {0, 1}
    assert len(loaded.train) == 10


def test_training_batches_are_a_function_of_seed_and_epoch(write_photos):
    train = data.load(str(write_photos(CATS_AND_DOGS))).train
    whole = list(data.batches(train, 8, seed=3, epochs=3).as_numpy_iterator())
    rest = list(data.batches(train, 8, seed=3, epochs=3, first_epoch=1).as_numpy_iterator())
    assert len(whole) == 3 * data.steps_per_epoch(train, 8)
    for (image, label), (same, also) in zip(whole[-len(rest) :], rest, strict=True):
        np.testing.assert_array_equal(image, same)
        np.testing.assert_array_equal(label, also)
    first, second = (
        np.concatenate([label for _, label in part])
        for part in (whole[: len(whole) // 3], whole[len(whole) // 3 : 2 * len(whole) // 3])
    )
    assert (first != second).any()
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_changes_no_batch(write_photos, cache):
    root = write_photos(CATS_AND_DOGS)
    plain = data.load(str(root), image_size=(4, 4))
    for _ in range(2):
        kept = data.load(str(root), image_size=(4, 4), cache=cache)
        assert kept.fingerprint == plain.fingerprint
        for split in ("train", "validation", "test"):
            ours, theirs = getattr(kept, split), getattr(plain, split)
            assert type(ours) is not type(theirs)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
        for batch, other in zip(
            data.batches(kept.train, 8, seed=0, epochs=2),
            data.batches(plain.train, 8, seed=0, epochs=2),
            strict=True,
        ):
            for array, its in zip(batch, other, strict=True):
                np.testing.assert_array_equal(array, its)


def test_a_cache_on_disk_reads_no_file_again(write_photos, cache, monkeypatch):
    root = write_photos(CATS_AND_DOGS)
    first = data.load(str(root), cache="disk")
    stats = {path: path.stat() for path in root.rglob("*.png")}
    for path, stat in stats.items():
        # Another content with the same size and time.
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = data.load(str(root), cache="disk")
    np.testing.assert_array_equal(again.test.sample(3).inputs, first.test.sample(3).inputs)
    assert not list(cache.rglob(".partial-*"))


def test_a_cache_that_is_too_small_names_the_need(write_photos, refused):
    root = write_photos(CATS_AND_DOGS, shape=(100, 100, 3))
    need = 60 * (100 * 100 * 3 + 8) / 2**20
    said = refused(root, cache="memory", cache_mib=1)
    assert f"needs {need:.3g} MiB as a cache and cache_mib=1: give cache_mib = 2" in said
    assert len(data.load(str(root), cache="memory", cache_mib=2).train)


def test_unreadable_files_are_named_and_counted(write_photos, refused):
    root = write_photos(CATS_AND_DOGS, suffix=".jpg")
    whole = (root / "cat" / "0.jpg").read_bytes()
    (root / "cat" / "0.jpg").write_bytes(whole[:-20])
    (root / "dog" / "1.jpg").write_bytes(b"")
    (root / "dog" / "2.jpg").write_bytes(b"not an image")
    said = refused(root)
    assert "has 3 image files that cannot be read (cat/0.jpg: jpeg::Uncompress failed" in said
    assert "dog/1.jpg: Input is empty" in said
    assert 'leave out what cannot be read with unreadable = "skip"' in said
    # What was found is remembered, and is found again.
    assert refused(root) == said
    loaded = data.load(str(root), unreadable="skip")
    assert sum(len(s) for s in (loaded.train, loaded.validation, loaded.test)) == 57
    assert "3 files that cannot be read are left out (cat/0.jpg" in loaded.note


def test_a_repaired_file_is_looked_at_again(write_photos, write_image, refused):
    root = write_photos(CATS_AND_DOGS)
    (root / "cat" / "0.png").write_bytes(b"broken")
    refused(root)
    write_image(root / "cat" / "0.png", 1)
    assert "cannot be read" not in data.load(str(root)).note


def test_what_is_left_out_is_said(write_photos, write_image):
    root = write_photos({"cat": 20, "dog": 20}, ("train", "test"))
    (root / "train" / "cat" / "notes.txt").touch()
    (root / "train" / "cat" / "photo.webp").touch()
    write_image(root / "train" / "cat" / ".ipynb_checkpoints" / "0.png")
    write_image(root / "train" / "cat" / "deep" / "er" / "0.png")
    write_image(root / "elsewhere" / "cat" / "0.png")
    loaded = data.load(str(root))
    assert len(loaded.train) + len(loaded.validation) == 41
    for said in ("1 files .txt", "1 files .webp", "folder elsewhere", "1 hidden files"):
        assert said in loaded.note


def test_links_to_classes_are_followed_and_others_if_asked_for(write_photos, write_image, tmp_path):
    root = write_photos({"cat": 30}, ("train", "test"))
    for number in range(30):
        write_image(tmp_path / "away" / f"{number}.png", 100 + number)
    for split in ("train", "test"):
        (root / split / "dog").symlink_to(tmp_path / "away", target_is_directory=True)
    (root / "test" / "cat" / "more").symlink_to(tmp_path / "away", target_is_directory=True)
    (root / "test" / "cat" / "loop").symlink_to(root / "test" / "cat", target_is_directory=True)
    loaded = data.load(str(root))
    assert loaded.classes == ("cat", "dog")
    assert len(loaded.test) == 60
    assert "2 links to folders" in loaded.note
    followed = data.load(str(root), options={"follow_links": True})
    assert len(followed.test) == 90


def test_grey_images_have_one_channel_and_mixed_ones_three(write_photos, write_image):
    root = write_photos(CATS_AND_DOGS, shape=(4, 4, 1))
    grey = data.load(str(root))
    assert grey.image_shape == (4, 4, 1)
    colour = data.load(str(root), options={"channels": 3}).test.sample(5).inputs
    np.testing.assert_array_equal(colour, np.repeat(grey.test.sample(5).inputs, 3, axis=-1))
    write_image(root / "cat" / "colour.png", shape=(4, 4, 3))
    assert data.load(str(root)).image_shape == (4, 4, 3)
    assert data.load(str(root), options={"channels": 1}).image_shape == (4, 4, 1)


def test_sizes_that_vary_need_one(write_photos, write_image, refused):
    root = write_photos(CATS_AND_DOGS)
    write_image(root / "cat" / "large.png", shape=(20, 9, 3))
    said = refused(root)
    assert "vary in size, from 5x6 to 20x9: give image_size, such as (64, 64)" in said
    assert data.load(str(root), image_size=(7, 8)).image_shape == (7, 8, 3)
    usual = data.load(str(root), usual_size=(3, 3))
    assert usual.image_shape == (3, 3, 3)
    assert "resized to 3x3" in usual.note


def test_classes_choose_folders_and_their_order(write_photos, refused):
    root = write_photos({"a": 20, "b": 20, "c": 20})
    loaded = data.load(str(root), options={"classes": ["c", "a"]})
    assert loaded.classes == ("c", "a")
    assert "folder b" in loaded.note
    assert "has no folder of a class 'd'" in refused(root, options={"classes": ["a", "d"]})


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("counts", "splits", "request_", "said"),
    [
        ({}, (), {}, "has no images in folders of classes"),
        ({"cat": 9}, ("",), {}, "has only one class (cat): a classifier needs"),
        ({"cat": 9, "dog": 9}, ("test",), {}, "has test, and no folder train"),
        ({"cat": 9, "dog": 9}, ("train", "val", "valid"), {}, "both the validation split"),
        ({"cat": 9, "dog": 9}, ("",), {"options": {"chanels": 1}}, "did you mean 'channels'?"),
        ({"cat": 9, "dog": 9}, ("",), {"options": {"channels": 2}}, "channels = 2"),
        ({"cat": 9, "dog": 9}, ("",), {"options": {"shares": [0, 1, 1]}}, "gives train nothing"),
        (
            {"cat": 9, "dog": 9},
            ("train", "test"),
            {"options": {"shares": [8, 1, 1]}},
            "has folders of splits (train, test)",
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    write_photos, refused, tmp_path, counts, splits, request_, said
):
    root = write_photos(counts, splits)
    root.mkdir(exist_ok=True)
    assert said in refused(root, **request_)


def test_a_class_that_a_split_lacks_is_named(write_photos, write_image, refused):
    root = write_photos({"cat": 5, "dog": 5}, ("train", "test"))
    write_image(root / "train" / "emu" / "0.png")
    write_image(root / "train" / "emu" / "1.png")
    assert "no example of class emu in its test split" in refused(root)
    loaded = data.load(str(root), options={"allow_missing_classes": True}, validation=0.4)
    assert "the test split has no example of emu" in loaded.note


def test_loose_images_are_explained(tmp_path, write_image, refused):
    write_image(tmp_path / "loose" / "0.png")
    assert "has 1 images and no folders of classes: sort them" in refused(tmp_path / "loose")
    (tmp_path / "photos" / "test").mkdir(parents=True)
    for name in ("cat", "dog"):
        write_image(tmp_path / "photos" / "train" / name / "0.png")
    write_image(tmp_path / "photos" / "test" / "0.png")
    assert "photos/test has no images in folders of classes" in refused(tmp_path / "photos")


def test_a_vehicle_may_be_called_train(write_photos):
    loaded = data.load(str(write_photos({"car": 30, "train": 30})))
    assert loaded.classes == ("car", "train")


def test_bare_names_of_folders_without_images_stay_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mnist").mkdir()
    Path("my_photos").mkdir()
    assert type(find_source("mnist")).__name__ == "TensorflowDatasets"
    assert type(find_source("my_photos")).__name__ == "Folder"
    assert type(find_source("./mnist")).__name__ == "Folder"


def test_the_check_loads_no_tensorflow(write_photos):
    root = write_photos(CATS_AND_DOGS)
    code = (
        "import sys; from tfprune.data.sources import find_source;"
        f"source = find_source({str(root)!r}); source.check(); source.fingerprint();"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == "False", done.stderr


def test_the_fingerprint_names_files_and_not_their_place(write_photos, tmp_path):
    root = write_photos(CATS_AND_DOGS)
    before = find_source(str(root), Request()).fingerprint()
    moved = root.rename(tmp_path / "moved")
    assert find_source(str(moved), Request()).fingerprint() == before
    os.utime(moved / "cat" / "0.png", (1, 1))
    assert find_source(str(moved), Request()).fingerprint() != before
