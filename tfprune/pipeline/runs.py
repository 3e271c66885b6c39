"""The runs in a directory: listed, and freed of what nothing refers to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from pydantic import ValidationError

from tfprune.errors import TfpruneError
from tfprune.files import RECORD
from tfprune.pipeline.jobs import Job, plan_jobs
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.store import Store, partial
from tfprune.report.records import ResumableRun, RunRecord, read_record
from tfprune.report.run import RUN, deliveries, planned_seeds


@dataclass(frozen=True)
class Garbage:
    """Something that nothing refers to.

    Attributes:
        path: a folder or file.
        bytes: what deleting it frees.
    """

    path: Path
    bytes: int


def run_folders(out: Path) -> list[Path]:
    """The folders of runs in a directory, those without their `run.json` included.

    Args:
        out: such as `saved_models`.
    """
    marks = (RUN, f"steps/*/{RECORD}", f"*/seed-*/{RECORD}")
    return sorted(
        folder
        for folder in (out.iterdir() if out.is_dir() else ())
        if folder.is_dir() and any(any(folder.glob(mark)) for mark in marks)
    )


def list_runs(out: Path) -> pd.DataFrame:
    """The runs in a directory.

    Args:
        out: such as `saved_models`.

    Returns:
        One row a run, with columns run, state ("finished", "running", "stopped", "damaged" for one
        with a record that cannot be read, or "unknown" for one of another version, or whose
        `.keras` file is gone), done and tasks (how many are finished, of how many), variants,
        seeds, begun and ended of its last session (ISO 8601), bytes on disk, and note, which says
        of a run that is damaged or unknown what is wrong.
    """
    columns = [*_Row.__annotations__]
    return pd.DataFrame([_row(directory) for directory in run_folders(out)], columns=columns)


class _Row(TypedDict, total=False):
    run: str
    state: str
    done: int
    tasks: int
    variants: int
    seeds: int
    begun: str | None
    ended: str | None
    bytes: int
    note: str


def _row(directory: Path) -> _Row:
    """One run; one that cannot be read does not hide the others."""
    row: _Row = {
        "run": directory.name,
        "state": "running" if Store(directory).sessions() else "damaged",
        "done": 0,
        "tasks": 0,
        "variants": 0,
        "seeds": 0,
        "begun": None,
        "ended": None,
        "bytes": _size(directory),
        "note": "",
    }
    try:
        record = read_record(directory / RUN, RunRecord)
    except TfpruneError as error:
        return {**row, "note": str(error)}
    last = record["sessions"][-1] if record["sessions"] else {}
    row |= {
        "variants": len(record["pipeline"]["variants"]),
        "seeds": len(record["seeds"]),
        "begun": last.get("begun"),
        "ended": last.get("ended"),
    }
    going = row["state"] == "running"
    try:
        jobs = _jobs(directory, record)
    except TfpruneError as error:
        return {**row, "state": "running" if going else "unknown", "note": str(error)}
    try:
        done = sum(job.finished for job in jobs)
    except TfpruneError as error:
        return {**row, "tasks": len(jobs), "note": str(error)}
    state = "finished" if done == len(jobs) else "stopped"
    return {**row, "done": done, "tasks": len(jobs), "state": "running" if going else state}


def collect(directory: Path, *, delete: bool) -> list[Garbage]:
    """Finds, and deletes, what nothing in a run refers to.

    Delivered variants are results and stay, with the steps they were made by; so do the jobs of
    the pipeline as it was last run, finished or begun. Other steps, what was begun for other
    settings, and left-over temporary files go.

    Args:
        directory: of the run.
        delete: whether to delete it, or only to look.

    Returns:
        What there is, or was.

    Raises:
        TfpruneError: it is not a run, or the run is in progress.
    """
    if directory.resolve() not in [each.resolve() for each in run_folders(directory.parent)]:
        raise TfpruneError(f"{directory} is not a run: give a folder such as saved_models/digits")
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
    record = read_record(directory / RUN, RunRecord)
    kept = set()
    for job in _jobs(directory, record):
        kept |= {job.folder, partial(job.folder, job.identity)}
    for folder, delivered in deliveries(directory):
        kept.add(folder)
        kept |= {directory / "steps" / name for name in delivered["steps"]}
    there = {*directory.glob("steps/*"), *directory.glob("*/.*.partial")} - kept
    there |= set(directory.rglob(".partial-*"))
    # What lies in another one goes with it.
    yield from sorted(path for path in there if there.isdisjoint(path.parents))


def _jobs(directory: Path, record: dict[str, Any]) -> list[Job]:
    """The jobs of a run as it was last started."""
    try:
        pipeline = Pipeline.model_validate(record["pipeline"])
    except ValidationError as error:
        raise TfpruneError(
            f"{directory / RUN} is of another version of tfprune: run its pipeline again"
        ) from error
    images = read_record(directory / RUN, ResumableRun)["data_sha256"]
    return plan_jobs(pipeline, directory, images, seeds=planned_seeds(record))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
