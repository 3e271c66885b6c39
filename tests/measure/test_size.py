from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.files import sha256
from tfprune.measure import gzip_bytes, raw_bytes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Longer than one chunk, half of it zeros."""
    path = tmp_path / "weights.bin"
    path.write_bytes(np.random.default_rng(0).bytes(1_200_000) + bytes(1_200_000))
    return path


def test_raw_bytes_are_those_of_the_file_system(file: Path) -> None:
    assert raw_bytes(file) == 2_400_000
    (file.parent / "sub").mkdir()
    (file.parent / "sub" / "more").write_bytes(b"123")
    assert raw_bytes(file.parent) == 2_400_003


def test_gzip_bytes_are_those_of_gzip_9(file: Path) -> None:
    assert gzip_bytes(file) == len(gzip.compress(file.read_bytes(), 9))


def test_gzip_counts_as_it_is(file: Path) -> None:
    packed = file.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(file.read_bytes(), 1))
    assert gzip_bytes(packed) == raw_bytes(packed)


def test_zeros_cost_nothing_once_compressed(files: dict[str, Path], tmp_path: Path) -> None:
    dense = tmp_path / "dense.bin"
    dense.write_bytes(np.random.default_rng(0).bytes(100_000))
    sparse = tmp_path / "sparse.bin"
    sparse.write_bytes(dense.read_bytes()[:20_000] + bytes(80_000))
    assert gzip_bytes(sparse) < 0.25 * gzip_bytes(dense)
    # Keras stores without compressing, so there is something to gain.
    assert gzip_bytes(files["keras"]) < raw_bytes(files["keras"])


def test_sha256_is_that_of_the_content(file: Path) -> None:
    assert sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("measure", [raw_bytes, gzip_bytes, sha256])
def test_a_missing_file_is_one_line(tmp_path: Path, measure: Callable[[Path], object]) -> None:
    with pytest.raises(TfpruneError, match=r"no\.bin does not exist: "):
        measure(tmp_path / "no.bin")


@pytest.mark.parametrize("measure", [gzip_bytes, sha256])
def test_a_directory_has_no_such_figure(tmp_path: Path, measure: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="is a directory: pack it"):
        measure(tmp_path)
