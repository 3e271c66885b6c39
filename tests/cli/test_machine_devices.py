"""`tfprune devices` lists where files can be measured, and installs what pip does not."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tfprune.cli import main
from tfprune.errors import UsageError
from tfprune.vocabulary import DEVICES


def test_every_device_is_listed_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tfprune.devices.tflm import Tflm

    def missing(self: Tflm) -> None:
        raise UsageError("pip install it")

    monkeypatch.setattr(Tflm, "check", missing)
    rows = json.loads(CliRunner().invoke(main, ["devices", "--json"]).stdout)
    found = {row["device"]: row["missing"] for row in rows}
    assert set(found) == set(DEVICES)
    assert found["cpu"] == ""
    assert found["tflm"] == "pip install it"
    assert found["command"] == "options: command"
    text = CliRunner().invoke(main, ["devices"]).stdout
    assert all(sentence in text for sentence in DEVICES.values())


def test_a_device_that_installs_nothing_says_so() -> None:
    result = CliRunner().invoke(main, ["devices", "install", "cpu"])
    assert result.exit_code == 2
    assert "device cpu needs nothing that can be installed here" in result.stderr
    result = CliRunner().invoke(main, ["devices", "install", "wasn"])
    assert "did you mean 'wasm'" in result.stderr
