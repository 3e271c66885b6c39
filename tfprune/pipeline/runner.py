"""Runs a pipeline: every job once, and the report at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.files import write_json
from tfprune.pipeline import provenance
from tfprune.pipeline.executors import Execution, Say, Workers, do_all, order_for
from tfprune.pipeline.forecast import Forecast
from tfprune.pipeline.inputs import RunData, budget_mistakes, check_requirements
from tfprune.pipeline.jobs import Job, plan_jobs
from tfprune.pipeline.shared import SharedStore
from tfprune.pipeline.spec import Pipeline, checked_seeds
from tfprune.pipeline.store import Store
from tfprune.quiet import start_keras
from tfprune.report import write_report
from tfprune.report.records import RunRecord, read_record
from tfprune.report.run import RUN


def run(
    pipeline: Pipeline,
    *,
    out: Path = Path("saved_models"),
    data_dir: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    say: Say = lambda line: None,
    progress: bool = False,
    execution: Execution | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Path:
    """Runs a pipeline, or what is missing of it.

    Args:
        pipeline: what to run.
        out: the run is written to `out / pipeline.name`.
        data_dir: where tensorflow-datasets keeps its data; see `tfprune.data.load`.
        seeds: instead of the pipeline's.
        only: just these variants; empty for all.
        say: told in one line what happens next.
        progress: whether to show progress bars on stderr, where this process does the jobs.
        execution: where steps and deliveries are done; here if not given. Files are timed here,
            when all else is done.
        store: an address of fsspec, such as "s3://bucket/runs", or a folder: finished steps and
            variants are taken from there, and put there; see docs/cluster.md.

    Returns:
        The directory of the run: a folder a variant and seed with its artifacts, `steps/` with
        every finished step, and the report.

    Raises:
        UsageError: a variant is unknown, or a format needs a package that is not installed.
        TfpruneError: data is missing, or the directory or the store cannot be written.
    """
    seeds = _asked(pipeline, seeds, only, data_dir)
    directory = out / pipeline.name
    results = open_store(directory, say, store, execution)
    check_writable_run(directory)
    images = RunData(pipeline.data, data_dir, directory)
    with results.session() as session:
        jobs = plan_jobs(pipeline, directory, images.sha256, seeds=seeds, only=only)
        exchange(jobs, results, say)
        missing = [job for job in jobs if not job.finished]
        about = {
            "name": pipeline.name,
            "pipeline": _recorded_pipeline(pipeline),
            "seeds": list(seeds or pipeline.seeds),
            "data": images.note,
            "data_sha256": images.sha256,
        }
        if missing:
            say(images.note)
            for line in budget_mistakes(pipeline):
                say(f"note: {line}")
            with _recorded(results, about, session) as commit:
                do_jobs(
                    missing,
                    pipeline,
                    results,
                    images,
                    commit,
                    session,
                    say,
                    progress=progress,
                    execution=execution,
                )
        elif _same(directory / RUN, about) and (directory / "report.html").is_file():
            return directory
        else:
            _note(results, about, lambda sessions: None)
    write_report(directory)
    return directory


def open_store(
    directory: Path,
    say: Say,
    address: str | os.PathLike[str] | None,
    execution: Execution | None = None,
) -> Store:
    """The store of a run, with the shared one that it has part in.

    Args:
        directory: of the run.
        say: told in one line what is waited for.
        address: of the shared store; None for none.
        execution: where jobs are done.

    Raises:
        UsageError: the address cannot be.
        TfpruneError: nothing can be written there, which is found before all work.
    """
    if address is None:
        return Store(directory, say)
    shared = SharedStore(address, directory.name)
    if shared.is_of_this_process and execution is not None and not execution.is_local:
        raise UsageError(
            f"--store {shared.address} is memory of this process: give workers another address"
        )
    shared.check()
    return Store(directory, say, shared)


def exchange(jobs: Iterable[Job], store: Store, say: Say) -> None:
    """Fetches what only the shared store has, and puts there what only the run has.

    Args:
        jobs: of the run, finished or not.
        store: of the run.
        say: told in one line what was fetched and put.

    Raises:
        TfpruneError: the shared store cannot be listed.
    """
    if store.shared is None:
        return
    known = store.shared.names()
    fetched = put = 0
    for job in jobs:
        name = job.shared_name
        if name is None:
            continue
        if job.finished:
            if name not in known:
                put += store.share(job.folder, job.identity, name)
        elif name in known:
            fetched += store.fetch(job.folder, job.identity, name)
    if fetched:
        say(f"{fetched} finished tasks fetched from {store.shared.address}")
    if put:
        say(f"{put} finished tasks put into {store.shared.address}")


def _recorded_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline as a run's record keeps it, its budget without what it does not limit."""
    table = pipeline.model_dump(mode="json", exclude={"training", "rounds", "sweep"})
    if pipeline.budget is not None:
        table["budget"] = pipeline.budget.model_dump(mode="json", exclude_none=True)
    return table


