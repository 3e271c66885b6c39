"""A data set is known by its hash, and read again only when its files changed."""

from __future__ import annotations

import os

import pytest

from tfprune import data
from tfprune.pipeline.images import Images
from tfprune.pipeline.spec import DataSpec


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a data set is really loaded."""
    true, found = data.load, []

    def counted(*args, **kwargs):
        found.append(args)
        return true("digits", limit=64)

    monkeypatch.setattr(data, "load", counted)
    return found


def test_the_hash_is_remembered_and_nothing_is_loaded_for_it(tmp_path, loads):
    spec = DataSpec(name="digits", limit=64)
    first = Images(spec, None, tmp_path)
    again = Images(spec, None, tmp_path)
    assert first.sha256 == again.sha256
    assert first.note == again.note
    assert len(loads) == 1


def test_a_run_that_does_not_exist_is_not_made_for_it(tmp_path, loads):
    for expected in (1, 2):
        assert Images(DataSpec(name="digits", limit=64), None, tmp_path / "run").sha256
        assert len(loads) == expected
    assert not list(tmp_path.iterdir())


def test_other_images_have_another_hash(tmp_path):
    hashes = {
        Images(DataSpec(name="digits", **options), None, tmp_path / str(place)).sha256
        for place, options in enumerate(
            [{"limit": 64}, {"limit": 65}, {"limit": 64, "validation": 0.2}]
        )
    }
    assert len(hashes) == 3


def test_another_specification_in_the_same_run_is_not_taken_for_the_old_one(tmp_path):
    small = Images(DataSpec(name="digits", limit=64), None, tmp_path).sha256
    assert Images(DataSpec(name="digits", limit=65), None, tmp_path).sha256 != small
    assert Images(DataSpec(name="digits", limit=64), None, tmp_path).sha256 == small


def test_a_file_of_the_set_that_changed_is_read_again(tmp_path, loads):
    file = tmp_path / "sets" / "cifar10" / "3.0.2" / "train.tfrecord"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    spec = DataSpec(name="cifar10")
    (tmp_path / "run").mkdir()
    for expected in (1, 1):
        assert Images(spec, str(tmp_path / "sets"), tmp_path / "run").sha256
        assert len(loads) == expected
    os.utime(file, ns=(1, 1))
    assert Images(spec, str(tmp_path / "sets"), tmp_path / "run").sha256
    assert len(loads) == 2


def test_a_set_that_is_not_where_it_is_looked_for_is_never_remembered(tmp_path, loads):
    (tmp_path / "run").mkdir()
    for expected in (1, 2):
        assert Images(DataSpec(name="mnist"), str(tmp_path), tmp_path / "run").sha256
        assert len(loads) == expected


def test_a_damaged_memory_is_made_anew(tmp_path, loads):
    spec = DataSpec(name="digits", limit=64)
    first = Images(spec, None, tmp_path).sha256
    (tmp_path / "data.json").write_text("{")
    assert Images(spec, None, tmp_path).sha256 == first
    assert len(loads) == 2
