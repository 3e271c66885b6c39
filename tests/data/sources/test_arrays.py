from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfprune import data
from tfprune.data.memory_maps import MappedArrays
from tfprune.data.sources import Request, find_source

X = np.arange(60 * 4, dtype=np.float32).reshape(60, 4)
Y = np.arange(60) % 3


def parts(**changes: Any) -> dict[str, Any]:
    """Arrays of a train and a test split, with some of them changed or removed."""
    arrays = {"x_train": X, "y_train": Y, "x_test": X[:30] + 0.5, "y_test": Y[:30]} | changes
    return {name: array for name, array in arrays.items() if array is not None}


def save(folder: Path, kind: str, arrays: dict[str, Any]) -> str:
    """Writes arrays as FILE.npz, or as a folder of files."""
    folder.mkdir(exist_ok=True)
    if kind == "npz":
        np.savez(folder / "data.npz", **arrays)
        return str(folder / "data.npz")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


@pytest.fixture(params=["npz", "npy"])
def saved(request, tmp_path):
    """Writes arrays in both ways."""
    return lambda **arrays: save(tmp_path / "arrays", request.param, arrays)


def test_splits_come_back_as_they_were_saved(saved):
    loaded = data.load(saved(**parts(x_val=X[:9], y_val=Y[:9])))
    for split, x, y in (
        (loaded.train, X, Y),
        (loaded.validation, X[:9], Y[:9]),
        (loaded.test, X[:30] + 0.5, Y[:30]),
    ):
        some = split.sample(len(split))
        np.testing.assert_array_equal(some.inputs, x)
        np.testing.assert_array_equal(some.targets, y)
    assert loaded.classes == ("0", "1", "2")
    assert "arrays in" in loaded.note