def forecast(
    pipeline: Pipeline,
    *,
    out: Path = Path("saved_models"),
    data_dir: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    say: Say = lambda line: None,
    store: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """What `run` with the same arguments would do, what is done, and what the rest will take.

    Where nothing of the run is recorded yet, a few steps of the model are timed.

    Returns:
        The table of `Forecast.table`.

    Raises:
        UsageError: a variant is unknown.
        TfpruneError: data is missing, or the store cannot be listed.
    """
    seeds = _asked(pipeline, seeds, only, data_dir)
    directory = out / pipeline.name
    images = RunData(pipeline.data, data_dir, directory)
    jobs = plan_jobs(pipeline, directory, images.sha256, seeds=seeds, only=only)
    shared = {} if store is None else SharedStore(store, directory.name).names()
    known = Forecast(pipeline, directory)
    if known.knows_nothing and not all(job.finished or job.shared_name in shared for job in jobs):
        say("nothing is recorded yet: timing a few steps of the model")
        start_keras()
        from tfprune.pipeline.execution import probe

        known = Forecast(pipeline, directory, probe(pipeline, images.dataset))
    return known.table(jobs, shared)


def do_jobs(
    missing: list[Job],
    pipeline: Pipeline,
    store: Store,
    images: RunData,
    commit: str,
    session: str,
    say: Say,
    *,
    progress: bool = False,
    execution: Execution | None = None,
    workers: Workers | None = None,
) -> None:
    """Does jobs that are not finished, in the order of their plan.

    Args:
        missing: the jobs.
        pipeline: what they are of.
        store: where their results go.
        images: the data of the run.
        commit: of the code.
        session: of the run; see `Store.session`.
        say: told in one line what happens next.
        progress: whether to show progress bars.
        execution: where steps and deliveries are done; here if not given.
        workers: of that execution, for a caller that has more jobs for them later and ends them;
            started and ended here if not given.
    """
    # What a device needs is missed before the first training, and not after the last.
    for name in dict.fromkeys(job.name for job in missing if job.kind == "device"):
        if said := pipeline.device(name).missing():
            say(f"left out: {said}")
    for name in dict.fromkeys(job.name for job in missing if job.kind == "step"):
        pipeline.steps[name].check_installed()
    spread = False
    if execution is not None and not execution.is_local:
        others = [job for job in missing if job.kind in ("step", "delivery")]
        if others:
            _spread(others, pipeline, store, images, commit, session, say, execution, workers)
            spread = True
        # What takes time is timed here, alone, when nothing else is under way.
        missing = [job for job in missing if job.kind not in ("step", "delivery")]
        if not missing:
            return
    dataset = images.dataset
    start_keras()
    from tfprune.pipeline.execution import Executor

    executor = Executor(pipeline, store, dataset, commit)
    if not spread:
        executor.check_budget()
        executor.check_formats(_delivered(missing))
    for place, job in enumerate(missing):
        title = f"[{place + 1}/{len(missing)}] {job.describe(pipeline)}"
        say(title)
        known = Forecast(pipeline, store.directory)
        later = missing[place + 1 :]
        label = title if progress else None
        make = partial(executor.do, job, label, partial(_after, known, later))
        store.finish(job.folder, job.identity, make, job.shared_name)


def _spread(
    jobs: list[Job],
    pipeline: Pipeline,
    store: Store,
    images: RunData,
    commit: str,
    session: str,
    say: Say,
    execution: Execution,
    started: Workers | None,
) -> None:
    """Does steps and deliveries on other processes."""
    if not pipeline.model.reference.is_net or (pipeline.budget and pipeline.figure is None):
        # Only the model tells what is limited and what can be written: it is looked at here,
        # before all work.
        start_keras()
        from tfprune.pipeline.execution import Executor

        executor = Executor(pipeline, store, images.dataset, commit)
        executor.check_budget()
        executor.check_formats(_delivered(jobs))
    table = _recorded_pipeline(pipeline)
    address = None if store.shared is None else store.shared.address
    order = order_for(
        store.directory, session, address, table, images.data_dir, images.sha256, commit
    )
    workers = started or execution.start()
    try:
        say(f"{len(jobs)} tasks for {workers.size} workers ({execution.executor})")
        do_all(
            jobs, order, workers, lambda job: job.describe(pipeline), say, partial(_arrive, store)
        )
    finally:
        if started is None:
            workers.close()


def _arrive(store: Store, job: Job) -> None:
    """Fetches what a worker without the folder of the run has made."""
    if not store.fetch(job.folder, job.identity, job.shared_name):
        store.missing(job.name, job.seed)


def _delivered(jobs: list[Job]) -> list[str]:
    """The variants among some jobs that are delivered."""
    return list(dict.fromkeys(job.name for job in jobs if job.kind == "delivery"))


def _after(known: Forecast, later: list[Job], seconds_per_epoch: float) -> float:
    return sum(known.seconds(job, seconds_per_epoch) for job in later)


@contextmanager
def _recorded(store: Store, about: dict[str, Any], session: str) -> Iterator[str]:
    """Records that a run begins, and that it ended; a killed one has no end."""
    commit = provenance.commit()
    begun: dict[str, Any] = {
        "id": session,
        "command": provenance.command(),
        "commit": commit,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "seeds": about["seeds"],
        "begun": _now(),
        "ended": None,
    }
    _note(store, about, lambda sessions: sessions.append(begun))

    def end(sessions: list[dict[str, Any]]) -> None:
        for each in sessions:
            if each.get("id") == session:
                each["ended"] = _now()

    yield commit
    _note(store, about, end)


def _note(
    store: Store, about: dict[str, Any], change: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Writes the record of the run anew; its sessions are kept, and changed in place."""
    with store.lock("run", "waiting for another run to write its record"):
        path = store.directory / RUN
        before = read_record(path, RunRecord) if path.is_file() else {}
        sessions = before.get("sessions", [])
        change(sessions)
        # Devices that were asked for later stay.
        later = {"devices": before["devices"]} if "devices" in before else {}
        write_json(path, {**about, **later, "sessions": sessions})


def _same(path: Path, about: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    known = read_record(path, RunRecord)
    return all(known.get(name) == value for name, value in about.items())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _asked(
    pipeline: Pipeline, seeds: Sequence[int] | None, only: Sequence[str], data_dir: str | None
) -> list[int] | None:
    """The seeds, after all that can be checked before the first image is loaded."""
    for variant in only:
        if variant not in pipeline.variants:
            raise UsageError(
                f"the pipeline {pipeline.name!r} has no variant {variant!r}: "
                f"{did_you_mean(variant, pipeline.variants)}"
            )
    check_requirements(pipeline, data_dir, only)
    return checked_seeds(seeds) if seeds else None


def check_writable_run(directory: Path) -> None:
    """Makes the folder of a run, or fails before hours of training instead of after.

    Raises:
        TfpruneError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TfpruneError(
            f"{directory} cannot be written ({error.strerror}): "
            "give --out a directory you can write to"
        ) from error
