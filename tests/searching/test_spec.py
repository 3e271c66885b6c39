"""What a search may say is checked before anything is trained."""

from __future__ import annotations

import importlib.util

import pytest

from tests.searching.small import small
from tfprune.errors import TfpruneError, UsageError
from tfprune.searching import load_search, search


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minimize": "latencies"}, "did you mean 'latency'"),
        ({"minimize": "sparsity"}, "is not a cost"),
        ({"minimize": "cycles"}, "is not a cost that cpu"),
        ({"epochs": None}, "vgg is not trained"),
        ({"device": "tflm", "minimize": "macs"}, "tflm does not run tflite-float16"),
        ({"space": {"keep": [0.9, 0.2]}}, "write the least first"),
        ({"space": {"zeros": []}}, "give at least one"),
        ({"space": {"bits": [4, 4]}}, "4 comes twice"),
        ({"device": "cpus"}, "did you mean 'cpu'"),
        ({"max_drop": -1}, "max_drop"),
        ({"trial": 3}, "did you mean 'trials'"),
        ({"training": {"epochs": 3}}, "give epochs and recovery"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_key(given, said):
    if given.get("device") == "tflm":
        given = {**given, "space": {"formats": ["tflite-float16"]}}
    with pytest.raises(UsageError) as caught:
        small(**given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_and_options_replace_its_keys(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(
        'epochs = 3\nminimize = "macs"\ntrials = 4\ndevice = "cpu"\n'
        '[data]\nname = "digits"\n[model]\nname = "vgg"\n'
    )
    assert (load_search(path).trials, load_search(path, trials=9).trials) == (4, 9)
    path.write_text("epochs = 0")
    with pytest.raises(UsageError, match=r"search\.toml: "):
        load_search(path)


def test_a_missing_optuna_is_one_line(monkeypatch, tmp_path):
    true = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "optuna" else true(name)
    )
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[search\]'"):
        search(small(), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_that_are_not_there_are_missed_first(tmp_path):
    with pytest.raises(UsageError, match="digit"):
        search(small(data={"name": "digit"}), out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recovery", "rungs", "segments"),
    [(8, 3, (2, 2, 4)), (8, 1, (8,)), (2, 3, (1, 1)), (1, 3, (1,)), (12, 2, (6, 6))],
)
def test_rungs_double_and_come_to_the_whole_recovery(recovery, rungs, segments):
    found = small(recovery=recovery, rungs=rungs).segments
    assert found == segments
    assert sum(found) == recovery


def test_zeros_and_few_values_are_tried_where_they_make_the_cost_less():
    assert small(minimize="macs").zeros == (0.0,)
    assert len(small(minimize="bytes_gzip").zeros) > 1
    assert len(small(minimize="bytes_gzip").bits) > 1
    assert small(minimize="latency").round_to == (8, 1)
    assert small(minimize="latency", space={"round_to": [1, 4]}).round_to == (1, 4)


def test_an_npu_reads_compressed_weights():
    formats = {"formats": ["tflite-int8"]}
    npu = small(device="ethos-u55-128", minimize="latency", space=formats)
    assert len(npu.zeros) > 1
    assert len(npu.bits) > 1
    assert small(minimize="latency").zeros == (0.0,)


def test_a_dense_training_that_takes_too_long_is_refused_before_it_begins(tmp_path):
    with pytest.raises(TfpruneError, match=r"there are 0\.001 minutes") as caught:
        search(small(minutes=0.001, epochs=1000), out=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("model*"))
