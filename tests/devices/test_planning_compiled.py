"""Plans for a device whose compiler tells the same of the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tests.tables import slow
from tfprune.devices import find_device, vela
from tfprune.devices.base import PLANNED_FIGURES, Measurement
from tfprune.devices.cost import PredictedPeak, PredictedSum
from tfprune.devices.operators import Operator, operator_calls, operator_file
from tfprune.devices.planning import measured_value, plan_for_device
from tfprune.devices.profiling import STEP, Measured, OperatorFigures
from tfprune.devices.removals import Removals
from tfprune.errors import UsageError
from tfprune.filters import ChannelGroups, Target

from .models import Times, chain, drawn_scores, residual

needs_vela = pytest.mark.skipif(not vela.installed(), reason="ethos-u-vela is not installed")
DEVICE = find_device("ethos-u55-128")


@dataclass
class FakeCompiler:
    """A device that computes 8 channels at once, and whose whole models cost something else."""

    model: keras.Model
    bias: float = 1.0
    asked: list[keras.Model] = field(default_factory=list)

    def costs(self, figure: str) -> Times:
        return Times(STEP)

    def untouched(self) -> Measured:
        return self.measure(self.model)

    def measure(self, slim: keras.Model) -> Measured:
        self.asked.append(slim)
        original, told = self._figures(self.model), self._figures(slim)
        return Measured("tflite-int8", 1, 1, 1, device="made", original=original, slim=told)

    def _figures(self, model: keras.Model) -> dict[str, float]:
        alone = Times(STEP)([call.operator for call in operator_calls(model)])
        return {
            "cycles": float(alone.sum()) ** self.bias,
            "device_ms": float(alone.sum()) ** self.bias,
            "sram_bytes": float(alone.max()) * self.bias,
            "flash_bytes": 1000.0 + model.count_params(),
        }


@pytest.fixture(scope="module")
def removals() -> Removals:
    groups = ChannelGroups(residual())
    return Removals(groups, drawn_scores(groups, 0))


@settings(max_examples=4, deadline=None)
@given(
    share=st.floats(0.5, 1.0),
    bias=st.floats(0.8, 1.25),
    name=st.sampled_from(["cycles", "latency", "sram", "flash"]),
)
def test_the_whole_file_meets_the_target(
    removals: Removals, share: float, bias: float, name: str
) -> None:
    compiler = FakeCompiler(removals.groups.model, bias)
    target = Target.of(**{name: share})
    plan = plan_for_device(removals, target, compiler)  # type: ignore[arg-type]
    assert measured_value(target, plan.measured) <= share
    assert len(compiler.asked) <= 15
    assert plan.alive.all() == (share == 1)


def test_a_target_out_of_reach_says_how_near_it_came(removals: Removals) -> None:
    compiler = FakeCompiler(removals.groups.model)
    with pytest.raises(UsageError, match=r"cycles=0.01 cannot be reached: .* is estimated: give a"):
        plan_for_device(removals, Target("cycles", 0.01), compiler)  # type: ignore[arg-type]


def test_the_peak_is_that_of_one_operator_and_the_rest_shrinks(removals: Removals) -> None:
    nothing = np.zeros((1, len(removals.ladders)), int)
    everything = np.array([[ladder.removed[-1] for ladder in removals.ladders]])
    peak = PredictedPeak(removals, Times(STEP), 500.0)
    assert peak(nothing)[0] == pytest.approx(500.0)
    assert peak(everything)[0] < 500.0
    alone = PredictedSum(removals, Times(STEP), 0.0)
    whole = float(alone(nothing)[0]) + 10
    still = PredictedSum(removals, Times(STEP), whole)
    shrinking = PredictedSum(removals, Times(STEP), whole, shrinking_rest=True)
    assert still(nothing)[0] == pytest.approx(shrinking(nothing)[0]) == pytest.approx(whole)
    assert shrinking(everything)[0] < still(everything)[0]


@needs_vela
def test_operators_cost_in_steps_of_channels_as_vela_says(tmp_path: Path) -> None:
    cycles = OperatorFigures(DEVICE, "cycles", tmp_path)

    def operator(inputs: int, outputs: int) -> Operator:
        return Operator("conv", (8, 8), (8, 8), inputs=inputs, outputs=outputs, window=(3, 3))

    few, step, more = cycles([operator(16, 17), operator(16, 24), operator(16, 25)])
    assert few == step < more
    # The file itself says so, not the rounding alone.
    file = tmp_path / "24.tflite"
    file.write_bytes(operator_file(operator(16, 24), int8=True, random=True))
    (told,) = DEVICE.measure([file])
    assert told.figures["cycles"] == step


def test_what_the_cpu_runs_costs_the_device_nothing(tmp_path: Path) -> None:
    class Refusing(type(DEVICE)):  # type: ignore[misc]
        def measure(self, files: Sequence[Path]) -> list[Measurement]:
            return [Measurement({}, refusal="it has no such operator")]

    cycles = OperatorFigures(Refusing(name=DEVICE.name), "cycles", tmp_path)
    assert cycles([Operator("dense", (1, 1), (1, 1), inputs=8, outputs=4)]) == [0.0]


# An untrained net has no classes.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:export")
@needs_vela
def test_slim_meets_cycles_that_its_exported_file_has(tmp_path: Path) -> None:
    model = chain(8, (32, 48))
    plan = tfprune.plan(model, cycles=0.6, device="ethos-u55-128")
    slim = tfprune.filters.rebuild(plan)
    data = np.random.default_rng(0).uniform(0, 255, (40, *model.input_shape[1:]))
    files = [
        tfprune.export(net, tmp_path, ["tflite-int8"], data, name=name)[0].path
        for name, net in {"whole": model, "slim": slim}.items()
    ]
    before, after = (found.figures["cycles"] for found in DEVICE.measure(files))
    assert 0.5 < after / before <= 0.6
    told = plan.measured  # type: ignore[attr-defined]
    assert (told.original["cycles"], told.slim["cycles"]) == (before, after)


@pytest.mark.slow
@needs_vela
def test_bytes_are_met_as_bytes() -> None:
    plan = tfprune.plan(chain(8, (32, 48)), flash="12 KiB", device="ethos-u55-128")
    told = plan.measured  # type: ignore[attr-defined]
    assert 0.97 * 12 * 1024 <= told.slim["flash_bytes"] <= 12 * 1024 < told.original["flash_bytes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cycles": 0.5}, "cycles is what a device tells: give the device, such as ethos-u55-128"),
        ({"bytes": 9, "device": DEVICE}, "bytes has no meaning for device ethos-u55-128: give one"),
        ({"cycles": 0.5, "device": "tflm"}, "device tflm cannot be planned for: give one whose"),
        ({"macs": 0.5, "device": DEVICE}, "device has no meaning for the target macs: leave it"),
        (
            {"sram": 0.5, "device": DEVICE, "threads": 2},
            "threads has no meaning for device ethos-u55-128: leave it out",
        ),
        ({"flash": 1.5, "device": DEVICE}, "flash=1.5 is not a share and not a size: give a share"),
        ({"sram": "9 KG", "device": DEVICE}, "sram='9 KG' has the unknown unit 'KG'"),
        ({"cycles": "9", "device": DEVICE}, "cycles='9' is not a number: give one"),
        slow({"flash": "2 B", "device": DEVICE}, "flash=2 cannot be reached: with all removable"),
    ],
)
def test_contradictions_are_refused_before_work(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        tfprune.plan(chain(), **options)
    assert message in str(error.value)


def test_every_figure_of_a_target_is_told() -> None:
    assert set(PLANNED_FIGURES.values()) <= set(DEVICE.told)
