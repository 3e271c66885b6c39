"""A table of files and devices, of which each tells what it can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from tfprune.devices import Device, Measurement, find_device, measure_on
from tfprune.devices.measuring import entries, shown
from tfprune.devices.registry import kinds
from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import figure
from tfprune.vocabulary import DEVICES, FORMATS


class Made(Device):
    """A device that reads its figures in the files."""

    key: ClassVar[str] = "made"
    formats: ClassVar = ("tflite",)
    told: ClassVar = ("cycles",)
    estimated: ClassVar[bool] = True

    missing: bool = False

    def check(self) -> None:
        if self.missing:
            raise UsageError("device made: install it")

    def measure(self, files):
        return [
            Measurement(json.loads(path.read_text()), layers=pd.DataFrame({"layer": ["conv"]}))
            if path.stat().st_size
            else Measurement({}, refusal="it is empty: fill it", notes=("a note",))
            for path in files
        ]

    def settings(self) -> dict[str, str]:
        return {"clock": "1 MHz"}


class Other(Made):
    """Another one, which no compiler estimates."""

    estimated: ClassVar[bool] = False


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    places = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    places[0].write_text('{"cycles": 12000, "energy": 0.125}')
    places[1].write_text("")
    return places


def test_every_file_has_a_row_for_every_device(files):
    devices = [Made(name="one"), Other(name="two")]
    table = measure_on([*files, files[0]], devices, layers=True)
    pairs = [(str(path), device.name) for device in devices for path in files]
    assert list(zip(table["artifact"], table["device"], strict=True)) == pairs
    assert table["cycles"].tolist()[::2] == [12000, 12000]
    assert table["cycles"].isna().tolist() == [False, True] * 2
    assert table["refusal"].tolist() == ["", "it is empty: fill it"] * 2


def test_estimates_are_called_so_and_figures_have_their_units(files):
    text = shown(measure_on(files, [Made(name="one"), Other(name="two")]))
    assert text["device"].tolist() == ["one, estimated"] * 2 + ["two"] * 2
    assert text["cycles"].tolist() == ["12,000", ""] * 2
    assert text["energy"].tolist() == ["0.125", ""] * 2


def test_as_plain_values_only_what_is_known_is_a_figure(files):
    first, second = entries(measure_on(files, [Made(name="one")], layers=True))
    assert first["figures"] == {"cycles": 12000, "energy": 0.125}
    assert first["layers"] == [{"layer": "conv"}]
    assert (second["figures"], second["notes"]) == ({}, ["a note"])
    assert first["settings"] == {"clock": "1 MHz"}
    json.dumps([first, second])


def test_all_devices_are_checked_before_the_first_one_measures(files):
    class Unused(Made):
        def measure(self, files):
            raise AssertionError

    with pytest.raises(UsageError, match="install it"):
        measure_on(files, [Unused(name="one"), Made(name="two", missing=True)])
    with pytest.raises(TfpruneError, match="does not exist"):
        measure_on([files[0].with_name("none.tflite")], [Unused(name="one")])


def test_every_kind_is_in_the_vocabulary_and_tells_known_figures():
    found = kinds()
    assert len({kind.__name__ for kind in found}) == len(found)
    for kind in found:
        assert kind.key in DEVICES
        assert set(kind.formats) <= set(FORMATS)
        assert {figure(name).better for name in kind.told} <= {"higher", "lower"}
        assert kind.takes(kind.key) or "N" in kind.key


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cpux", {}, "device 'cpux' is unknown: did you mean 'cpu'"),
        ("cpu", {"thread": 2}, "device cpu: thread is unknown: did you mean 'threads'"),
        ("cpu", {"threads": 0}, "device cpu: threads = 0"),
    ],
)
def test_an_unknown_device_or_option_is_one_line(name, options, said):
    with pytest.raises(UsageError, match=said):
        find_device(name, **options)
