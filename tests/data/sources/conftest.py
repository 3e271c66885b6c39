from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfprune import UsageError, data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of the test."""
    place = tmp_path / "cache"
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(place))
    return place


@pytest.fixture
def write_image() -> Callable[..., None]:
    """Writes an image file whose pixels depend on a number."""

    def write(path: Path, number: int = 0, shape: tuple[int, int, int] = (5, 6, 3)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        encode = tf.io.encode_png if path.suffix.lower() == ".png" else tf.io.encode_jpeg
        path.write_bytes(encode(pixels).numpy())

    return write


@pytest.fixture
def write_photos(tmp_path: Path, write_image: Callable[..., None]) -> Callable[..., Path]:
    """Writes a folder of images: so many of each class, in each folder of a split."""

    def write(
        counts: Mapping[str, int],
        splits: tuple[str, ...] = ("",),
        suffix: str = ".png",
        **options: Any,
    ) -> Path:
        root = tmp_path / "photos"
        number = 0
        for split in splits:
            for name, count in counts.items():
                for place in range(count):
                    number += 1
                    write_image(root / split / name / f"{place}{suffix}", number, **options)
        return root

    return write


@pytest.fixture
def refused() -> Callable[..., str]:
    """The one line with which a data set is refused."""

    def load(name: Any, **request: Any) -> str:
        with pytest.raises(UsageError) as error:
            data.load(str(name), **request)
        assert "\n" not in str(error.value)
        return str(error.value)

    return load
