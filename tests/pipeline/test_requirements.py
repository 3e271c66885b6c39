"""What a pipeline names outside its file is looked for before anything is done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.requirements import check_data, check_requirements
from tfprune.pipeline.runner import forecast, run


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifr10", "unknown data set 'cifr10': did you mean 'cifar10'?"),
        ("CIFAR10", "unknown data set 'CIFAR10': did you mean 'cifar10'?"),
        ("digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("cifar-10:3.0.2", "unknown data set 'cifar-10:3.0.2': did you mean 'cifar10'?"),
        ("", "unknown data set '': see tensorflow_datasets' catalog for names"),
        ("/", "unknown data set '/': see tensorflow_datasets' catalog for names"),
        ("../cifar10", "unknown data set '../cifar10': see tensorflow_datasets' catalog for names"),
        ("a" * 300, f"unknown data set '{'a' * 57}...': see tensorflow_datasets' catalog"),
    ],
)
def test_a_misspelt_data_set_is_told_with_the_nearest(name, said, tmp_path):
    with pytest.raises(UsageError) as caught:
        check_data(name, str(tmp_path))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar10:3.0.2", "mnist", "ns:theirs"])
def test_what_is_known_passes(name, tmp_path):
    check_data(name, str(tmp_path))


def test_a_set_that_lies_in_the_directory_needs_no_other_name(tmp_path):
    (tmp_path / "mine").mkdir()
    check_data("mine", str(tmp_path))
    with pytest.raises(UsageError):
        check_data("mine", str(tmp_path / "mine"))


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
        "import sys; from tfprune.pipeline.requirements import check_data; check_data('mnist');"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
