"""What a pipeline names outside its file is looked for before anything is done."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tfprune import data
from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.inputs import RunData, check_data, check_requirements
from tfprune.pipeline.runner import forecast, run
from tfprune.pipeline.spec import DataSpec


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifr10", "unknown data set 'cifr10': did you mean 'cifar10'?"),
        ("CIFAR10", "unknown data set 'CIFAR10': did you mean 'cifar10'?"),
        ("digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("cifar-10:3.0.2", "unknown data set 'cifar-10:3.0.2': did you mean 'cifar10'?"),
        ("", "the data set has no name: give digits, which is embedded; "),
        ("../cifar10", "unknown data set '../cifar10': see tensorflow_datasets' catalog for names"),
        ("a" * 300, f"unknown data set '{'a' * 57}...': see tensorflow_datasets' catalog"),
    ],
)
def test_a_misspelt_data_set_is_told_with_the_nearest(name, said, tmp_path):
    with pytest.raises(UsageError) as caught:
        check_data(DataSpec(name=name), str(tmp_path))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar10:3.0.2", "mnist", "ns:theirs"])
def test_what_is_known_passes(name, tmp_path):
    check_data(DataSpec(name=name), str(tmp_path))


def test_a_set_that_lies_in_the_directory_needs_no_other_name(tmp_path):
    (tmp_path / "mine").mkdir()
    check_data(DataSpec(name="mine"), str(tmp_path))
    with pytest.raises(UsageError):
        check_data(DataSpec(name="mine"), str(tmp_path / "mine"))


def _pipeline(**changes):
    raw = {
        "name": "it",
        "formats": ["keras"],
        "data": {"name": "digits"},
        "model": {"name": "vgg"},
        "steps": {"dense": {"kind": "train", "epochs": 1}},
        "variants": {"dense": ["dense"]},
    }
    return Pipeline.model_validate(raw | changes)


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"name": "cifr10"}}, "unknown data set 'cifr10'"),
        ({"model": {"name": "none.keras"}}, "none.keras does not exist"),
        ({"model": {"name": "n" * 300 + ".keras"}}, "n" * 300),
        (
            {"model": {"name": "MobileNetV2", "options": {"weights": "none.h5"}}},
            "none.h5 does not exist",
        ),
    ],
)
def test_run_and_forecast_ask_before_anything_is_made(changes, said, tmp_path):
    pipeline = _pipeline(**changes)
    for start in (check_requirements, run, forecast):
        out = {} if start is check_requirements else {"out": tmp_path / "out"}
        with pytest.raises(TfpruneError) as caught:
            start(pipeline, **out)
        assert str(caught.value).startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_name_is_looked_up_without_tensorflow():
    code = (
        "import sys; from tfprune.pipeline.inputs import check_data;"
        "from tfprune.pipeline.spec import DataSpec; check_data(DataSpec(name='mnist'));"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
    first = RunData(spec, None, tmp_path)
    again = RunData(spec, None, tmp_path)
    assert first.sha256 == again.sha256
    assert first.note == again.note
    assert len(loads) == 1


def test_a_run_that_does_not_exist_is_not_made_for_it(tmp_path, loads):
    for expected in (1, 2):
        assert RunData(DataSpec(name="digits", limit=64), None, tmp_path / "run").sha256
        assert len(loads) == expected
    assert not list(tmp_path.iterdir())


def test_other_images_have_another_hash(tmp_path):
    hashes = {
        RunData(DataSpec(name="digits", **options), None, tmp_path / str(place)).sha256
        for place, options in enumerate(
            [{"limit": 64}, {"limit": 65}, {"limit": 64, "validation": 0.2}]
        )
    }
    assert len(hashes) == 3


def test_another_specification_in_the_same_run_is_not_taken_for_the_old_one(tmp_path):
    small = RunData(DataSpec(name="digits", limit=64), None, tmp_path).sha256
    assert RunData(DataSpec(name="digits", limit=65), None, tmp_path).sha256 != small
    assert RunData(DataSpec(name="digits", limit=64), None, tmp_path).sha256 == small


def test_a_file_of_the_set_that_changed_is_read_again(tmp_path, loads):
    file = tmp_path / "sets" / "cifar10" / "3.0.2" / "train.tfrecord"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    spec = DataSpec(name="cifar10")
    (tmp_path / "run").mkdir()
    for expected in (1, 1):
        assert RunData(spec, str(tmp_path / "sets"), tmp_path / "run").sha256
        assert len(loads) == expected
    os.utime(file, ns=(1, 1))
    assert RunData(spec, str(tmp_path / "sets"), tmp_path / "run").sha256
    assert len(loads) == 2


def test_a_set_that_is_not_where_it_is_looked_for_is_never_remembered(tmp_path, loads):
    (tmp_path / "run").mkdir()
    for expected in (1, 2):
        assert RunData(DataSpec(name="mnist"), str(tmp_path), tmp_path / "run").sha256
        assert len(loads) == expected


def test_a_damaged_memory_is_made_anew(tmp_path, loads):
    spec = DataSpec(name="digits", limit=64)
    first = RunData(spec, None, tmp_path).sha256
    (tmp_path / "data.json").write_text("{")
    assert RunData(spec, None, tmp_path).sha256 == first
    assert len(loads) == 2
