from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tfprune.artifacts import Artifact, read_manifest, write_manifest
from tfprune.errors import TfpruneError
from tfprune.formats import FORMATS
from tfprune.formats.registry import has_batch
from tfprune.formats.runtime import Tensor
from tfprune.vocabulary import RUNS_ON


def some(directory: Path, name: str = "model.tflite") -> Artifact:
    return Artifact("tflite", directory / name, "ab" * 32, 20, 10, 1.0, 1e-7)


def test_a_manifest_reads_back_and_moves_with_its_folder(tmp_path: Path) -> None:
    (here := tmp_path / "here").mkdir()
    artifacts = [some(here), some(here, "sub/model.keras")]
    assert write_manifest(here, artifacts).name == "artifacts.json"
    assert read_manifest(here) == artifacts
    assert [path.name for path in here.iterdir()] == ["artifacts.json"]
    here.rename(tmp_path / "there")
    moved = read_manifest(tmp_path / "there")
    assert [a.path for a in moved] == [
        tmp_path / "there" / "model.tflite",
        tmp_path / "there" / "sub" / "model.keras",
    ]


def test_relative_and_absolute_directories_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(".", [some(tmp_path)])
    assert read_manifest(".") == [some(Path())]


def test_a_failed_write_keeps_the_old_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, [some(tmp_path)])
    with pytest.raises(TfpruneError, match="does not lie in"):
        write_manifest(tmp_path, [some(tmp_path.parent)])
    assert read_manifest(tmp_path) == [some(tmp_path)]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"artifacts": [{"path": "a"}]}', "\x00"])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "artifacts.json").write_text(content)
    with pytest.raises(
        TfpruneError, match=r"artifacts\.json is (not an artifact list, or is )?damaged"
    ):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfpruneError, match="No such file or directory"):
        read_manifest(tmp_path)
    with pytest.raises(TfpruneError, match="cannot be written"):
        (tmp_path / "file").touch()
        write_manifest(tmp_path / "file", [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_card_says_where_its_file_runs(tmp_path: Path, name: str) -> None:
    file = Artifact(name, tmp_path / "file", "0" * 64, 1, 1, 1.0, 0.0)
    assert file.to_dict(tmp_path)["runs_on"] == RUNS_ON[name]
    opened = dataclasses.replace(file, inputs=(Tensor("x", (None, 8), "float32"),))
    more = opened.runs_on.removeprefix(RUNS_ON[name])
    assert ("open batch" in more) == has_batch(name)
    fixed = dataclasses.replace(file, inputs=(Tensor("x", (1, 8), "float32"),))
    assert fixed.runs_on == RUNS_ON[name]
    # It follows from the format: a reader takes no other.
    assert Artifact.from_dict(file.to_dict(tmp_path) | {"runs_on": "the moon"}, tmp_path) == file
