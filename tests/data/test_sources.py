"""A source is one class; everything that asks for data knows it by the names that it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tfprune import UsageError, data
from tfprune.data.sources import KINDS, Opened, Source, find_source, meanings
from tfprune.pipeline.inputs import check_data
from tfprune.pipeline.spec import DataSpec


@pytest.fixture
def stripes() -> Iterator[type[Source]]:
    """A new kind of source: images with one bright row; the row is the class."""
    before = list(KINDS)

    class Stripes(Source):
        meaning = "stripes, which a test makes"

        @classmethod
        def takes(cls, name: str) -> bool:
            return name == "stripes"

        def open(self) -> Opened:
            labels = np.tile(np.arange(2), 20)
            images = np.zeros((40, 2, 2, 1), np.uint8)
            images[np.arange(40), labels] = 255
            return Opened("stripes", ("top", "bottom"), {"train": data.Arrays(images, labels)})

    yield Stripes
    KINDS[:] = before


def test_a_source_is_added_by_one_class(stripes: type[Source]) -> None:
    assert isinstance(find_source("stripes"), stripes)
    assert "stripes, which a test makes" in meanings()
    check_data(DataSpec(name="stripes"))
    dataset = data.load("stripes", validation=0.25)
    assert dataset.classes == ("top", "bottom")
    sizes = [len(split) for split in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == [27, 9, 4]
    assert dataset.note.startswith("stripes: 27 train, 9 validation (0.25 of the train split")
    assert dataset.note.endswith("0.1 of the train split are the test split")
    other = data.load("stripes", validation=0.25, seed=1)
    np.testing.assert_array_equal(dataset.test.labels, other.test.labels)


def test_without_it_the_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown data set 'stripes'"):
        check_data(DataSpec(name="stripes"))


def test_names_are_known_without_tensorflow() -> None:
    code = (
        "import sys; from tfprune.pipeline.inputs import check_data;"
        "from tfprune.pipeline.spec import DataSpec; check_data(DataSpec(name='digits'));"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.strip() == "False", done.stderr
