"""Where a result came from: command, commit, versions, machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import tfprune
from tfprune.formats import FORMATS

_PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-model-optimization",
    "tensorflow-datasets",
    "ai-edge-litert",
    *(package for form in FORMATS.values() for package in form.packages),
    "numpy",
    "scikit-learn",
)


@cache
def versions() -> dict[str, str]:
    """The versions of Python, tfprune and the packages that figures depend on."""
    found = {"python": platform.python_version(), "tfprune": tfprune.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory in GiB, and the system."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


@cache
def commit() -> str:
    """The commit of the checkout tfprune runs from, `-dirty` behind it where files differ.

    It is read once a process: a benchmark asks before it writes its first result, and what it
    writes in the checkout then makes no later answer dirty.
    """
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return answer.stdout.strip()


def command() -> str:
    """The command line, without the path of the program, quoted so that a shell takes it again."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _processor() -> str:
    # platform.processor() is empty on most Linux systems.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
