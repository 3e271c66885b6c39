"""`tfprune doctor` tells what is here and what is missing, and nothing fails it."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from tfprune.cli import main
from tfprune.devices import registry
from tfprune.pipeline import environment
from tfprune.vocabulary import DEVICES

ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm asimddp\n"
INTEL = "model name : x\nflags\t\t: fpu avx2 fma avx512f\nbugs : none\n"


@pytest.fixture
def untold(monkeypatch):
    """TensorFlow is not started, which takes seconds."""
    monkeypatch.setattr(environment, "tensorflow", lambda: {"gpus": ["/gpu:0"], "cuda": "12.5"})


def test_json_tells_each_device_requirement_and_set(untold, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in ("cifar10/3.0.2", "glue/cola/2.0.0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "dataset_info.json").write_text("{}")
    (tmp_path / "downloads" / "extracted").mkdir(parents=True)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["data"] == {"folder": str(tmp_path), "sets": ["cifar10", "glue/cola"]}
    assert len(found["devices"]) == len(registry.kinds())
    assert len(found["devices"]) <= len(DEVICES)
    assert found["devices"]["cpu"] == "ok"
    assert found["devices"]["command"] == "needs its options: command"
    versions = {each["name"]: each for each in found["requirements"]}
    assert versions["tensorflow"]["ok"]
    assert "pytest" not in versions
    assert found["extras"]["dev"] == []


def test_people_read_how_to_install_what_is_missing(untold, monkeypatch):
    lines = [
        "tensorflow>=2.0",
        "numpy>=999",
        'no-such-package>=1.0; extra == "more"',
        'numpy>=1; extra == "here"',
    ]

    class Metadata:
        def get_all(self, key):
            return {"Requires-Dist": lines, "Provides-Extra": ["more", "here"]}[key]

    monkeypatch.setattr(environment, "metadata", lambda name: Metadata())
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert "is not >=999: pip install 'numpy>=999'" in text
    assert "  more  needs no-such-package>=1.0: pip install 'tfprune[more]'" in text
    assert "  here  ok" in text
    assert "GPUs  /gpu:0 (built for CUDA 12.5)" in text


def test_a_device_whose_package_is_broken_does_not_fail_it(monkeypatch):
    def broken(self):
        raise ImportError("libGL.so.1: cannot open\nmore")

    (kind,) = [each for each in registry.kinds() if each.key == "cpu"]
    monkeypatch.setattr(kind, "check", broken)
    assert environment.devices()["cpu"] == "libGL.so.1: cannot open"


@pytest.mark.parametrize(
    ("told", "features"),
    [(ARM, {"NEON", "int8 dot products"}), (INTEL, {"AVX2", "FMA", "AVX-512"})],
)
def test_features_of_processors(told, features):
    found = environment.cpu_features(told)
    assert found is not None
    assert {name for name, has in found.items() if has} == features


def test_a_system_that_does_not_tell_has_unknown_features():
    assert environment.cpu_features("model name : x\n") is None


@pytest.mark.parametrize(
    ("code", "stderr", "error"),
    [(1, "Traceback\nImportError: no CUDA", "ImportError: no CUDA"), (-4, "", "it ended with -4")],
)
def test_a_tensorflow_that_does_not_start_is_told(code, stderr, error, monkeypatch):
    done = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert environment.tensorflow() == {"error": error}


def test_a_tensorflow_that_starts_slowly_is_told(monkeypatch):
    monkeypatch.setattr(environment, "_TENSORFLOW_SECONDS", 0.01)
    assert environment.tensorflow() == {"error": "it took more than 0.01 s: is the machine busy?"}
