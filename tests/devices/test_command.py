"""A command of the user's names its figures; what it prints is checked before it counts."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tfprune.devices import Device, find_device
from tfprune.errors import TfpruneError, UsageError


def command(code: str, **options: object) -> Device:
    """A device whose program is some Python, with the file's path in `sys.argv[1]`."""
    words = [sys.executable, "-c", f"import json, sys\n{code}", "{file}"]
    return find_device("command", command=shlex.join(words), **options)


def told(printed: str) -> dict[str, float]:
    """The figures of a command that prints a text."""
    (found,) = command(f"print({printed!r})").measure([Path("net.tflite")])
    assert not found.refusal
    return dict(found.figures)


@pytest.mark.parametrize(
    ("printed", "figures"),
    [
        ("1.5", {"device_ms": 1.5}),
        (" 3\n", {"device_ms": 3.0}),
        ('{"cycles": 8000, "energy": 0.25}', {"cycles": 8000.0, "energy": 0.25}),
    ],
)
def test_a_number_is_milliseconds_and_an_object_names_its_figures(printed, figures):
    assert told(printed) == figures


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("fast", "prints 'fast', which is not JSON"),
        ("", "prints '', which is not JSON"),
        ("[" * 100_000, "which is not JSON"),
        ("{}", "prints no figure"),
        ("[1]", "prints device_ms = '[1]', which is not a finite number"),
        ("NaN", "prints device_ms = 'nan', which is not a finite number"),
        ("true", "prints device_ms = 'True', which is not a finite number"),
        ('{"cycles": "8"}', "prints cycles = '8', which is not a finite number"),
        ('{"accuracy": 1, "bytes": 2}', "'bytes' is the name of something else"),
        ('{"a b": 1}', "'a b' is not a name of a figure"),
    ],
)
def test_anything_else_is_one_line(printed, said):
    # The brackets are made there, since no command line is so long.
    code = f"print('[' * {len(printed)})" if printed.startswith("[[") else f"print({printed!r})"
    with pytest.raises(TfpruneError) as error:
        command(code).measure([Path("net.tflite")])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_each_file_is_measured_by_its_path_whatever_it_is(tmp_path):
    places = [tmp_path / "a b;$(c).tflite", tmp_path / "d'e.tflite"]
    for size, place in enumerate(places, 1):
        place.write_bytes(bytes(size))
    device = command("import os; print(os.path.getsize(sys.argv[1]))")
    assert [found.figures["device_ms"] for found in device.measure(places)] == [1, 2]


def test_a_failure_shows_what_it_says():
    device = command("print('no bench here', file=sys.stderr); sys.exit(3)")
    with pytest.raises(TfpruneError, match=r"ends with exit code 3 \(no bench here\)"):
        device.measure([Path("net.tflite")])


def test_a_command_that_hangs_ends():
    with pytest.raises(TfpruneError, match=r"takes longer than 0\.2 s: give a larger timeout"):
        command("import time; time.sleep(60)", timeout=0.2).measure([Path("net.tflite")])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "command is missing"),
        ({"command": "bench"}, r"command has no \{file\}"),
        ({"command": "bench '{file}"}, "No closing quotation"),
        ({"command": "bench {file}", "timeout": 0}, "timeout = 0"),
        ({"command": "bench {file}", "comand": "x"}, "comand is unknown: did you mean 'command'"),
    ],
)
def test_a_wrong_option_is_one_line(options, said):
    with pytest.raises(UsageError, match=said):
        find_device("command", **options)


def test_a_program_that_is_missing_is_said_before_work():
    with pytest.raises(UsageError, match="the program 'no-such-bench' is not found"):
        find_device("command", command="no-such-bench {file}").check()
