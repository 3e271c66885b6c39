"""A phone, played by a program that answers as adb and `benchmark_model` do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tfprune.devices import Device, find_device
from tfprune.errors import TfpruneError, UsageError

ADB = """#!{python}
import json, pathlib, re, sys
state = json.loads(pathlib.Path({state!r}).read_text())
words = sys.argv[1:]
log = pathlib.Path({log!r})
with log.open("a") as file:
    file.write(json.dumps(words) + "\\n")
if words[:1] == ["-s"]:
    if words[1] != state["serial"]:
        sys.exit("error: device '" + words[1] + "' not found")
    words = words[2:]
if words[0] == "get-state":
    if state["state"] != "device":
        sys.exit("error: " + state["state"])
    print("device")
elif words[0] == "push":
    if state.get("full"):
        sys.exit("adb: error: no space left on device")
    pathlib.Path({phone!r}, words[2].replace("/", "_")).write_bytes(
        pathlib.Path(words[1]).read_bytes()
    )
elif "--graph=" in words[1]:
    (place,) = re.findall(r"--graph=(\\S+)", words[1])
    content = pathlib.Path({phone!r}, place.replace("/", "_")).read_bytes()
    if content == b"broken":
        print("INFO: STARTING!")
        print("ERROR: Failed to load graph")
        sys.exit(1)
    runs = sum("--graph=" + place in line for line in log.read_text().splitlines())
    print("INFO: Inference timings in us: Init: 90, First inference: 900, "
          f"Warmup (avg): 8e+06, Inference (avg): {{len(content) * 1000.0 * runs:.6g}}")
    print("INFO: Memory footprint delta from the start of the tool (MB): init=1 overall=2.5")
"""


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """A folder with `adb`, what the phone is like (`state`), and what adb was asked (`log`)."""
    (tmp_path / "files").mkdir()
    (tmp_path / "state").write_text(json.dumps({"state": "device", "serial": "A1"}))
    (tmp_path / "benchmark_model").write_bytes(b"program")
    program = tmp_path / "adb"
    names = {name: str(tmp_path / name) for name in ("state", "log")}
    text = ADB.format(python=sys.executable, phone=str(tmp_path / "files"), **names)
    program.write_text(text)
    program.chmod(0o755)
    return tmp_path


def device(phone: Path, **options: object) -> Device:
    places = {"adb": str(phone / "adb"), "benchmark_model": phone / "benchmark_model"}
    return find_device("android", **{**places, **options})


def asked(phone: Path) -> list[list[str]]:
    return [json.loads(line) for line in (phone / "log").read_text().splitlines()]


def test_files_take_turns_and_the_median_counts(phone):
    files = [phone / "a.tflite", phone / "b.tflite"]
    for size, path in enumerate(files, 1):
        path.write_bytes(bytes(size))
    found = device(phone, turns=3, threads=2, serial="A1").measure(files)
    # The fake phone takes its size times the number of the turn, in milliseconds.
    assert [each.figures["device_ms"] for each in found] == [2.0, 4.0]
    assert {each.figures["memory_bytes"] for each in found} == {2.5 * 2**20}
    runs = [words[-1] for words in asked(phone) if "--graph=" in words[-1]]
    assert [run.split("--graph=")[1].split()[0][-8:-7] for run in runs] == ["0", "1"] * 3
    assert all("--num_threads=2 " in run for run in runs)
    assert all(words[:2] == ["-s", "A1"] for words in asked(phone))


def test_a_file_that_does_not_run_there_is_refused_and_the_others_are_measured(phone):
    broken, good, other = phone / "x.tflite", phone / "y.tflite", phone / "z.keras"
    for path, content in ((broken, b"broken"), (good, b"1"), (other, b"2")):
        path.write_bytes(content)
    found = device(phone).measure([broken, good, other, good])
    assert "cannot run it (ERROR: Failed to load graph)" in found[0].refusal
    assert found[1].figures == found[3].figures != {}
    assert "not a .tflite file" in found[2].refusal
    assert not found[0].figures and not found[2].figures


def test_nothing_stays_on_the_phone(phone):
    path = phone / "a.tflite"
    path.write_bytes(b"1")
    device(phone).measure([path])
    assert asked(phone)[-1] == ["shell", "rm -rf /data/local/tmp/tfprune"]
    (phone / "state").write_text(json.dumps({"state": "device", "full": True}))
    with pytest.raises(TfpruneError, match=r"ends with exit code 1 \(adb: error: no space left"):
        device(phone).measure([path])
    assert asked(phone)[-1] == ["shell", "rm -rf /data/local/tmp/tfprune"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"adb": "no-such-adb"}, "'no-such-adb' is not found: install Android's platform tools"),
        ({"benchmark_model": "none"}, "benchmark_model='none' is not a file"),
        ({"serial": "B2"}, r"adb reaches no phone \(error: device 'B2' not found\)"),
    ],
)
def test_what_is_missing_is_said_before_work(phone, change, said):
    device(phone).check()
    with pytest.raises(UsageError, match=said):
        device(phone, **change).check()


def test_a_phone_that_does_not_allow_it_is_said(phone):
    (phone / "state").write_text(json.dumps({"state": "unauthorized"}))
    with pytest.raises(UsageError, match=r"adb reaches no phone \(error: unauthorized\)"):
        device(phone).check()
