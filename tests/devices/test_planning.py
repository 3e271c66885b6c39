"""From a target to a plan that was measured, with made-up devices and once with the real one."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tfprune import devices
from tfprune.devices import profiling
from tfprune.devices.operators import operator_calls
from tfprune.devices.planning import measured_value, plan_removals
from tfprune.devices.profiling import Measured
from tfprune.devices.removals import Removals
from tfprune.errors import TfpruneError, UsageError
from tfprune.filters import ChannelGroups, Target, rebuild

from .models import Times, chain, drawn_scores, residual


@dataclass
class FakeProfiler:
    """A device on which whole models take another time than the sum of their operators."""

    model: keras.Model
    tile: int = 4
    bias: float = 1.0
    noise: float = 0.0
    asked: list[keras.Model] = field(default_factory=list)

    def times(self) -> Times:
        return Times(self.tile)

    def fastest(self) -> float:
        return self._ms(self.model)

    def untouched(self, *, timed: bool) -> Measured:
        return self.time(self.model)

    def time(self, slim: keras.Model) -> Measured:
        self.asked.append(slim)
        present = self._ms(self.model)
        slowness = 1 + self.noise * (-1) ** len(self.asked)
        # The prediction is the more wrong, the more is removed.
        slim_ms = present * (self._ms(slim) / present) ** self.bias * slowness
        return Measured("tflite", 1, self._bytes(self.model), self._bytes(slim), present, slim_ms)

    size = time

    def _ms(self, model: keras.Model) -> float:
        return float(self.times()([use.operator for use in operator_calls(model)]).sum()) + 1.0

    def _bytes(self, model: keras.Model) -> int:
        return 1000 + 5 * model.count_params()


@pytest.fixture(scope="module")
def removals() -> Removals:
    groups = ChannelGroups(residual())
    return Removals(groups, drawn_scores(groups, 0))


@settings(max_examples=8, deadline=None)
@given(
    share=st.floats(0.45, 0.99),
    bias=st.floats(0.8, 1.25),
    noise=st.floats(0, 0.01),
    name=st.sampled_from(["latency", "milliseconds"]),
)
def test_the_measured_value_meets_the_target(
    removals: Removals, share: float, bias: float, noise: float, name: str
) -> None:
    profiler = FakeProfiler(removals.groups.model, bias=bias, noise=noise)
    value = share * (profiler.fastest() if name == "milliseconds" else 1)
    target = Target.of(**{name: value})
    plan = plan_removals(removals, target, profiler)  # type: ignore[arg-type]
    assert measured_value(target, plan.measured) <= value
    assert len(profiler.asked) <= 5
    assert plan.measured.slim_bytes == 1000 + 5 * rebuild(plan).count_params()


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 1.2))
def test_the_file_is_at_most_the_size(removals: Removals, share: float) -> None:
    profiler = FakeProfiler(removals.groups.model)
    size = int(share * profiler._bytes(profiler.model))
    plan = plan_removals(removals, Target("bytes", size), profiler)  # type: ignore[arg-type]
    assert plan.measured.slim_bytes <= size
    # A target above the present size removes nothing.
    assert plan.alive.all() == (share >= 1)


def test_the_whole_time_stays_whole(removals: Removals) -> None:
    profiler = FakeProfiler(removals.groups.model)
    plan = plan_removals(removals, Target("latency", 1.0), profiler)  # type: ignore[arg-type]
    assert plan.alive.all()
    assert plan.measured.slim_ms == plan.measured.original_ms


def test_an_error_names_the_smallest_measured_value(removals: Removals) -> None:
    profiler = FakeProfiler(removals.groups.model)
    with pytest.raises(UsageError) as error:
        plan_removals(removals, Target("latency", 0.01), profiler)  # type: ignore[arg-type]
    least = profiler.time(profiler.asked[-1])
    assert least.slim_ms and least.original_ms
    assert str(error.value) == (
        "latency=0.01 cannot be reached: with all removable channels removed (see `tfprune "
        f"inspect`), {least.slim_ms / least.original_ms:.3g} is measured: "
        "give a larger target, or exclude less"
    )


def test_an_unsteady_machine_is_reported(removals: Removals) -> None:
    class Unsteady(FakeProfiler):
        def time(self, slim: keras.Model) -> Measured:
            original_ms = super().time(slim).original_ms
            return Measured("tflite", 1, 1, 1, original_ms, original_ms)

    profiler = Unsteady(removals.groups.model)
    with pytest.raises(TfpruneError, match=r"^latency=0.9 was missed 4 times, by at least 11.1%"):
        plan_removals(removals, Target("latency", 0.9), profiler)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": 1.5}, "latency=1.5 is not a share to keep: give a number in 0..1"),
        ({"milliseconds": 0}, "milliseconds=0 is not a target: give a number above 0"),
        ({"bytes": -1}, "bytes=-1 is not a target: give a number above 0"),
        (
            {"latency": 0.5, "format": "keras"},
            "format 'keras' cannot be measured on a device: give one of tflite, tflite-int8",
        ),
        ({"latency": 0.5, "threads": 0}, "threads is 0: give at least 1"),
        (
            {"latency": 0.5, "round_to": 0},
            "round_to=0 is not a number of channels: give 1 or more",
        ),
        (
            {"latency": 0.5, "exclude": "frist"},
            "exclude: model 'chain' has no layer 'frist': did you mean 'first'?",
        ),
    ],
)
def test_bad_targets(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        tfprune.plan(chain(), **options)
    assert str(error.value) == message


def test_open_sizes_have_no_latency() -> None:
    inputs = keras.Input((None, None, 2))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x), name="open")
    for target, value in {"latency": 0.5, "bytes": 500}.items():
        said = f"'open' takes images of any size, so the target {target} cannot be measured"
        with pytest.raises(UsageError, match=said):
            tfprune.plan(model, **{target: value})


@pytest.mark.slow
def test_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_SECONDS", 0.5)
    # The model is large enough that its steps exceed the constant time of the runtime.
    model = chain(size=24, filters=(16, 48))
    messages: list[str] = []
    options = {"exclude": ["first"], "minimum": 2, "progress": messages.append}
    plan = devices.plan(model, Target("latency", 0.9), **options)
    slim = rebuild(plan)
    assert slim.get_layer("first").filters == 16
    assert 2 <= slim.get_layer("second").filters < 48
    measured = plan.measured
    assert measured.slim_ms and measured.original_ms
    assert measured.slim_ms <= 0.9 * measured.original_ms
    assert measured.format == "tflite"
    assert any(message.startswith("timed") for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["tflite", "tflite-int8"])
def test_the_exported_file_is_at_most_the_size(format: str, tmp_path) -> None:
    model = chain()
    images = np.random.default_rng(0).uniform(0, 255, (20, 6, 6, 2)).astype(np.float32)
    (before,) = tfprune.export(model, tmp_path, [format], images, comparison_data=images)
    # Half of the bytes of the parameters.
    size = before.bytes_raw - model.count_params() * (2 if format == "tflite" else 0.3)
    plan = devices.plan(model, Target("bytes", int(size)), format=format)
    slim = rebuild(plan)
    (after,) = tfprune.export(slim, tmp_path, [format], images, comparison_data=images)
    assert after.bytes_raw == plan.measured.slim_bytes <= size
    assert plan.measured.original_bytes == before.bytes_raw
    assert plan.measured.slim_ms is None


def test_a_target_that_is_met_already_is_said() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(4)(inputs)))
    with pytest.warns(UserWarning, match="slim: bytes=10000000 is met already"):
        assert tfprune.slim(model, bytes=10_000_000).count_params() == model.count_params()
