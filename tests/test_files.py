"""Files are complete or do not exist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfprune.errors import TfpruneError
from tfprune.files import partial_folder, read_json, sweep, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    document = {"a": [1, 2.5, None, "ü"]}
    path = write_json(tmp_path / "new" / "a.json", document)
    assert read_json(path) == document
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_errors_are_one_line_that_names_the_file(tmp_path):
    (tmp_path / "file").touch()
    for action in (
        lambda: write_text(tmp_path / "file" / "a", ""),
        lambda: read_json(tmp_path / "none.json"),
        lambda: read_json(tmp_path / "file"),
    ):
        with pytest.raises(TfpruneError) as caught:
            action()
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_only_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from tfprune.files import partial_folder\n"
        f"with partial_folder(pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'half').write_text('half')\n"
        "    print(folder.name, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        begun = tmp_path / other.stdout.readline().strip()
        sweep(tmp_path)
        assert (begun / "half").exists()
        other.kill()
        other.wait()
    # Folders without a lock are judged by their age.
    old, young = tmp_path / ".partial-old", tmp_path / ".partial-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    (tmp_path / ".partial-file").touch()
    with partial_folder(tmp_path) as mine:
        sweep(tmp_path)
        left = {".partial-young", ".partial-file", mine.name}
        assert {path.name for path in tmp_path.iterdir()} == left
    assert not mine.exists()
