"""A run measures what it delivers on the devices of its pipeline, each seed and device once."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.report.fake import fake_run
from tfprune.cli import main
from tfprune.devices import find_device
from tfprune.errors import UsageError
from tfprune.files import read_json, sha256, write_json
from tfprune.pipeline import Pipeline
from tfprune.pipeline.on_devices import measure_run
from tfprune.pipeline.runner import run
from tfprune.report import read_run
from tfprune.report.devices import device_table

BENCH = shlex.join(
    [sys.executable, "-c", "import os, sys; print(os.path.getsize(sys.argv[1]))", "{file}"]
)
BOARD = {"name": "command", "label": "board", "command": BENCH}


def pipeline(*devices: dict[str, Any], **other: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "measured",
            "data": {"name": "digits", "limit": 40},
            "model": {"name": "conv2", "options": {"width": 2}},
            "formats": ["keras"],
            "steps": {"dense": {"kind": "train", "epochs": 1}},
            "variants": {"dense": ["dense"]},
            "devices": list(devices),
            **other,
        }
    )


@pytest.mark.slow
def test_a_device_is_measured_once_and_a_new_one_later(tmp_path: Path) -> None:
    directory = run(pipeline(BOARD), out=tmp_path)
    record = directory / "devices" / "board" / "seed-0" / "record.json"
    (row,) = read_json(record)["measured"]
    file = directory / row["artifact"]
    assert row["figures"] == {"device_ms": file.stat().st_size}
    assert (row["variant"], row["format"], row["device"]) == ("dense", "keras", "board")
    before = record.read_bytes()
    said: list[str] = []
    run(pipeline(BOARD, {**BOARD, "label": "other"}), out=tmp_path, say=said.append)
    assert [line for line in said if line.startswith("[")] == [
        "[1/1] seed 0: all artifacts on other"
    ]
    assert record.read_bytes() == before
    run(pipeline({**BOARD, "timeout": 9}), out=tmp_path)
    assert record.read_bytes() != before


def test_what_a_device_needs_is_missed_before_the_first_training(tmp_path: Path) -> None:
    missing = {"name": "command", "command": "no-such-bench {file}"}
    with pytest.raises(UsageError, match="the program 'no-such-bench' is not found"):
        run(pipeline(missing), out=tmp_path)
    assert not list(tmp_path.glob("measured/steps/*"))


@pytest.mark.slow
def test_an_optional_device_is_left_out_until_what_it_needs_is_there(tmp_path: Path) -> None:
    program = tmp_path / "bench"
    optional = {"name": "command", "label": "board", "optional": True}
    asked = pipeline({**optional, "command": f"{program} {{file}}"})
    said: list[str] = []
    directory = run(asked, out=tmp_path, say=said.append)
    missing = f"the program '{program}' is not found"
    assert any(line.startswith("left out: ") and missing in line for line in said)
    assert not len(device_table(read_run(directory)))
    for document in ("report.md", "report.html"):
        assert "board is left out: " in (directory / document).read_text().replace("\\", "")
    program.write_text("#!/bin/sh\necho 3\n")
    program.chmod(0o755)
    run(asked, out=tmp_path)
    assert list(device_table(read_run(directory))["device_ms"]) == [3.0]
    assert "is left out" not in (directory / "report.md").read_text()
    # Files that it does not run are no mistake either.
    npu = {"name": "ethos-u55-128", "optional": True}
    run(pipeline(npu), out=tmp_path)
    report = (directory / "report.md").read_text()
    assert re.search(r"ethos-u55-128 is left out: (it runs tflite|device ethos)", report)


def test_a_finished_run_is_measured_on_a_new_device(tmp_path: Path) -> None:
    directory = fake_run(tmp_path / "fake", seeds=(0, 1))
    device = find_device("command", command=BENCH)
    measure_run(directory, [device])
    table = device_table(read_run(directory))
    size = (directory / "slim" / "seed-1" / "model.tflite").stat().st_size
    place = (table["variant"] == "slim") & (table["seed"] == 1) & (table["artifact"] == "tflite")
    assert table[place]["device_ms"].tolist() == [size]
    records = {path: path.read_bytes() for path in directory.glob("devices/**/record.json")}
    measure_run(directory, [device])
    assert records == {path: path.read_bytes() for path in records} and len(records) == 2
    # Another option is another measurement, in the place of the old one.
    measure_run(directory, [find_device("command", command=BENCH, timeout=9)])
    assert records != {path: path.read_bytes() for path in records}
    assert set(device_table(read_run(directory))["device"]) == {"command"}


def test_figures_of_a_file_that_was_made_anew_are_not_shown(tmp_path: Path) -> None:
    directory = fake_run(tmp_path / "fake")
    measure_run(directory, [find_device("command", command=BENCH)])
    folder = directory / "slim" / "seed-0"
    (folder / "model.tflite").write_text("another training")
    record = read_json(folder / "record.json")
    for artifact in record["artifacts"]:
        artifact["sha256"] = sha256(folder / artifact["path"])
    write_json(folder / "record.json", record)

    def shown() -> set[tuple[str, str]]:
        table = device_table(read_run(directory))
        return set(zip(table["variant"], table["artifact"], strict=True))

    assert ("slim", "tflite") not in shown()
    assert ("slim", "keras") in shown()
    measure_run(directory, [find_device("command", command=BENCH)])
    assert ("slim", "tflite") in shown()


def test_a_device_of_the_pipeline_is_not_measured_otherwise(tmp_path: Path) -> None:
    told = {"name": "cpu", "threads": 2, "told": lambda *_: {"figures": {"device_ms": 2.0}}}
    directory = fake_run(tmp_path / "fake", devices=[told])
    with pytest.raises(UsageError, match="a device 'cpu' with other options: change them there"):
        measure_run(directory, [find_device("cpu")])
    measure_run(directory, [find_device("cpu", threads=2)])
    assert device_table(read_run(directory))["device_ms"].unique().tolist() == [2.0]


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([{"name": "cpux"}], "device 'cpux' is unknown: did you mean 'cpu'"),
        ([{"name": "cpu", "thread": 2}], "thread is unknown: did you mean 'threads'"),
        ([BOARD, {"name": "cpu", "label": "board"}], "devices has 'board' twice"),
        ([{"name": "cpu", "label": "a/b"}], "label"),
        (
            [{"name": "android", "benchmark_model": "bench"}],
            "no variant is delivered so: add 'tflite' to formats",
        ),
    ],
)
def test_a_wrong_device_is_one_line(devices: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline(*devices)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "measured.toml"
    file.write_text(
        'name = "measured"\n[data]\nname = "digits"\n[model]\nname = "vgg"\n'
        '[[devices]]\nname = "cpu"\nthread = 2\n'
        '[steps.dense]\nkind = "train"\nepochs = 1\n[variants]\ndense = ["dense"]\n'
    )
    result = CliRunner().invoke(main, ["pipeline", "check", str(file)])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == (
        f"Error: {file}: devices#1: device cpu: thread is unknown: did you mean 'threads'?"
    )
