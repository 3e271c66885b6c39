"""The runs in a directory: listed, and freed of what nothing refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json
from tfprune.pipeline.plan import Task, plan
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.store import Store, partial
from tfprune.report.run import RUN


@dataclass(frozen=True)
class Garbage:
    """Something that nothing refers to.

    Attributes:
        path: a folder or file.
        bytes: what deleting it frees.
    """

    path: Path
    bytes: int


def list_runs(out: Path) -> pd.DataFrame:
    """The runs in a directory.

    Args:
        out: such as `saved_models`.

    Returns:
        One row a run, with columns run, state ("finished", "running", "stopped", or "unknown" for
        one of another version, or whose `.keras` file is gone), done and tasks (how many are
        finished, of how many), variants, seeds, begun and ended of its last session (ISO 8601),
        bytes on disk.
    """
    rows = []
    for path in sorted(out.glob(f"*/{RUN}")):
        record, directory = read_json(path), path.parent
        last = record["sessions"][-1] if record["sessions"] else {"begun": None, "ended": None}
        try:
            tasks = _tasks(directory, record)
        except TfpruneError:
            # One run that cannot be understood is no reason to hide the others.
            tasks = []
        done = sum(task.finished for task in tasks)
        if Store(directory).sessions():
            state = "running"
        elif not tasks:
            state = "unknown"
        else:
            state = "finished" if done == len(tasks) else "stopped"
        rows.append(
            {
                "run": directory.name,
                "state": state,
                "done": done,
                "tasks": len(tasks),
                "variants": len(record["pipeline"]["variants"]),
                "seeds": len(record["seeds"]),
                "begun": last["begun"],
                "ended": last["ended"],
                "bytes": _size(directory),
            }
        )
    columns = ["run", "state", "done", "tasks", "variants", "seeds", "begun", "ended", "bytes"]
    return pd.DataFrame(rows, columns=columns)


def collect(directory: Path, *, delete: bool) -> list[Garbage]:
    """Finds, and deletes, what nothing in a run refers to.

    Delivered variants are results and stay, with the steps they were made by; so do the tasks of
    the pipeline as it was last run, finished or begun. Other steps, what was begun for other
    settings, and left-over temporary files go.

    Args:
        directory: of the run.
        delete: whether to delete it, or only to look.

    Returns:
        What there is, or was.

    Raises:
        TfpruneError: it is no run, or the run is going on.
    """
    if not (directory / RUN).is_file():
        raise TfpruneError(f"{directory} is no run: give a folder such as saved_models/digits")
    store = Store(directory)
    with store.lock("gc", "waiting for another `tfprune runs gc`"):
        if store.sessions():
            raise TfpruneError(f"{directory} is being run: wait until it ends, then free it")
        found = [Garbage(path, _size(path)) for path in _unreferred(directory)]
        for each in found if delete else ():
            if each.path.is_dir():
                shutil.rmtree(each.path)
            else:
                each.path.unlink()
    return found


def _unreferred(directory: Path) -> Iterator[Path]:
    record = read_json(directory / RUN)
    kept = set()
    for task in _tasks(directory, record):
        kept |= {task.folder, partial(task.folder, task.identity)}
    for path in directory.glob(f"*/seed-*/{RECORD}"):
        kept.add(path.parent)
        kept |= {directory / "steps" / name for name in read_json(path).get("steps", [])}
    there = {*directory.glob("steps/*"), *directory.glob("*/.*.partial")} - kept
    there |= set(directory.rglob(".partial-*"))
    # What lies in another one goes with it.
    yield from sorted(path for path in there if there.isdisjoint(path.parents))


def _tasks(directory: Path, record: dict[str, Any]) -> list[Task]:
    """The tasks of a run as it was last started."""
    try:
        pipeline = Pipeline.model_validate(record["pipeline"])
    except ValidationError as error:
        raise TfpruneError(
            f"{directory / RUN} is of another version of tfprune: run its pipeline again"
        ) from error
    return plan(pipeline, directory, record["data_sha256"], seeds=record["seeds"])


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