def test_missing_splits_are_held_out(saved):
    loaded = data.load(saved(x=X, y=Y), validation=0.2)
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [43, 11, 6]
    everything = np.concatenate(
        [s.sample(99).inputs[:, 0] for s in (loaded.train, loaded.validation, loaded.test)]
    )
    np.testing.assert_array_equal(np.sort(everything), X[:, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_labels_of_any_integers_are_int64_vectors(tmp_path, dtype, shape):
    arrays = parts(y_train=Y.astype(dtype).reshape(shape))
    train = data.load(save(tmp_path / "a", "npz", arrays)).train
    assert train.labels.dtype == np.int64
    assert train.targets.shape == (len(train),)


def test_texts_are_names_of_classes(saved):
    names = np.array(["emu", "cat", "dog"])
    loaded = data.load(saved(**parts(y_train=names[Y], y_test=names[Y[:30]])))
    assert loaded.classes == ("cat", "dog", "emu")
    np.testing.assert_array_equal(loaded.test.labels, np.array([2, 0, 1])[Y[:30]])


def test_an_array_and_an_option_name_the_classes(saved, tmp_path):
    name = saved(**parts(classes=np.array(["a", "b", "c"])))
    assert data.load(name).classes == ("a", "b", "c")
    assert data.load(name, options={"classes": ["x", "y", "z"]}).classes == ("x", "y", "z")
    years = save(tmp_path / "years", "npz", parts(y_train=Y + 1990, y_test=Y[:30] + 1990))
    assert data.load(years, options={"classes": True}).classes == ("1990", "1991", "1992")
    numbers = data.load(years, options={"classes": False})
    assert numbers.classes == ()
    assert numbers.train.targets.dtype == np.float32


def test_other_targets_stay_as_they_are(tmp_path):
    for number, (targets, spec) in enumerate(
        [
            (np.eye(3, dtype=np.uint8)[Y], (3,)),
            (Y * 0.5, ()),
            (np.zeros((60, 4, 4), np.int32), (4, 4)),
            (np.eye(3)[Y] > 0, (3,)),
        ]
    ):
        name = save(tmp_path / str(number), "npz", {"x": X, "y": targets})
        loaded = data.load(name)
        assert loaded.classes == ()
        assert loaded.train.labels is None
        assert tuple(loaded.train.element_spec[1].shape) == spec


def test_inputs_targets_and_weights_may_have_names(saved):
    loaded = data.load(
        saved(
            x_train_left=X,
            x_train_right=X[:, :2],
            y_train_kind=np.array(["u", "v", "w"])[Y],
            y_train_size=Y * 0.5,
            w_train_kind=np.ones(60),
            w_train_size=np.zeros(60),
        )
    )
    inputs, targets, weights = loaded.train.element_spec
    assert {name: tuple(spec.shape) for name, spec in inputs.items()} == {
        "left": (4,),
        "right": (2,),
    }
    assert targets["kind"].dtype == "int64"
    assert targets["size"].dtype == "float64"
    assert set(weights) == {"kind", "size"}


def test_files_are_mapped_and_not_read(tmp_path):
    name = save(tmp_path / "arrays", "npy", {"x": X, "y": Y})
    loaded = data.load(name, validation=0.2)
    for split in (loaded.train, loaded.validation, loaded.test):
        assert isinstance(split, MappedArrays)
        assert all(isinstance(leaf, np.memmap) for leaf in split._leaves)
    same = data.load(name, validation=0.2, cache="memory")
    assert isinstance(same.train, data.Arrays)
    for batch, other in zip(
        data.batches(loaded.train, 8, seed=0, epochs=2),
        data.batches(same.train, 8, seed=0, epochs=2),
        strict=True,
    ):
        for array, its in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, its)
    np.testing.assert_array_equal(loaded.train.labels, same.train.labels)


def test_one_file_stands_for_those_beside_it(tmp_path):
    folder = save(tmp_path / "arrays", "npy", parts())
    assert len(data.load(f"{folder}/x_train.npy").test) == 30


def test_images_are_resized_and_get_a_channel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    name = save(tmp_path / "arrays", "npz", {"x": pixels, "y": Y})
    loaded = data.load(name, image_size=(4, 5), options={"channel_axis": True})
    assert loaded.image_shape == (4, 5, 1)
    assert data.load(name).input_shapes == (8, 8)


def test_the_fingerprint_is_of_the_content(tmp_path):
    first, same, other = (
        find_source(save(tmp_path / name, "npz", parts(x_train=x)), Request())
        for name, x in (("a", X), ("b", X), ("c", X + 1))
    )
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()
    files = [find_source(save(tmp_path / name, "npy", parts()), Request()) for name in "de"]
    assert files[0].fingerprint() != files[1].fingerprint()


def test_what_is_not_read_is_said(saved):
    assert "not read: notes" in data.load(saved(**parts(notes=Y))).note


def test_more_than_the_limit_is_refused(tmp_path, refused):
    name = save(tmp_path / "arrays", "npz", {"x": np.zeros((60, 50_000)), "y": Y})
    said = refused(name, cache_mib=10)
    assert "needs 22.9 MiB of memory and cache_mib=10: give cache_mib = 23, or save each" in said


NAN = np.where(X == 7, np.nan, X)


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "has no arrays, and no x_train"),
        ({"a": X, "b": Y}, "has a, b, and no x_train: name its arrays"),
        ({"x": X}, "has x and no y_train: add the targets of train"),
        ({"y": Y}, "has y, and no x_train"),
        (parts(y_test=None), "has x_test and no y_test: add the targets of test"),
        (parts(x=X), "has x and x_train, which are the same"),
        (parts(x_train_left=X), "has x_train beside x_train_left: name every input"),
        (parts(y_train=Y[:9]), "the inputs of train are 60 and the targets of train are 9"),
        (parts(y_train=Y * 0, y_test=Y[:30] * 0), "has only one class (0)"),
        (parts(y_train=Y + 1, y_test=Y[:30] + 1), "integers from 1 to 3 as targets"),
        (parts(y_train=Y - 1), "some are negative"),
        (parts(y_test=Y[:30] + 1), "has labels in test that are outside of its classes (3;"),
        (parts(x_test=X[:2], y_test=Y[:2]), "no example of class 2 in its test split"),
        (parts(x_train=NAN), "the inputs of train hold NaN or infinity in 1 of 60 examples, the"),
        (parts(y_train=np.full(60, np.inf)), "the targets of train hold NaN or infinity"),
        (parts(w_train=-Y), "the weights of train hold 40 negative numbers"),
        (parts(x_train=X[:0], y_train=Y[:0]), "the inputs of train have no examples"),
        (
            parts(x_test=X[:30, :2]),
            "have the shape (2,), and the inputs of train (4,)",
        ),
        (parts(x_test=X[:30].astype(int)), "the inputs of test have the dtype int64"),
        (parts(x_train=X.astype(str)), "the inputs of train have the dtype <U"),
        (parts(x_train=X.astype(complex)), "the inputs of train have the dtype complex128"),
        (parts(x_train=np.float32(1)), "the inputs of train are a single number"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_arrays_that_cannot_be_used_are_refused(saved, refused, arrays, said):
    name = saved(**arrays)
    if not arrays and not name.endswith(".npz"):
        name += "/x_train.npy"
        said = "does not exist"
    assert said in refused(name)


def test_objects_are_never_loaded(saved, refused):
    name = saved(**parts(x_train=np.array([{}] * 60)))
    assert "x_train holds Python objects, which are never loaded" in refused(name)


def test_other_files_are_explained(tmp_path, refused):
    (tmp_path / "a.npz").write_bytes(b"nothing of numpy")
    assert "is not a file of numpy.savez" in refused(tmp_path / "a.npz")
    assert "does not exist" in refused(tmp_path / "b.npz")
    name = save(tmp_path / "c", "npz", parts())
    assert "did you mean 'classes'" in refused(name, options={"clases": 3})
    assert "image_size is for images" in refused(name, image_size=(4, 4))
    assert "channel_axis is for inputs" in refused(name, options={"channel_axis": True})
