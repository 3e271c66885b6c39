"""Files are whole or absent."""

from __future__ import annotations

import pytest

from tfprune.errors import TfpruneError
from tfprune.files import read_json, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    document = {"a": [1, 2.5, None, "ü"]}
    path = write_json(tmp_path / "new" / "a.json", document)
    assert read_json(path) == document
    assert [each.name for each in path.parent.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


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
