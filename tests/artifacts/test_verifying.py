"""A directory is verified, whatever somebody did to it, in one line a file and without a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.tables import slow
from tfprune.artifacts import Artifact, read_manifest, verify, write_manifest, write_run_manifest
from tfprune.artifacts.verifying import Verification
from tfprune.errors import TfpruneError
from tfprune.files import sha256
from tfprune.formats.sandbox import Sandbox, run_file

NONSENSE = ("a.keras", "b.tar.gz", "c.tflite", "d.cc", "e.exe")


@pytest.fixture(scope="module")
def verdicts(
    exported: list[Artifact], model: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Verification]:
    """Of every format, and of files whose hash is right and whose content is not.

    One directory for all, since starting TensorFlow takes longest.
    """
    folder = tmp_path_factory.mktemp("delivered")
    shutil.copytree(exported[0].path.parent, folder, dirs_exist_ok=True)
    artifacts = [dataclasses.replace(each, path=folder / each.path.name) for each in exported]
    for name in NONSENSE:
        (folder / name).write_bytes(b"PK\3\4 nonsense" * 9)
    broken = keras.models.clone_model(model)
    broken.set_weights([w * np.nan for w in model.get_weights()])
    broken.save(folder / "nan.keras")
    artifacts += [card(folder / name) for name in (*NONSENSE, "nan.keras")]
    write_manifest(folder, artifacts)
    return {each.path: each for each in verify(folder)}


@pytest.fixture
def small(exported: list[Artifact], tmp_path: Path) -> Path:
    """What can be checked without TensorFlow: quick."""
    folder = tmp_path / "small"
    folder.mkdir()
    chosen = [each for each in exported if each.format in ("tflite", "c-array")]
    for each in chosen:
        for name in (each.path.name, *(other.name for other in each.companions)):
            shutil.copy(each.path.with_name(name), folder)
    copies = [dataclasses.replace(each, path=folder / each.path.name) for each in chosen]
    write_manifest(folder, copies)
    return folder


def card(path: Path) -> Artifact:
    """What a list says that tells the truth about a file."""
    return Artifact(path.suffix[1:], path, sha256(path), path.stat().st_size, 1, 1.0, 0.0)


def failures(verdicts: list[Verification]) -> dict[str, str]:
    assert all("\n" not in each.said and len(each.said) < 450 for each in verdicts)
    return {each.path: each.said for each in verdicts if not each.passed}


def test_every_format_passes(verdicts: dict[str, Verification], exported: list[Artifact]) -> None:
    for artifact in exported:
        verdict = verdicts[artifact.path.name]
        assert (verdict.passed, verdict.format) == (True, artifact.format), verdict.said
        assert verdict.said == f"{artifact.bytes_raw:,} bytes, loads and runs"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.keras", "is cut short or damaged"),
        ("b.tar.gz", "cannot be unpacked"),
        ("c.tflite", "is not a TFLite model"),
        ("d.cc", "holds no C array"),
        ("e.exe", "is not an artifact"),
        ("nan.keras", "gives NaN or infinite outputs"),
    ],
)
def test_a_right_hash_is_not_enough(
    verdicts: dict[str, Verification], name: str, says: str
) -> None:
    assert not verdicts[name].passed
    assert says in failures([verdicts[name]])[name]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rename(path: Path) -> None:
    path.rename(path.with_name("other.bin"))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    outside = path.parents[1] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", ["model_int8.cc", "model_int8.h"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "bytes, not the"),
        (flip, "is not what was exported (other SHA-256): copy it again"),
        (rename, "is missing: it is now called other.bin, rename it back"),
        (Path.unlink, "is missing: export again"),
        (replace_by_folder, "is not a file"),
        (replace_by_link, "leads out of"),
    ],
)
def test_damage_is_one_line_for_the_file_it_hit(
    small: Path, damage: Callable[[Path], None], says: str, name: str
) -> None:
    write_manifest(small, [read_manifest(small)[1]])
    damage(small / name)
    # A header belongs to its array.
    ((path, said),) = failures(verify(small)).items()
    assert path == "model_int8.cc"
    assert name in said
    assert says in said


# Files that are what their list says, and still evil


def test_random_bytes_with_the_magic_do_not_crash_us(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    whole = paths["tflite"].read_bytes()
    files = []
    for i in range(6):
        path = tmp_path / f"random{i}.tflite"
        noise = rng.integers(0, 256, 4000, np.uint8).tobytes()
        path.write_bytes(noise[:4] + b"TFL3" + noise[8:])
        files.append(path)
    for i in range(6):
        path = tmp_path / f"flipped{i}.tflite"
        content = bytearray(whole)
        # Offsets and shapes, not the weights.
        for place in rng.integers(8, 4000, 20):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        files.append(path)
    write_manifest(tmp_path, [card(path) for path in files])
    found = failures(verify(tmp_path))
    assert set(found) >= {path.name for path in files[:6]}


def test_outputs_of_another_shape_do_not_pass(small: Path) -> None:
    path = small / "artifacts.json"
    document = json.loads(path.read_text())
    document["artifacts"][0]["outputs"][0]["shape"] = [None, 7]
    path.write_text(json.dumps(document))
    assert "instead of the listed" in failures(verify(small))["model.tflite"]


# Lists


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../outside.tflite"},
        {"path": "/etc/passwd"},
        {"path": "a\\..\\b.tflite"},
        {"companions": [{"name": "../x", "sha256": "ab" * 32, "bytes_raw": 1}]},
    ],
)
def test_a_list_that_names_files_outside_is_refused(small: Path, change: dict) -> None:
    path = small / "artifacts.json"
    document = json.loads(path.read_text())
    document["artifacts"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(TfpruneError, match="a file outside it: do not trust this directory"):
        verify(small)


@pytest.mark.parametrize(
    "change",
    [
        {"path": 3},
        {"sha256": "short"},
        {"bytes_raw": -1},
        {"inputs": [{"name": "x"}]},
        {"memory": []},
        {"agreement": None},
    ],
)
def test_a_list_of_another_kind_is_one_line(small: Path, change: dict) -> None:
    path = small / "artifacts.json"
    document = json.loads(path.read_text())
    document["artifacts"][0] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(TfpruneError, match="is not an artifact list, or is damaged") as error:
        verify(small)
    assert "\n" not in str(error.value)


def test_a_list_without_end_or_entries_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfpruneError, match=r"neither artifacts\.json nor manifest\.json"):
        verify(tmp_path)
    (tmp_path / "artifacts.json").write_text("[" * 100_000)
    with pytest.raises(TfpruneError, match="damaged"):
        verify(tmp_path)
    (tmp_path / "artifacts.json").write_text('{"artifacts": []}')
    with pytest.raises(TfpruneError, match="lists no artifact"):
        verify(tmp_path)


def test_a_list_of_before_the_cards_is_read(small: Path) -> None:
    path = small / "artifacts.json"
    document = json.loads(path.read_text())
    old = ("format", "path", "sha256", "bytes_raw", "bytes_gzip", "agreement")
    document["artifacts"] = [
        {key: each[key] for key in (*old, "largest_difference")} for each in document["artifacts"]
    ]
    path.write_text(json.dumps(document))
    assert failures(verify(small)) == {}


def test_a_run_lists_the_artifacts_of_all_its_variants(small: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for variant in ("dense", "sparse"):
        shutil.copytree(small, run / variant / "seed-0")
    path = write_run_manifest(run, {"dense/seed-0/model.tflite": {"accuracy": 0.75}})
    document = json.loads(path.read_text())
    assert (path, document["run"]) == (run / "manifest.json", "run")
    assert [(each["path"], each["accuracy"]) for each in document["artifacts"]] == [
        ("dense/seed-0/model.tflite", 0.75),
        ("dense/seed-0/model_int8.cc", None),
        ("sparse/seed-0/model.tflite", None),
        ("sparse/seed-0/model_int8.cc", None),
    ]
    assert failures(verify(run)) == {}
    path.unlink()
    flip(run / "sparse" / "seed-0" / "model_int8.h")
    assert list(failures(verify(run))) == ["sparse/seed-0/model_int8.cc"]


# The second Python


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(code: str) -> str:
        (tmp_path / "misbehaving.py").write_text(code)
        return "misbehaving"

    return write


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", r"crashes the interpreter \(SIGABRT\)"),
        slow("import os; os._exit(3)", r"crashes the interpreter \(exit code 3\)"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals have other names there")
def test_a_crash_is_one_line_and_the_next_file_is_checked(
    paths: dict[str, Path], module: Callable[[str], str], code: str, says: str
) -> None:
    with contextlib.closing(Sandbox()) as sandbox:
        with pytest.raises(TfpruneError, match=says):
            run_file(sandbox, paths["tflite"], modules=[module(code)], timeout=60)
        module("")
        outcome = run_file(sandbox, paths["tflite"], timeout=60)
        assert outcome.values["output_0"].shape == (2, 5)


def test_a_file_that_takes_too_long_is_one_line(
    paths: dict[str, Path], module: Callable[[str], str]
) -> None:
    with (
        contextlib.closing(Sandbox()) as sandbox,
        pytest.raises(TfpruneError, match="takes longer than 2 s"),
    ):
        name = module("import time; time.sleep(60)")
        run_file(sandbox, paths["tflite"], modules=[name], timeout=2)


def test_it_comes_back_after_it_left(paths: dict[str, Path]) -> None:
    with contextlib.closing(Sandbox(idle_seconds=0.01)) as sandbox:
        for _ in range(3):
            assert run_file(sandbox, paths["tflite"], timeout=60).values


def test_the_second_python_ignores_modules_where_files_lie(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "numpy.py").write_text("import os; os.abort()")
    monkeypatch.chdir(small)
    assert failures(verify(small)) == {}


def test_a_file_that_needs_no_keras_is_checked_without(paths: dict[str, Path]) -> None:
    with contextlib.closing(Sandbox()) as sandbox:
        run_file(sandbox, paths["tflite"], timeout=60)
        loaded = sandbox.submit(eval, "list(__import__('sys').modules)").result()
    assert not {"keras", "tensorflow"} & set(loaded)
