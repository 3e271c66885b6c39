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
    from tfprune.pipeline.jobs import Job

# What the bits of a result depend on beside the data and the pipeline.
DECIDING = ("keras", "tensorflow")
# Kinds of errors that the planning process tells apart, the last one any.
_KINDS: tuple[type[TfpruneError], ...] = (UsageError, RefusedError, TfpruneError)


@dataclass(frozen=True)
class Order:
    """What all jobs of a run have in common.

    Attributes:
        directory: of the run, absolute; every machine must see the same folder there.
        session: of the run, whose lock file shows that the folder is the same.
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
    place: str
    pipeline: str
    data_dir: str | None
    images: str
    commit: str
    imports: str
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A job without what it works on."""

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


def packed(job: Job) -> tuple[Link, ...]:
    """A step or a delivery with its chain, in order, without nesting: chains may be long."""
    chain = (*job.before, job)
    return tuple(
        Link(
            each.kind,
            each.name,
            each.variant,
            each.seed,
            str(each.folder.absolute()),
            each.identity,
            each.split,
        )
        for each in chain
    )


def unpacked(links: tuple[Link, ...]) -> Job:
    """The job that `packed` packed."""
    from tfprune.pipeline.jobs import Job

    job: Job | None = None
    for link in links:
        values: dict[str, Any] = {**vars(link), "folder": Path(link.folder)}
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
            from tfprune.pipeline.store import Store

            job = unpacked(links)
            make = functools.partial(executor.do, job, None, None)
            Store(executor.directory).finish(job.folder, job.identity, make)
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

    from tfprune.pipeline.store import session_file

    directory, here = Path(order.directory), platform.node()
    if not session_file(directory, order.session).is_file():
        raise TfpruneError(
            f"{directory} is not the folder of the run on the machine {here}: give --out a folder "
            "that all machines share under the same path"
        )
    try:
        os.chdir(order.place)
    except OSError:
        raise TfpruneError(
            f"{order.place} does not exist on the machine {here}: run from a folder that all "
            "machines share under the same path"
        ) from None
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
    from tfprune.pipeline.spec import Pipeline

    pipeline = Pipeline.model_validate(json.loads(order.pipeline))
    dataset = load_data(pipeline.data, order.data_dir)
    if (dataset.fingerprint or content_hash(dataset)) != order.images:
        raise TfpruneError(
            f"{pipeline.data.name} on the machine {here} has other examples than where the run was "
            "planned: give all machines the same data"
        )
    return Executor(pipeline, directory, dataset, order.commit)
