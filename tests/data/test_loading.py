from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfprune import TfpruneError, UsageError, data


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
        np.testing.assert_array_equal((split.inputs[:, 0, 0, 0] - 1) % 2, split.labels)
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
    ("changes", "message"),
    [
        ({"keys": None}, "does not say what is the input and what is the target"),
        ({"dtype": np.uint16}, "the images of squares are not of 8 bits"),
    ],
    ids=["not supervised", "16 bits"],
)
def test_sets_that_cannot_be_used_are_refused(make_set, changes, message):
    directory = make_set("squares", **changes)
    with pytest.raises(UsageError, match=message):
        data.load("squares", directory)


def test_options_name_the_features(make_set):
    directory = make_set("squares", keys=None)
    loaded = data.load("squares", directory, options={"inputs": "image", "targets": "label"})
    assert loaded.classes == ("even", "odd")
    with pytest.raises(UsageError, match="squares has no option 'input'"):
        data.load("squares", directory, options={"input": "image"})


def test_targets_may_be_numbers(make_set):
    loaded = data.load("squares", make_set("squares", label=np.int64))
    assert loaded.classes == ()
    assert len(loaded.test) == 40


def test_a_validation_split_is_taken_as_it_is(make_set):
    loaded = data.load("squares", make_set("squares", splits=("train", "validation", "test")))
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == [40, 40, 40]
    assert "held out" not in loaded.note


def test_what_is_larger_than_the_cache_is_streamed_with_the_same_examples(make_set):
    directory = make_set("squares")
    whole, streamed = (data.load("squares", directory, cache_mib=mib) for mib in (1024, 1e-3))
    assert isinstance(streamed.test, data.Stream)
    for (images, labels), (same, also) in zip(
        data.plain_batches(whole.test, 7), data.plain_batches(streamed.test, 7), strict=True
    ):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, also)
    assert len(streamed.train) + len(streamed.validation) == 40
    assert "its first examples" in streamed.note
    with pytest.raises(UsageError, match=r"squares needs .* as a cache and cache_mib=0\.001"):
        data.load("squares", directory, cache_mib=1e-3, cache="disk")


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
