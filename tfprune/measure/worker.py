"""A process of its own that loads and runs one file: `python -m tfprune.measure.worker`.

It reads a request from stdin and answers with one line of JSON on stdout. A file that crashes its
runtime ends this process, and not the one that asks.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

_RUNS = 3
# Where a file takes images of any size, and nobody said which.
_ANY_SIZE = 32
# An honest classifier's image is far below; a file that asks for more is after the memory.
_MOST_VALUES = 1 << 27


def main() -> None:
    """Answers one request."""
    # Libraries print to stdout as they like; the answer has a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    request = json.loads(sys.stdin.read())
    sys.path[:] = dict.fromkeys([*sys.path, *request["paths"]])
    answers.write(json.dumps(_answer(request)) + "\n")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from tfprune.errors import TfpruneError, one_line

    path = Path(request["path"])
    try:
        for module in request["modules"]:
            importlib.import_module(module)
        return _measured(path, request["threads"], request["image_shape"])
    except TfpruneError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    # A damaged graph may load and fail anywhere when it runs: whatever is raised is an answer too.
    except Exception as error:
        said = f"{path} cannot be loaded and run ({one_line(error)}): export it again"
        return {"error": said, "exit_code": 1}


def _measured(path: Path, threads: int | None, image_shape: list[int] | None) -> dict[str, Any]:
    import numpy as np
    import psutil

    from tfprune.errors import TfpruneError
    from tfprune.measure.runtime import load, runtime_module

    # What the libraries themselves take is not the model's: they come before the baseline.
    module = importlib.import_module(runtime_module(path))
    if hasattr(module, "tf"):
        from tfprune.measure.threads import limit_threads

        limit_threads(threads)
        # The first operation of all wakes TensorFlow's devices.
        module.tf.zeros(1)
    _forget_the_peak()
    baseline = psutil.Process().memory_info().rss
    runtime = load(path, threads=threads or 1)
    wanted = image_shape or [_ANY_SIZE] * len(runtime.input_shape)
    fits = len(wanted) == len(runtime.input_shape)
    shape = [
        wanted[axis] if size is None and fits else size or _ANY_SIZE
        for axis, size in enumerate(runtime.input_shape)
    ]
    values = runtime.fixed_batch or 1
    for size in shape:
        # Python's numbers do not overflow.
        values *= size
    if not 0 < values <= _MOST_VALUES:
        raise TfpruneError(f"{path} takes images of shape {shape}: do not trust this file")
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if runtime.fixed_batch in (None, 1):
        call = runtime.one(image)
        for _ in range(_RUNS):
            call()
    else:
        runtime.predict(image[None])
    return {"baseline_bytes": baseline, "peak_bytes": max(_peak(), baseline)}


def _forget_the_peak() -> None:
    """Lets the high-water mark start from what the process has now, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The high-water mark of the resident memory, bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, others KiB.
        return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
