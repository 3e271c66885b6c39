from __future__ import annotations

from pathlib import Path

import pytest

from tfprune.artifacts import Artifact, read_manifest, write_manifest
from tfprune.errors import TfpruneError


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
