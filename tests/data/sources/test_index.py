from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfprune import UsageError, data

COUNT = 60
KINDS = ("cat", "dog")


def columns() -> dict[str, list[Any]]:
    return {
        "photo": [f"images/{row}.png" for row in range(COUNT)],
        "mask": [f"masks/{row}.png" for row in range(COUNT)],
        "kind": [KINDS[row % 2] for row in range(COUNT)],
        "price": [row + 0.5 for row in range(COUNT)],
        "level": [row % 3 for row in range(COUNT)],
        "cents": [100 * row for row in range(COUNT)],
        "split": ["train"] * 40 + ["val"] * 10 + ["test"] * 10,
    }


def write_mask(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(pixels[..., None] if pixels.ndim == 2 else pixels).numpy())


def mask_of(row: int, values: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    chosen = np.random.default_rng(row).integers(0, len(values), (5, 6))
    return np.array(values, np.uint8)[chosen]


@pytest.fixture
def write_index(tmp_path, write_image) -> Callable[..., Path]:
    """Writes images, masks and FILE.csv with the columns that are given."""

    def write(table: Mapping[str, list[Any]] | None = None, kind: str = "csv") -> Path:
        table = columns() if table is None else table
        for row in range(COUNT):
            write_image(tmp_path / "images" / f"{row}.png", row)
            write_mask(tmp_path / "masks" / f"{row}.png", mask_of(row))
        path = tmp_path / f"index.{kind}"
        rows = list(zip(*table.values(), strict=True))
        if kind == "csv":
            lines = [",".join(table), *(",".join(map(str, row)) for row in rows)]
        else:
            lines = ['inputs = "photo"', 'targets = "kind"']
            for row in rows:
                lines.append("[[examples]]")
                lines += [f"{name} = {value!r}" for name, value in zip(table, row, strict=True)]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def load(path: Path, inputs: Any, targets: Any, **more: Any) -> data.Dataset:
    request = {key: more.pop(key) for key in ("image_size", "cache", "unreadable") if key in more}
    return data.load(str(path), options={"inputs": inputs, "targets": targets, **more}, **request)


def rows_of(split: data.Split) -> np.ndarray:
    """The rows of a split whose target is the price."""
    return np.sort(split.sample(len(split)).targets - 0.5).astype(int)


def test_images_and_names_of_classes(write_index):
    loaded = load(write_index(), "photo", "kind", split="split")
    assert loaded.classes == KINDS
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [40, 10, 10]
    assert loaded.image_shape == (5, 6, 3)
    assert np.bincount(loaded.train.labels).tolist() == [20, 20]


def test_each_image_keeps_its_target(write_index):
    loaded = load(write_index(), "photo", "price", split="split")
    for split in (loaded.train, loaded.validation, loaded.test):
        some = split.sample(len(split))
        assert some.targets.dtype == np.float32
        for image, price in zip(some.inputs, some.targets, strict=True):
            row = np.random.default_rng(int(price)).integers(0, 256, (5, 6, 3), np.uint8)
            np.testing.assert_array_equal(image, row)
    assert loaded.classes == ()


def test_masks_are_maps_of_class_numbers(write_index):
    path = write_index()
    loaded = load(path, "photo", {"price": "price", "mask": "mask"}, split="split")
    some = loaded.test.sample(10)
    for number, mask in zip(some.targets["price"], some.targets["mask"], strict=True):
        np.testing.assert_array_equal(mask, mask_of(int(number)))
    small = load(path, "photo", "mask", image_size=(3, 4), classes=["a", "b", "c"])
    assert small.classes == ("a", "b", "c")
    assert tuple(small.train.element_spec[1].shape) == (3, 4)
    assert set(np.unique(small.train.sample(50).targets)) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("values", "options"), [((0, 255), {}), ((9, 4, 70), {"mask_values": [9, 4, 70]})]
)
def test_values_of_masks_become_class_numbers(write_index, tmp_path, values, options):
    path = write_index()
    for row in range(COUNT):
        write_mask(tmp_path / "masks" / f"{row}.png", mask_of(row, values))
    loaded = load(path, "photo", {"price": "price", "mask": "mask"}, **options)
    some = loaded.train.sample(99)
    for number, mask in zip(some.targets["price"], some.targets["mask"], strict=True):
        np.testing.assert_array_equal(mask, mask_of(int(number), tuple(range(len(values)))))


