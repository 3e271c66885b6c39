"""A source is one function with its row; everything that asks for data knows it by its name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfprune import UsageError, data
from tfprune.data import sources
from tfprune.data.sources import Source
from tfprune.data.splits import Split
from tfprune.pipeline.inputs import check_data


def stripes() -> Source:
    """Eight images with one bright row; the row is the class."""

    def read(split: str, image_size: tuple[int, int] | None, limit: int | None) -> Split:
        labels = np.tile(np.arange(2), 20)[:limit]
        images = np.zeros((len(labels), 2, 2, 1), np.uint8)
        images[np.arange(len(labels)), labels] = 255
        return Split(images, labels)

    return Source("stripes of the test", ("top", "bottom"), read)


def test_a_source_is_added_by_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown data set 'stripes'"):
        check_data("stripes")
    monkeypatch.setitem(sources.EMBEDDED, "stripes", stripes)
    check_data("stripes")
    dataset = data.load("stripes", validation=0.25)
    assert dataset.classes == ("top", "bottom")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [
        30,
        10,
        40,
    ]
    assert dataset.note.startswith("stripes of the test: 30 train")


def test_names_are_known_without_tensorflow() -> None:
    code = (
        "import sys; from tfprune.pipeline.inputs import check_data; check_data('digits');"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == "False", done.stderr
