"""What is kept between runs changes nothing, and costs at most time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from tfprune import TfpruneError, data
from tfprune.data.caching import bytes_of, cached, remembered
from tfprune.data.memory_maps import MappedArrays
from tfprune.data.sources import Request
from tfprune.files import cache_directory


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stream() -> data.Stream:
    """Twenty examples that can only be read from the beginning."""
    x = np.arange(20 * 6, dtype=np.float32).reshape(20, 2, 3)
    arrays = data.Arrays({"left": x, "right": x[:, 0]}, np.arange(20))
    return data.Stream(lambda *_: arrays.ordered(7).unbatch(), 20, arrays.element_spec)


def test_the_directory_is_the_users_unless_it_is_named(place, monkeypatch):
    assert cache_directory() == place
    monkeypatch.delenv("TFPRUNE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_directory() == Path("/somewhere/tfprune")


def test_a_user_without_a_home_has_a_cache_too(monkeypatch):
    monkeypatch.delenv("TFPRUNE_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_directory() == Path(tempfile.gettempdir()) / "tfprune"


def test_a_result_is_computed_once_for_each_key():
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3), "texts": np.array(["x", "yy"])}

    for key in ("one", "one", "two"):
        found = remembered("things", key, compute)
        assert found["texts"].tolist() == ["x", "yy"]
    assert len(calls) == 2


def test_a_damaged_or_forbidden_cache_costs_only_time(place):
    remembered("things", "one", lambda: {"a": np.arange(3)})
    (file,) = place.rglob("*.npz")
    file.write_bytes(b"damaged")
    assert remembered("things", "one", lambda: {"a": np.arange(4)})["a"].size == 4
    assert remembered("things", "one", lambda: {"a": np.arange(5)})["a"].size == 4
    (place / "file").touch()
    assert remembered("file", "one", lambda: {"a": np.arange(6)})["a"].size == 6


@pytest.mark.parametrize(("where", "kind"), [("memory", data.Arrays), ("disk", MappedArrays)])
def test_a_cache_has_the_same_examples(stream, where, kind):
    kept = cached({"train": stream}, Request(cache=where), "key", "numbers")["train"]
    assert isinstance(kept, kind)
    ours, theirs = kept.sample(20), stream.sample(20)
    np.testing.assert_array_equal(ours.inputs["left"], theirs.inputs["left"])
    np.testing.assert_array_equal(ours.inputs["right"], theirs.inputs["right"])
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    np.testing.assert_array_equal(kept.labels, np.arange(20))


def test_a_limit_reads_no_more_than_it_needs(stream):
    kept = cached({"test": stream}, Request(cache="memory", limit=5), "key", "numbers")["test"]
    np.testing.assert_array_equal(kept.sample(9).targets, np.arange(5))


def test_the_size_is_that_of_the_arrays(stream):
    assert bytes_of(stream) == 20 * (6 * 4 + 3 * 4 + 8)


def test_a_damaged_cache_on_disk_is_named(stream, place):
    cached({"train": stream}, Request(cache="disk"), "key", "numbers")
    for file in place.rglob("*.npy"):
        file.write_bytes(b"damaged")
    with pytest.raises(TfpruneError, match=r"the cache .* is damaged: delete this folder"):
        cached({"train": stream}, Request(cache="disk"), "key", "numbers")


def test_a_cache_that_cannot_be_written_is_refused(stream, place):
    place.touch()
    with pytest.raises(TfpruneError, match="set TFPRUNE_CACHE_DIR to a folder with room"):
        cached({"train": stream}, Request(cache="disk"), "key", "numbers")
    with pytest.raises(TfpruneError, match="does not say when its examples change"):
        cached({"train": stream}, Request(cache="disk"), None, "numbers")
