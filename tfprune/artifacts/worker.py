"""A process of its own that loads and runs files: `python -m tfprune.artifacts.worker`.

It reads one request a line from stdin and answers with one line on stdout. A file that crashes the
interpreter ends this process, and not the one that asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

# So long nobody asks and it leaves, with what TensorFlow holds of the memory.
IDLE_SECONDS = 120.0


def main() -> None:
    """Answers until stdin ends."""
    # Libraries print to stdout as they like; the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    while line := _next_line():
        request = json.loads(line)
        sys.path[:] = dict.fromkeys([*sys.path, *request["paths"]])
        _import_all(request["modules"])
        if "path" in request:
            answers.write(json.dumps(_answer(request)) + "\n")
            answers.flush()


def _next_line() -> str:
    idle = threading.Timer(IDLE_SECONDS, os._exit, (0,))
    idle.daemon = True
    idle.start()
    try:
        return sys.stdin.readline()
    finally:
        idle.cancel()


def _import_all(modules: list[str]) -> None:
    # A module may be younger than this process.
    importlib.invalidate_caches()
    for module in modules:
        # What is really missed shows when a file is loaded.
        with contextlib.suppress(Exception):
            from tfprune.model.loading import import_layers

            import_layers(module)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from tfprune.artifacts.running import run_artifact
    from tfprune.errors import TfpruneError, one_line

    try:
        feeds = None
        if request["feeds"]:
            with np.load(request["feeds"]) as stored:
                feeds = dict(zip(request["names"], stored.values(), strict=True))
        opened, outputs = run_artifact(Path(request["path"]), feeds)
        np.savez(request["results"], *outputs.values())
    except TfpruneError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    # Whatever a library raises is an answer too.
    except Exception as error:
        said = f"{request['path']} cannot be loaded ({one_line(error)}): export it again"
        return {"error": said, "exit_code": 1}
    return {
        "names": list(outputs),
        "inputs": [dataclasses.asdict(each) for each in opened.inputs],
        "outputs": [dataclasses.asdict(each) for each in opened.outputs],
    }


if __name__ == "__main__":
    main()
