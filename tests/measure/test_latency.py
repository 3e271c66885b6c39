from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import Feeds, Runtime, StoredWeights, Tensor, load
from tfprune.measure import latency, time_files

IMAGE = np.zeros((2, 2, 1))


class Clock:
    """Time that passes only where a fake runtime says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Fake(Runtime):
    format = "fake"
    inputs = (Tensor("image", (None, 2, 2, 1), "float32"),)
    outputs = (Tensor("output_0", (None, 2, 2, 1), "float32"),)
    threads = 3

    def __init__(self, name: str, clock: Clock, calls: list[str], ms: list[float]) -> None:
        self.name, self.clock, self.calls, self.ms = name, clock, calls, ms

    def weights(self) -> Iterator[StoredWeights]:
        raise AssertionError("latency reads no weights")

    def _run(self, feeds: Feeds) -> Feeds:
        raise AssertionError("latency runs single images only")

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        (batch,) = feeds.values()

        def call() -> np.ndarray:
            taken = self.ms[self.calls.count(self.name) % len(self.ms)]
            self.calls.append(self.name)
            self.clock.now += int(taken * 1e6)
            return batch

        return call


def fakes(**ms: list[float]) -> tuple[dict[str, Runtime], Clock, list[str]]:
    clock, calls = Clock(), []
    return {name: Fake(name, clock, calls, times) for name, times in ms.items()}, clock, calls


def turns(calls: list[str]) -> list[tuple[str, int]]:
    """Who was called how often in a row."""
    return [(name, len(list(group))) for name, group in itertools.groupby(calls)]


def test_models_take_turns_in_a_rotating_order() -> None:
    runtimes, clock, calls = fakes(a=[1], b=[1], c=[1])
    latency(runtimes, IMAGE, rounds=25, warmup=0, clock=clock)
    # Three calls that are not timed, then ten or what is left.
    assert turns(calls) == [
        *[(name, 13) for name in "abc"],
        *[(name, 13) for name in "bca"],
        *[(name, 8) for name in "cab"],
    ]


def test_every_model_takes_every_place_equally_often() -> None:
    runtimes, clock, calls = fakes(a=[1], b=[1])
    latency(runtimes, IMAGE, rounds=100, warmup=0, clock=clock)
    firsts = [calls[start] for start in range(0, len(calls), 26)]
    assert Counter(firsts) == {"a": 5, "b": 5}


def test_a_turn_begins_with_calls_that_are_not_timed() -> None:
    # The first calls after another model's are slow: its weights are in the caches.
    runtimes, clock, _ = fakes(a=[9, 5, 2] + [1] * 10, b=[1])
    table = latency(runtimes, IMAGE, rounds=100, warmup=0, clock=clock).set_index("runtime")
    assert table.loc["a", ["p10_ms", "median_ms", "p90_ms"]].tolist() == [1, 1, 1]


def test_figures_are_those_of_the_timed_calls() -> None:
    times = [0.0, 0.0, 0.0] + [float(t) for t in range(1, 11)]
    runtimes, clock, _ = fakes(slow=times, fast=[0.5])
    table = latency(runtimes, IMAGE, rounds=10, warmup=0, clock=clock).set_index("runtime")
    assert table.loc["slow", ["median_ms", "p10_ms", "p90_ms"]].tolist() == [5.5, 1.9, 9.1]
    assert table.loc["fast", ["median_ms", "p10_ms", "p90_ms"]].tolist() == [0.5, 0.5, 0.5]
    assert table["runs"].tolist() == [10, 10]
    assert table["threads"].tolist() == [3, 3]
    assert table["format"].tolist() == ["fake", "fake"]


def test_warming_up_is_not_timed() -> None:
    runtimes, clock, calls = fakes(a=[100, 100, 30])
    table = latency(runtimes, IMAGE, rounds=1, warmup=2, clock=clock)
    # So long a call gains nothing from calls before it.
    assert table["p90_ms"].tolist() == [30]
    assert len(calls) == 3


def test_long_calls_take_turns_of_one() -> None:
    runtimes, clock, calls = fakes(a=[300], b=[100])
    latency(runtimes, IMAGE, rounds=3, warmup=1, clock=clock)
    assert "".join(calls) == "ab" + "abbaab"


def test_the_budget_ends_the_turns() -> None:
    runtimes, clock, calls = fakes(a=[300], b=[100])
    table = latency(runtimes, IMAGE, rounds=1000, warmup=1, seconds_budget=1.4, clock=clock)
    assert table["runs"].tolist() == [3, 3]
    assert len(calls) == 8


def test_one_call_is_timed_even_when_warming_up_ate_the_budget() -> None:
    runtimes, clock, calls = fakes(a=[2000])
    table = latency(runtimes, IMAGE, rounds=5, warmup=10, seconds_budget=1.0, clock=clock)
    assert table["runs"].tolist() == [1]
    assert len(calls) == 2


@pytest.mark.slow
def test_files_are_timed_apart_from_other_libraries(
    files: dict[str, Path], images: np.ndarray
) -> None:
    paths = {form: files[form] for form in ("tflite", "keras", "tflite-int8")}
    table = time_files(paths, images[0], rounds=11, warmup=1)
    assert table["runtime"].tolist() == list(paths)
    assert table["format"].tolist() == list(paths)
    assert table["runs"].tolist() == [11, 11, 11]
    assert (table["p10_ms"] > 0).all()
    assert (table["p10_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] <= table["p90_ms"]).all()


def test_files_beside_tensorflow_are_refused(files: dict[str, Path], images: np.ndarray) -> None:
    runtimes = {form: load(files[form]) for form in ("keras", "tflite")}
    with pytest.raises(UsageError, match="keras and tflite would be timed beside TensorFlow"):
        latency(runtimes, images[0], rounds=1)


def test_each_library_has_a_process_of_its_own(
    files: dict[str, Path], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: dict[str, set[str]] = {}

    class Recorded:
        """A sandbox that answers at once."""

        def __init__(self, box: str) -> None:
            self.box = box

        def submit(self, function: Any, names: dict[str, Path], *arguments: Any) -> Future[Any]:
            boxes.setdefault(self.box, set()).update(names)
            future: Future[Any] = Future()
            if function.__name__ == "_open":
                described = {"format": "fake", "threads": 1, "delegate": "none"}
                future.set_result(dict.fromkeys(names, described))
            elif function.__name__ == "_timed":
                future.set_result({name: np.ones(int(arguments[3])) for name in names})
            return future

        def answer(self, future: Future[Any], what: str, timeout: float) -> Any:
            return future.result()

    monkeypatch.setattr(sys.modules[time_files.__module__], "shared", Recorded)
    table = time_files(files, images[0], rounds=7)
    of_tensorflow = {form for form in files if form in ("keras", "savedmodel")}
    assert sorted(boxes.values(), key=sorted) == sorted(
        [of_tensorflow, set(files) - of_tensorflow], key=sorted
    )
    assert table["runs"].tolist() == [7] * len(files)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"nothing")
    with pytest.raises(TfpruneError, match=r"a\.tflite"):
        time_files({"a": path}, IMAGE)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warmup": -1}, {"seconds_budget": 0}])
def test_numbers_out_of_range_are_one_line(wrong: dict[str, int]) -> None:
    runtimes, _, calls = fakes(a=[1])
    with pytest.raises(UsageError, match="give at least 1 round"):
        latency(runtimes, IMAGE, **wrong)
    assert not calls
    with pytest.raises(UsageError, match="no model"):
        latency({}, IMAGE)
