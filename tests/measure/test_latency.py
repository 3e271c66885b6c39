from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tfprune.errors import UsageError
from tfprune.measure import Runtime, latency, load
from tfprune.measure.interface import Runner
from tfprune.measure.stored import StoredWeights

IMAGE = np.zeros((2, 2, 1))


class Clock:
    """Time that passes only where a fake runtime says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Fake(Runtime):
    format = "fake"
    input_shape = (2, 2, 1)
    threads = 3

    def __init__(self, name: str, clock: Clock, calls: list[str], ms: list[float]) -> None:
        self.name, self.clock, self.calls, self.ms = name, clock, calls, ms

    def weights(self) -> Iterator[StoredWeights]:
        raise AssertionError("latency reads no weights")

    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        raise AssertionError("latency runs single images only")

    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            taken = self.ms[self.calls.count(self.name) % len(self.ms)]
            self.calls.append(self.name)
            self.clock.now += int(taken * 1e6)
            return batch

        return call


def fakes(**ms: list[float]) -> tuple[dict[str, Runtime], Clock, list[str]]:
    clock, calls = Clock(), []
    return {name: Fake(name, clock, calls, times) for name, times in ms.items()}, clock, calls


def test_models_alternate_in_a_rotating_order() -> None:
    runtimes, clock, calls = fakes(a=[1], b=[1], c=[1])
    latency(runtimes, IMAGE, rounds=3, warmup=0, clock=clock)
    assert "".join(calls) == "abcbcacab"


def test_every_model_takes_every_place_equally_often() -> None:
    runtimes, clock, calls = fakes(a=[1], b=[1])
    latency(runtimes, IMAGE, rounds=10, warmup=3, clock=clock)
    assert Counter(calls[::2][3:]) == Counter(calls[1::2][3:]) == {"a": 5, "b": 5}


def test_figures_are_those_of_the_timed_calls() -> None:
    times = [float(t) for t in range(1, 12)]
    runtimes, clock, _ = fakes(slow=times, fast=[0.5])
    table = latency(runtimes, IMAGE, rounds=11, warmup=0, clock=clock).set_index("runtime")
    assert table.loc["slow", ["median_ms", "p10_ms", "p90_ms"]].tolist() == [6, 2, 10]
    assert table.loc["fast", ["median_ms", "p10_ms", "p90_ms"]].tolist() == [0.5, 0.5, 0.5]
    assert table["runs"].tolist() == [11, 11]
    assert table["threads"].tolist() == [3, 3]
    assert table["format"].tolist() == ["fake", "fake"]


def test_warming_up_is_not_timed() -> None:
    runtimes, clock, calls = fakes(a=[100, 100, 1])
    table = latency(runtimes, IMAGE, rounds=1, warmup=2, clock=clock)
    assert table["p90_ms"].tolist() == [1]
    assert len(calls) == 3


def test_the_budget_ends_the_rounds() -> None:
    runtimes, clock, calls = fakes(a=[300], b=[100])
    table = latency(runtimes, IMAGE, rounds=1000, warmup=0, seconds_budget=1.0, clock=clock)
    assert table["runs"].tolist() == [3, 3]
    assert len(calls) == 6


def test_one_round_is_timed_even_when_warming_up_ate_the_budget() -> None:
    runtimes, clock, calls = fakes(a=[2000])
    table = latency(runtimes, IMAGE, rounds=5, warmup=10, seconds_budget=1.0, clock=clock)
    assert table["runs"].tolist() == [1]
    assert len(calls) == 2


def test_files_are_timed(files: dict[str, Path], images: np.ndarray) -> None:
    runtimes = {form: load(path) for form, path in files.items()}
    table = latency(runtimes, images[0], rounds=5, warmup=1)
    assert table["runtime"].tolist() == list(files)
    assert (table["p10_ms"] > 0).all()
    assert (table["p10_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] <= table["p90_ms"]).all()


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warmup": -1}, {"seconds_budget": 0}])
def test_numbers_out_of_range_are_one_line(wrong: dict[str, int]) -> None:
    runtimes, _, calls = fakes(a=[1])
    with pytest.raises(UsageError, match="give at least 1 round"):
        latency(runtimes, IMAGE, **wrong)
    assert not calls
    with pytest.raises(UsageError, match="no model"):
        latency({}, IMAGE)
