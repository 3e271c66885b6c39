"""The picture of a sensitivity table."""

from __future__ import annotations

import pandas as pd
import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.report.sensitivity import plot_sensitivity


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [{"layers": "", "channels": 0, "kept": 0, "keep": 1.0, "accuracy": 0.9}]
    for number in range(12):
        for share in (0.75, 0.5):
            rows.append(
                {
                    "layers": f"conv{number}",
                    "channels": 8,
                    "kept": int(8 * share),
                    "keep": share,
                    "accuracy": 0.9 - number * (1 - share) / 10,
                }
            )
    return pd.DataFrame(rows)


def test_the_most_sensitive_groups_are_named_and_the_same_table_gives_the_same_bytes(
    table, tmp_path
):
    path = plot_sensitivity(table, tmp_path / "new" / "s.svg")
    text = path.read_text()
    assert "conv11" in text
    assert "conv4" in text
    assert ">conv3<" not in text
    assert plot_sensitivity(table, tmp_path / "t.svg").read_text().count("<path") == text.count(
        "<path"
    )


def test_a_png_is_one(table, tmp_path):
    assert plot_sensitivity(table, tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_one_line(table, tmp_path):
    with pytest.raises(UsageError) as caught:
        plot_sensitivity(table, tmp_path / "s.txt")
    assert str(caught.value) == (
        f"{tmp_path / 's.txt'} ends in '.txt': give one of .svg, .png, .pdf"
    )
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError, match="cannot be written"):
        plot_sensitivity(table, tmp_path / "file" / "s.svg")
