"""What happens in the child stays there, and a child that dies is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tfprune.errors import TfpruneError
from tfprune.formats.sandbox import Sandbox, shared

_kept: list[bytes] = []


def _grow(megabytes: int) -> int:
    _kept.append(b"x" * (megabytes << 20))
    return len(_kept)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _print() -> None:
    os.write(1, b"stdout of the child")
    os.write(2, b"stderr of the child")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def test_the_child_keeps_what_it_loaded_however_large_it_is(sandbox: Sandbox) -> None:
    child = sandbox.submit(os.getpid).result()
    assert sandbox.submit(_grow, 1).result() == 1
    # loky looks at most once a second.
    time.sleep(1.1)
    assert sandbox.submit(_grow, 400).result() == 2
    assert sandbox.submit(_grow, 1).result() == 3
    assert sandbox.submit(os.getpid).result() == child != os.getpid()
    assert not _kept


def test_a_crash_and_a_hang_are_one_line_and_an_error_is_itself(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.submit(_print).result()
    with pytest.raises(ZeroDivisionError):
        sandbox.answer(sandbox.submit(divmod, 1, 0), "a.tflite", 60)
    with pytest.raises(TfpruneError, match=r"^a\.tflite takes longer than 0 s"):
        sandbox.answer(sandbox.submit(time.sleep, 0.5), "a.tflite", 0.05)
    with pytest.raises(TfpruneError, match=r"^a\.tflite crashes .*SIGSEGV"):
        sandbox.answer(sandbox.submit(_die), "a.tflite", 60)
    # The next call has a new child.
    assert sandbox.answer(sandbox.submit(divmod, 7, 2), "a.tflite", 60) == (3, 1)
    assert "of the child" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_this_process_ends_at_once_and_its_child_with_it() -> None:
    code = (
        "import os, time; from tfprune.formats.sandbox import shared;"
        "print(shared(0).submit(os.getpid).result(), flush=True);"
        "shared(0).submit(time.sleep, 60){}"
    )
    for end in ("", "; time.sleep(0.2); os.kill(os.getpid(), 9)"):
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code.format(end)], stdout=subprocess.PIPE)
        child = int(done.stdout)
        while psutil.pid_exists(child):
            time.sleep(0.1)
        assert time.monotonic() - begun < 40


def test_a_name_has_one_sandbox() -> None:
    assert shared("a") is shared("a") is not shared("b")


def test_a_relative_path_is_the_same_file_after_this_process_changed_its_directory(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("first", "second"):
        (tmp_path / each).mkdir()
        monkeypatch.chdir(tmp_path / each)
        assert sandbox.run(os.getcwd, what="this", timeout=60) == str(tmp_path / each)