def test_a_table_of_numbers_needs_no_files(write_index):
    loaded = load(write_index(), ["price", "level"], "kind")
    assert isinstance(loaded.train, data.Arrays)
    some = loaded.test.sample(99)
    np.testing.assert_array_equal((some.inputs[:, 0] - 0.5) % 2, some.targets)
    np.testing.assert_array_equal((some.inputs[:, 0] - 0.5) % 3, some.inputs[:, 1])
    assert sum(len(s) for s in (loaded.train, loaded.validation, loaded.test)) == COUNT


def test_several_inputs_and_targets_have_names(write_index):
    loaded = load(
        write_index(),
        {"photo": "photo", "numbers": ["price", "level"]},
        {"kind": "kind", "both": ["price", "cents"]},
        weights="price",
    )
    inputs, targets, weights = loaded.train.element_spec
    assert tuple(inputs["photo"].shape) == (5, 6, 3)
    assert tuple(inputs["numbers"].shape) == (2,)
    assert tuple(targets["both"].shape) == (2,)
    assert targets["kind"].dtype == "int64"
    assert tuple(weights.shape) == ()
    pair = load(write_index(), ["photo", "mask"], "kind").train.element_spec[0]
    assert {name: tuple(spec.shape) for name, spec in pair.items()} == {
        "photo": (5, 6, 3),
        "mask": (5, 6, 3),
    }


def test_a_new_row_moves_no_other(write_index, write_image, tmp_path):
    path = write_index()
    before = load(path, "photo", "price")
    lines = path.read_text().splitlines()
    write_image(tmp_path / "images" / "new.png", 999)
    new = "images/new.png,masks/0.png,cat,999.5,0,0,train"
    path.write_text("\n".join([lines[0], new, *lines[1:]]))
    after = load(path, "photo", "price")
    for split in ("train", "validation", "test"):
        old, now = (rows_of(getattr(loaded, split)) for loaded in (before, after))
        assert set(now) - {999} == set(old)
    assert before.fingerprint != after.fingerprint


def test_toml_says_the_same(write_index):
    table = {name: columns()[name] for name in ("photo", "kind")}
    csv, toml = (write_index(table, kind) for kind in ("csv", "toml"))
    ours, theirs = load(csv, "photo", "kind"), data.load(str(toml))
    np.testing.assert_array_equal(ours.train.labels, theirs.train.labels)
    assert ours.classes == theirs.classes == KINDS


def test_integers_are_classes_only_where_that_is_clear(write_index, refused):
    path = write_index()
    assert load(path, "photo", "level").classes == ("0", "1", "2")
    with pytest.raises(UsageError, match="integers from 0 to 5,900 as targets"):
        load(path, "photo", "cents")
    assert load(path, "photo", "cents", classes=False).classes == ()


def test_na_may_be_a_class(write_index):
    table = columns()
    table["kind"] = ["NA" if row % 2 else "None" for row in range(COUNT)]
    assert load(write_index(table), "photo", "kind").classes == ("NA", "None")


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_cache_changes_no_example(write_index, cache):
    path = write_index()
    plain, kept = (load(path, "photo", "mask", cache=where) for where in (None, cache))
    assert plain.fingerprint == kept.fingerprint
    ours, theirs = (loaded.train.sample(99) for loaded in (plain, kept))
    np.testing.assert_array_equal(ours.inputs, theirs.inputs)
    np.testing.assert_array_equal(ours.targets, theirs.targets)


def test_files_that_are_missing_or_broken_are_named(write_index, tmp_path):
    path = write_index()
    (tmp_path / "images" / "3.png").unlink()
    (tmp_path / "masks" / "5.png").write_bytes(b"broken")
    with pytest.raises(UsageError) as error:
        load(path, "photo", "mask")
    assert "has 2 image files that cannot be read (images/3.png: No such file" in str(error.value)
    assert "masks/5.png: Unknown image file format" in str(error.value)
    loaded = load(path, "photo", {"mask": "mask", "price": "price"}, unreadable="skip")
    found = np.concatenate(
        [s.sample(99).targets["price"] for s in (loaded.train, loaded.validation, loaded.test)]
    )
    assert set(np.arange(COUNT)) - set(found.astype(int)) == {3, 5}
    assert "2 files that cannot be read are left out" in loaded.note


