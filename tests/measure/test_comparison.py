"""Every figure of the table is the file's own, and ratios are those of its columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tfprune.archives import unpack
from tfprune.errors import TfpruneError
from tfprune.formats import load
from tfprune.measure import (
    FirstRun,
    comparison,
    evaluate,
    floor,
    gzip_bytes,
    measure_files,
    parameters,
    raw_bytes,
    zstd_bytes,
)


@pytest.fixture(scope="module")
def labels(images: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, len(images))


def test_figures_are_those_of_the_files(
    files: dict[str, Path], images: np.ndarray, labels: np.ndarray
) -> None:
    paths = [files["tflite-int8"], files["tflite"], files["tflite-int8"]]
    told: list[tuple[str, int]] = []

    @contextmanager
    def counter(name: str, total: int) -> Iterator[None]:
        told.append((name, total))
        yield None

    table = measure_files(
        paths, (images, labels), baseline=files["tflite"], rounds=3, counter=counter
    )
    assert table["artifact"].tolist() == [str(path) for path in paths[:2]]
    assert told == [(str(path), 50) for path in paths[:2]]
    for path, row in zip(paths, table.to_dict("records"), strict=False):
        runtime = load(path)
        tested, counted, least = (
            evaluate(runtime, (images, labels)),
            parameters(path),
            floor(runtime.weights()),
        )
        assert row["format"] == runtime.format
        assert row["accuracy"] == tested.value
        assert row["loss"] == pytest.approx(tested.loss)
        assert row["per_class"] == list(tested.per_class)
        assert row["class_images"] == list(tested.class_examples)
        assert row["macs"] == runtime.macs()
        assert (row["parameters"], row["nonzero"]) == (counted.total, counted.nonzero)
        assert row["sparsity"] == counted.sparsity
        assert row["bytes"] == raw_bytes(path)
        assert row["bytes_gzip"] == gzip_bytes(path)
        assert row["bytes_zstd"] == zstd_bytes(path)
        assert row["floor_mask_bytes"] == least.mask_bytes
        assert row["floor_entropy_bytes"] == least.entropy_bytes
        if row["bytes_zstd"] is not None:
            assert row["zstd_to_mask"] == row["bytes_zstd"] / least.mask_bytes
            assert row["zstd_to_entropy"] == row["bytes_zstd"] / least.entropy_bytes
            assert row["zstd_to_entropy"] > 1
        assert row["latency_runs"] == 3
        assert row["latency_p10_ms"] <= row["latency_ms"] <= row["latency_p90_ms"]
        assert (row["threads"], row["delegate"]) == (1, "XNNPACK")
        assert row["memory_bytes"] > 0
    int8, plain = table.to_dict("records")
    assert plain["bytes_ratio"] == plain["latency_ratio"] == plain["macs_ratio"] == 1
    assert plain["accuracy_points"] == 0
    assert int8["bytes_ratio"] == int8["bytes"] / plain["bytes"]
    assert int8["gzip_ratio"] == int8["bytes_gzip"] / plain["bytes_gzip"]
    assert int8["latency_ratio"] == int8["latency_ms"] / plain["latency_ms"]
    assert int8["accuracy_points"] == 100 * (int8["accuracy"] - plain["accuracy"])


@pytest.mark.slow
def test_a_directory_has_no_packed_size_and_the_baseline_comes_first(
    files: dict[str, Path],
    images: np.ndarray,
    labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TensorFlow takes long to start, and its memory is tested elsewhere.
    monkeypatch.setattr(comparison, "first_runs", lambda paths, **_: [FirstRun(1, 1)] * len(paths))
    unpack(files["savedmodel"], tmp_path)
    table = measure_files(
        [tmp_path], (images, labels), baseline=files["tflite"], rounds=1, threads=2
    ).to_dict("records")
    assert [row["format"] for row in table] == ["tflite", "savedmodel"]
    assert table[0]["threads"] == 2
    unknown = (
        "bytes_gzip",
        "bytes_zstd",
        "zstd_to_mask",
        "zstd_to_entropy",
        "macs",
        "macs_ratio",
        "gzip_ratio",
    )
    assert all(table[1][column] is None for column in unknown)
    assert table[1]["bytes"] == raw_bytes(tmp_path)
    assert table[1]["bytes_ratio"] == table[1]["bytes"] / table[0]["bytes"]


def test_a_missing_file_is_one_line(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(TfpruneError, match=r"no\.tflite does not exist"):
        measure_files(["no.tflite"], (images, labels))
