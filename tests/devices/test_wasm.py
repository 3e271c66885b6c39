"""Files run in a browser: what is right is timed, what is not is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tfprune
from tfprune.cli import main
from tfprune.devices import find_device, wasm
from tfprune.errors import TfpruneError, UsageError

DEVICE = find_device("wasm", rounds=2)


def _missing() -> str:
    try:
        DEVICE.check()
    except UsageError as error:
        return str(error)
    return ""


needs_browser = pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A file whose inputs and outputs differ, named against their order, one of them sparse."""
    first, second = keras.Input((3, 4), name="zeta"), keras.Input((5,), name="alpha")
    far = keras.layers.Dense(2, name="z")(keras.layers.Flatten()(first))
    near = keras.layers.Dense(64, name="a")(second)
    model = keras.Model([first, second], [far, near])
    kernel = np.random.default_rng(0).normal(size=(5, 64))
    model.get_layer("a").set_weights([np.where(kernel > 1, kernel, 0), np.ones(64)])
    (made,) = tfprune.export(model, tmp_path, ["tflite-sparse"], name="two")
    return made.path


@pytest.mark.slow
@needs_browser
def test_files_of_every_kind_run_or_say_why_not(export_paths: dict[str, Path], two: Path) -> None:
    formats = ["tflite", "tflite-int8"]
    files = [export_paths[name] for name in formats] + [two, export_paths["keras"]]

    # A notebook's thread has an event loop.
    async def within_a_loop() -> list[wasm.Measurement]:
        return DEVICE.measure([*files, two])

    plain, integers, sparse, other, again = asyncio.run(within_a_loop())
    for found in (plain, integers, sparse):
        assert not found.refusal
        assert 0 < found.figures["device_ms"] < 1000
    # Both runtimes gave what LiteRT gives for inputs and outputs of any order.
    assert any("timed with" in note and " takes " in note for note in sparse.notes)
    assert len(sparse.notes) == 1
    assert again == sparse
    # LiteRT.js has no arrays of int8.
    assert integers.notes[0] == "timed with tfjs-tflite"
    assert "litert.js cannot run it (Element type INT8" in integers.notes[1]
    assert "not a .tflite file" in other.refusal


@needs_browser
def test_what_gives_other_answers_is_refused(monkeypatch: pytest.MonkeyPatch, two: Path) -> None:
    prepare = wasm._prepare

    def changed(*arguments, **options):
        found = prepare(*arguments, **options)
        last = f"{found.number}/outputs/1"
        others = np.frombuffer(found.served[last], np.float32) / 2
        return dataclasses.replace(found, served={**found.served, last: others.tobytes()})

    monkeypatch.setattr(wasm, "_prepare", changed)
    (found,) = find_device("wasm", runtime="tfjs-tflite").measure([two])
    assert not found.figures
    assert "tfjs-tflite gives wrong outputs (off those of LiteRT by up to 0." in found.refusal
    assert "litert.js" not in found.refusal


@pytest.mark.slow
def test_an_open_batch_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    (made,) = tfprune.export(model, tmp_path, ["tflite"], batch="dynamic")
    (found,) = DEVICE.measure([made.path])
    assert "its batch is open, which LiteRT.js refuses: export it with --batch 1" in found.refusal


@pytest.mark.parametrize(
    ("distance", "kind", "same", "wrong"),
    [
        (0, "f", True, False),
        (0.01, "f", False, False),
        (0.5, "f", False, True),
        (float("inf"), "f", False, True),
        (1, "i", True, False),
        (3, "i", False, False),
        (20, "i", False, True),
    ],
)
def test_distances_count_in_steps_of_integers_or_shares_of_floats(
    distance: float, kind: str, same: bool, wrong: bool
) -> None:
    ranges = {"f": 1.0, "i": 255.0}
    found = wasm._Prepared(0, 1, {}, [ranges[kind]], [kind == "i"], {}).relative([distance])
    assert (found.same, found.share > wasm._WRONG) == (same, wrong)


def test_what_is_missing_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match="packages are missing: tfprune devices install wasm"):
        find_device("wasm", chromium="sh").check()
    with pytest.raises(UsageError, match="'none' is not found: install Chromium"):
        find_device("wasm", chromium="none").check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[web\]'"):
        DEVICE.check()


def _npm(folder: Path, script: str) -> None:
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_packages_are_installed_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    _npm(tmp_path, "mkdir -p node_modules/@litertjs; echo no registry >&2; exit 3")
    with pytest.raises(TfpruneError, match=r"exit code 3 \(no registry\)"):
        DEVICE.install()
    assert not wasm.packages_folder().exists()
    names = " ".join(f"node_modules/{name}" for name in wasm.RUNTIMES.values())
    _npm(tmp_path, f"test -f package-lock.json && mkdir -p {names}")
    run = CliRunner().invoke(main, ["devices", "install", "wasm"])
    assert run.output == f"{wasm.packages_folder()}\n"
    # What is there is not installed again.
    _npm(tmp_path, "exit 1")
    DEVICE.install()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="npm is not found: install Node"):
        DEVICE.install()


def test_every_package_is_pinned_to_what_its_lock_holds() -> None:
    folder = Path(wasm.__file__).with_name("web")
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == asked
    for name, version in asked.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    # A mirror's address would be asked by everyone.
    assert all("integrity" in each and "resolved" not in each for each in lock.values())
    assert set(wasm.versions()) == set(wasm.RUNTIMES)


def test_the_server_gives_its_own_files_only() -> None:
    with wasm._serving({"0/content": b"abc"}) as address:
        with urllib.request.urlopen(f"{address}/data/0/content") as answer:
            assert answer.read() == b"abc"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        for path in ("packages/../../x", "data/1/content", "package.json", "page.html/x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{address}/{path}")
