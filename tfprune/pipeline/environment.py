"""What is here: versions, extras, devices, data, the processor. Nothing that it finds fails it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import tfprune
from tfprune.data.sources.tfds import data_root
from tfprune.errors import one_line
from tfprune.pipeline import provenance

# What runtimes have kernels for, beside the names that Linux gives it on x86 and on ARM.
CPU_FEATURES = {
    "AVX2": ("avx2",),
    "FMA": ("fma",),
    "AVX-512": ("avx512f",),
    "int8 dot products": ("avx512_vnni", "avx_vnni", "asimddp"),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "NEON": ("asimd", "neon"),
}
_TENSORFLOW = """
import json, tensorflow as tf
built = tf.sysconfig.get_build_info()
print(json.dumps({
    "gpus": [each.name for each in tf.config.list_physical_devices("GPU")],
    "cuda": built.get("cuda_version") if built.get("is_cuda_build") else None,
}))
"""
_TENSORFLOW_SECONDS = 120
# Its data sets are folders NAME/VERSION or NAME/CONFIG/VERSION with this file.
_PREPARED = "dataset_info.json"


@dataclass(frozen=True)
class Wanted:
    """A package that tfprune or one of its extras wants.

    Attributes:
        name: as pip knows it.
        bounds: on its version, such as `>=2.0`; empty if any will do.
        version: what is installed; None if it is missing.
        ok: whether it is installed and within the bounds.
    """

    name: str
    bounds: str
    version: str | None
    ok: bool


def environment() -> dict[str, Any]:
    """All that a bug report should say of a machine, as one JSON document.

    Example:
        ```python
        environment()["devices"]["cpu"]  # "ok"
        ```

    Returns:
        `tfprune` and `python`, their versions; `machine`; `cpu_features`, which are None where the
        system does not tell; `requirements`; `extras` with what each still needs; `devices`, `"ok"`
        or what is missing; `data`, the folder of tensorflow-datasets and the sets in it;
        `chromium`, its path; `tensorflow`, its GPUs or why it does not start.
    """
    wanted = dict(_wanted())
    return {
        "tfprune": tfprune.__version__,
        "python": platform.python_version(),
        "machine": provenance.machine(),
        "cpu_features": cpu_features(),
        "requirements": [vars(each) for each in wanted.pop("", [])],
        "extras": {
            extra: [f"{each.name}{each.bounds}" for each in packages if not each.ok]
            for extra, packages in wanted.items()
        },
        "devices": devices(),
        "data": {"folder": str(data_root()), "sets": data_sets()},
        "chromium": shutil.which("chromium"),
        "tensorflow": tensorflow(),
    }


def cpu_features(told: str | None = None) -> dict[str, bool] | None:
    """Which of `CPU_FEATURES` the processor has.

    Args:
        told: what Linux says of the processor; None reads it.

    Returns:
        One entry for each; None where the system does not tell.
    """
    if told is None:
        try:
            told = Path("/proc/cpuinfo").read_text()
        except OSError:
            return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", told, re.M)
    if found is None:
        return None
    flags = set(found[1].split())
    return {name: not flags.isdisjoint(names) for name, names in CPU_FEATURES.items()}


def devices() -> dict[str, str]:
    """For each kind of device `"ok"`, or one line that says what it still needs."""
    from tfprune.devices.registry import kinds, missing

    found = {}
    for kind in kinds():
        options = kind.required_options()
        lacking = f"needs its options: {', '.join(options)}" if options else missing(kind)
        found[kind.key] = lacking or "ok"
    return found


def data_sets() -> list[str]:
    """The data sets that tensorflow-datasets has prepared in its folder."""
    root = data_root()
    files = [*root.glob(f"*/*/{_PREPARED}"), *root.glob(f"*/*/*/{_PREPARED}")]
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in files})


def tensorflow() -> dict[str, Any]:
    """The GPUs that TensorFlow sees, and the CUDA it was built for.

    It is asked in a process of its own, since a processor that lacks what it was built for ends the
    process.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TENSORFLOW],
            capture_output=True,
            text=True,
            timeout=_TENSORFLOW_SECONDS,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            return {"error": said[-1]}
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"it took more than {_TENSORFLOW_SECONDS} s: is the machine busy?"}
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return {"error": one_line(error)}
    return answer


def _wanted() -> Iterator[tuple[str, list[Wanted]]]:
    """What tfprune's own metadata list: the extra, or an empty name, and its packages."""
    try:
        told = metadata("tfprune")
    except PackageNotFoundError:
        return
    listed = [Requirement(line) for line in told.get_all("Requires-Dist") or []]
    for extra in ("", *(told.get_all("Provides-Extra") or [])):
        yield (
            extra,
            [
                _state(each)
                for each in listed
                if (each.marker is None or each.marker.evaluate({"extra": extra}))
                and bool(extra) == ("extra" in str(each.marker))
            ],
        )


def _state(wanted: Requirement) -> Wanted:
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        found = None
    ok = found is not None and wanted.specifier.contains(found, prereleases=True)
    return Wanted(wanted.name, str(wanted.specifier), found, ok)
