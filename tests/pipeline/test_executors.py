"""Several processes give the files of one, and a killed one costs a task."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.test_jobs_schedule import _job
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import sha256
from tfprune.pipeline import Pipeline
from tfprune.pipeline.executors import Execution, ProcessWorkers
from tfprune.pipeline.runner import run
from tfprune.pipeline.working import packed, unpacked
from tfprune.report import comparison, read_run

# Builds a net; the first worker that asks for it is killed.
NET = """
import os, signal
from pathlib import Path
import keras

def build(input_shape, classes, kills="", spared=0):
    if kills and os.getpid() != spared and not Path(kills).exists():
        Path(kills).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
"""


def _pipeline(net, **options) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "spread",
            "seeds": [0, 1],
            "formats": ["keras", "tflite"],
            "data": {"name": "digits", "limit": 64},
            "model": {"name": f"{net}:build", "options": options},
            "task": {"kind": "classification"},
            "steps": {
                "dense": {"kind": "train", "epochs": 1, "batch_size": 32},
                "cut": {"kind": "prune-once", "share": 0.5},
            },
            "variants": {"dense": ["dense"], "cut": ["dense", "cut"]},
        }
    )


def _table(directory):
    table = comparison(read_run(directory))
    # What the clock tells is another each time.
    return table.drop(columns=["latency_ms", "epoch_seconds", "test_seconds"])


@pytest.fixture
def net(tmp_path):
    # Modules of one process have different names.
    path = tmp_path / f"net_{tmp_path.name}.py"
    path.write_text(NET)
    return path


def _same(one, other):
    assert _table(one).equals(_table(other))
    for path in one.rglob("*.tflite"):
        assert sha256(path) == sha256(other / path.relative_to(one))


@pytest.mark.slow
def test_processes_give_the_files_of_one_process_though_one_is_killed(net, tmp_path):
    alone = run(_pipeline(net), out=tmp_path / "alone")
    said: list[str] = []
    killed = tmp_path / "killed"
    spread = run(
        _pipeline(net, kills=str(killed), spared=os.getpid()),
        out=tmp_path / "several",
        execution=Execution("processes", workers=2),
        say=said.append,
    )
    assert killed.exists()
    assert [line for line in said if "its worker is gone" in line]
    assert len([line for line in said if line.startswith("done, ")]) == 8
    _same(alone, spread)


@pytest.mark.slow
def test_an_error_of_a_task_is_told_as_it_is(net, tmp_path):
    net.write_text(NET.replace("keras.layers.Dense(classes)", "keras.layers.Dense(3)"))
    with pytest.raises(TfpruneError) as alone:
        run(_pipeline(net), out=tmp_path / "alone")
    with pytest.raises(type(alone.value)) as several:
        run(
            _pipeline(net),
            out=tmp_path / "several",
            execution=Execution("processes", workers=1),
        )
    assert str(several.value) == str(alone.value)


@pytest.mark.slow
def test_two_nodes_of_ray_give_the_files_of_one_process_though_a_worker_is_killed(net, tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra cluster")
    from ray.cluster_utils import Cluster

    alone = run(_pipeline(net), out=tmp_path / "alone")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        said: list[str] = []
        spread = run(
            _pipeline(net, kills=str(tmp_path / "killed"), spared=os.getpid()),
            out=tmp_path / "ray",
            execution=Execution("ray", address=cluster.address),
            say=said.append,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert "8 tasks for 2 workers (ray)" in said
    assert [line for line in said if "its worker is gone" in line]
    _same(alone, spread)


def test_a_chain_travels_and_arrives():
    job = None
    for number in range(3000):
        job = _job(number, job)
    again = unpacked(packed(job, Path.cwd()), Path.cwd())
    assert [each.name for each in again.before] == [each.name for each in job.before]
    assert (again.identity, again.split) == (job.identity, job.split)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": "process"}, "did you mean 'processes'"),
        ({"workers": 2}, "workers is for several processes"),
        ({"executor": "processes", "workers": 0}, "give at least 1"),
        ({"executor": "processes", "address": "auto"}, "address is for a Ray cluster"),
        ({"executor": "processes", "gpus_per_task": -1}, "give 0 or more"),
    ],
)
def test_an_execution_that_cannot_be_is_refused_in_one_line(options, said):
    with pytest.raises(UsageError, match=said) as caught:
        Execution(**options)
    assert "\n" not in str(caught.value)


def test_a_missing_ray_is_one_line(monkeypatch):
    true = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else true(name)
    )
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[cluster\]'"):
        Execution("ray")


def test_gpus_are_shared_out_and_never_twice(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    workers = ProcessWorkers(None, 1)
    assert workers._gpus == [["4"], ["5"], ["7"]]
    with pytest.raises(UsageError, match="at most 1 workers"):
        ProcessWorkers(2, 2)
    with pytest.raises(UsageError, match="3 GPUs are visible"):
        ProcessWorkers(None, 4)


@pytest.mark.slow
def test_a_plain_run_imports_no_ray():
    code = (
        "import sys, tfprune.pipeline.runner, tfprune.pipeline.execution;"
        "print('ray' in sys.modules, 'optuna' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]