def wrong(name: str, row: int, value: Any) -> dict[str, list[Any]]:
    table = columns()
    table[name][row] = value
    return table


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (None, {}, "has the columns photo, mask, kind, price, level, cents, split: name those"),
        (None, {"inputs": "photo"}, "that are the targets by the data option targets"),
        (None, {"inputs": "foto", "targets": "kind"}, "no column 'foto': did you mean 'photo'?"),
        (None, {"inputs": "photo", "target": "kind"}, "did you mean 'targets'?"),
        (None, {"inputs": ["photo", "price"], "targets": "kind"}, "give a table of inputs by name"),
        (None, {"inputs": "kind", "targets": "price"}, "has 'cat' in its column 'kind', which is"),
        (None, {"inputs": "price", "targets": "kind", "split": "kind"}, "has cat, dog in its"),
        (None, {"inputs": "price", "targets": "kind", "shares": [1, 1, 1]}, "has no files as inp"),
        ({"a": [], "b": []}, {"inputs": "a", "targets": "b"}, "has no rows: write one"),
        (wrong("kind", 3, ""), {"inputs": "photo", "targets": "kind"}, "no value in its column"),
        (
            wrong("photo", 3, ""),
            {"inputs": "photo", "targets": "kind"},
            "no file in column 'photo'",
        ),
        (wrong("price", 3, ""), {"inputs": "photo", "targets": "price"}, "'price' of row 4"),
        (wrong("price", 3, "x"), {"inputs": "price", "targets": "kind"}, "which is neither a num"),
        (wrong("price", 3, "inf"), {"inputs": "price", "targets": "kind"}, "has NaN or infinity"),
        (
            columns() | {"kind": ["cat"] * COUNT},
            {"inputs": "photo", "targets": "kind"},
            "only one class (cat)",
        ),
        (
            wrong("kind", 45, "emu"),
            {"inputs": "photo", "targets": "kind", "split": "split"},
            "has labels in validation that are outside of its classes (emu",
        ),
        (
            columns() | {"kind": [KINDS[row >= 50] for row in range(COUNT)]},
            {"inputs": "photo", "targets": "kind", "split": "split", "classes": ["cat", "dog"]},
            "has no example of class dog in its train split",
        ),
    ],
)
def test_indexes_that_cannot_be_used_are_refused(write_index, refused, table, options, said):
    assert said in refused(write_index(table), options=options)


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("pixels", "suffix", "said"),
    [
        (np.zeros((5, 6, 3), np.uint8), "png", "have colours or a palette (masks/0.png)"),
        (np.zeros((4, 6), np.uint8), "png", "differ in size from their images (masks/0.png is 4x6"),
        (np.full((5, 6), 7, np.uint8), "png", "have pixels of the values 7 (such as masks/0.png)"),
        (None, "jpg", "are JPEG files (masks/0.jpg), which do not keep class numbers"),
    ],
    ids=["colours", "size", "values", "jpeg"],
)
def test_images_that_are_not_masks_are_refused(
    write_index, write_image, tmp_path, refused, pixels, suffix, said
):
    table = columns()
    table["mask"][0] = f"masks/0.{suffix}"
    path = write_index(table)
    if pixels is None:
        write_image(tmp_path / "masks" / "0.jpg", shape=(5, 6, 1))
    else:
        write_mask(tmp_path / "masks" / "0.png", pixels)
    assert said in refused(path, options={"inputs": "photo", "targets": "mask"})


def test_other_files_are_explained(tmp_path, refused):
    assert "does not exist" in refused(tmp_path / "nothing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "cannot be read as a table" in refused(tmp_path / "binary.csv")
    (tmp_path / "empty.csv").touch()
    assert "cannot be read as a table" in refused(tmp_path / "empty.csv")
    (tmp_path / "other.toml").write_text("inputs = 'a'\ntargets = 'b'\n")
    assert "has no array of tables examples" in refused(tmp_path / "other.toml")
