"""What a worker does: one job of a run that another process plans.

What a worker is told is plain text, so that it travels to another machine. Importing this module
loads neither Keras nor the tables of pipeline files: modules of the user's, which may add kinds of
steps, are imported before these.
"""

from __future__ import annotations

import functools
import json
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfprune.errors import RefusedError, TfpruneError, UsageError
from tfprune.functions import IMPORTS

if TYPE_CHECKING:
    from tfprune.pipeline.execution import Executor
    from tfprune.pipeline.jobs import Job, JudgedOn

# What the bits of a result depend on beside the data and the pipeline.
DECIDING = ("keras", "tensorflow")
# Kinds of errors that the planning process tells apart, the last one any.
_KINDS: tuple[type[TfpruneError], ...] = (UsageError, RefusedError, TfpruneError)


@dataclass(frozen=True)
class Order:
    """What all jobs of a run have in common.

    Attributes:
        directory: of the run, absolute; without a shared store every machine must see the same
            folder there.
        session: of the run, whose lock file shows that the folder is the same.
        store: the address of the shared store; None for none.
        place: the working directory, from which relative paths of the pipeline count.
        pipeline: as JSON.
        data_dir: where tensorflow-datasets keeps its sets.
        images: the hash of the data.
        commit: of the code.
        imports: modules to import first, as `TFPRUNE_IMPORT` names them.
        versions: of the packages in `DECIDING`, in their order.
    """

    directory: str
    session: str
    store: str | None
    place: str
    pipeline: str
    data_dir: str | None
    images: str
    commit: str
    imports: str
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A job without what it works on; its folder is below that of the run."""

    kind: str
    name: str
    variant: str
    seed: int
    folder: str
    identity: str
    split: str


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        seconds: that it took.
        warnings: that it gave, one line each.
        error: one line; empty where the job is done.
        kind: of the error: whose mistake it is.
    """

    seconds: float
    warnings: tuple[str, ...] = ()
    error: str = ""
    kind: type[TfpruneError] = TfpruneError

    def raised(self) -> TfpruneError:
        """The error."""
        return self.kind(self.error)


def packed(job: Job, directory: Path) -> tuple[Link, ...]:
    """A step or a delivery with its chain, in order, without nesting: chains may be long.

    Args:
        job: what to do.
        directory: of the run, absolute.
    """
    chain = (*job.before, job)
    return tuple(
        Link(
            each.kind,
            each.name,
            each.variant,
            each.seed,
            each.folder.absolute().relative_to(directory).as_posix(),
            each.identity,
            each.split,
        )
        for each in chain
    )


def unpacked(links: tuple[Link, ...], directory: Path) -> Job:
    """The job that `packed` packed, in a directory of the run on this machine."""
    from tfprune.pipeline.jobs import Job

    job: Job | None = None
    for link in links:
        values: dict[str, Any] = {**vars(link), "folder": directory / link.folder}
        job = Job(**values, after=job)
    assert job is not None
    return job


def perform(order: Order, links: tuple[Link, ...]) -> JobOutcome:
    """Does a job, in whatever process.

    Args:
        order: of the run.
        links: the job and its chain.

    Returns:
        How it ended; nothing is raised that an error of the job could be mistaken for.
    """
    begun = time.perf_counter()
    error, kind = "", _KINDS[-1]
    with warnings.catch_warnings(record=True) as caught:
        try:
            executor = _executor(order)
            job = unpacked(links, executor.store.directory)
            _check_inputs(order, job)
            make = functools.partial(executor.do, job, None, None)
            executor.store.finish(job.folder, job.identity, make, job.shared_name)
        except TfpruneError as raised:
            error = str(raised)
            kind = next(each for each in _KINDS if isinstance(raised, each))
        # Whatever it is, the process that planned the job tells it.
        except Exception as raised:
            said = " ".join(str(raised).split())[:300] or "no message"
            error = f"unexpected {type(raised).__name__}: {said}"
    told = tuple(" ".join(str(each.message).split()) for each in caught)
    return JobOutcome(time.perf_counter() - begun, told, error, kind)


@functools.lru_cache(maxsize=1)
def _executor(order: Order) -> Executor:
    """What does the jobs of a run; its data are read once in each worker.

    Raises:
        TfpruneError: this machine has another folder, other data or other versions.
    """
    import platform

    here = platform.node()
    directory = _directory(order, here)
    try:
        os.chdir(order.place)
    except OSError:
        if order.store is None:
            raise TfpruneError(
                f"{order.place} does not exist on the machine {here}: run from a folder that all "
                "machines share under the same path"
            ) from None
        # A pipeline without relative paths does not need it.
        os.chdir(directory)
    os.environ[IMPORTS] = order.imports
    from tfprune.pipeline import provenance

    found = tuple(provenance.versions()[name] for name in DECIDING)
    for name, own, asked in zip(DECIDING, found, order.versions, strict=True):
        if own != asked:
            raise TfpruneError(
                f"the machine {here} has {name} {own}, and the run was planned with {asked}: "
                "install the same on all"
            )
    from tfprune.quiet import start_keras

    start_keras()
    from tfprune.model.loading import import_layers

    # Before the tables of pipeline files are made, which then hold all kinds of steps.
    import_layers(*(name for name in order.imports.split(os.pathsep) if name))
    from tfprune.pipeline.execution import Executor
    from tfprune.pipeline.inputs import content_hash, load_data
    from tfprune.pipeline.shared import SharedStore
    from tfprune.pipeline.spec import Pipeline
    from tfprune.pipeline.store import Store

    shared = None if order.store is None else SharedStore(order.store, Path(order.directory).name)
    pipeline = Pipeline.model_validate(json.loads(order.pipeline))
    dataset = load_data(pipeline.data, order.data_dir)
    if (dataset.fingerprint or content_hash(dataset)) != order.images:
        raise TfpruneError(
            f"{pipeline.data.name} on the machine {here} has other examples than where the run was "
            "planned: give all machines the same data"
        )
    return Executor(pipeline, Store(directory, shared=shared), dataset, order.commit)


def _directory(order: Order, here: str) -> Path:
    """The folder of the run, or one of this machine where it does not see that.

    What lies in the latter has lasted since the last worker that was lost here, so a training goes
    on after its last epoch.
    """
    from tfprune.files import cache_directory, document_hash
    from tfprune.pipeline.store import session_file

    directory = Path(order.directory)
    if session_file(directory, order.session).is_file():
        return directory
    if order.store is None:
        raise TfpruneError(
            f"{directory} is not the folder of the run on the machine {here}: give --out a folder "
            "that all machines share under the same path, or --store an address"
        )
    name = f"{directory.name}-{document_hash(order.store)}"
    own = (cache_directory() / "workers" / name / directory.name).absolute()
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TfpruneError(
            f"{own} on the machine {here} cannot be written ({error.strerror}): give "
            "TFPRUNE_CACHE_DIR there a folder that can be"
        ) from error
    return own


def _check_inputs(order: Order, job: Job) -> None:
    """Checks that this machine has the files and packages that a job was planned with.

    Raises:
        TfpruneError: with what is here the result would be another one.
    """
    if job.identity not in _identities(order, job.seed, job.split):
        import platform

        raise TfpruneError(
            f"the machine {platform.node()} has other files of the model or the task, or other "
            "packages, than where the run was planned: give all machines the same"
        )


@functools.lru_cache(maxsize=8)
def _identities(order: Order, seed: int, split: JudgedOn) -> frozenset[str]:
    """The identities of all jobs of a seed, as this machine plans them."""
    from tfprune.pipeline.jobs import plan_jobs

    executor = _executor(order)
    directory = executor.store.directory
    jobs = plan_jobs(executor.pipeline, directory, order.images, seeds=[seed], split=split)
    return frozenset(job.identity for job in jobs)
