"""What a pipeline needs that is not in its file: data, files, packages.

All of it can be checked without loading an example or TensorFlow; the examples themselves are known
by their hash, and loaded when something needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.sources import Request, find_source
from tfprune.data.splits import Arrays, leaves
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import document_hash, write_json
from tfprune.formats import check_installed
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.spec import DataSpec, Pipeline
from tfprune.report.budgets import mistakes
from tfprune.report.records import Record, read_record

if TYPE_CHECKING:
    from tfprune.data import Dataset

_CACHE = "data.json"
_HASHED_AT_ONCE = 256


def check_requirements(
    pipeline: Pipeline, data_dir: str | None = None, only: Sequence[str] = ()
) -> None:
    """Checks that what a pipeline names is there, as far as its names say.

    Args:
        pipeline: what is to be run.
        data_dir: where tensorflow-datasets keeps its sets; see `tfprune.data.load`.
        only: just these variants; empty for all.

    Raises:
        UsageError: the data set is unknown, or a format needs a package that is not installed.
        TfpruneError: a file does not exist.
    """
    for variant in only or pipeline.variants:
        check_installed(pipeline.delivered(variant)[1])
    check_data(pipeline.data, data_dir)
    pipeline.model.reference.check_files()


def budget_mistakes(pipeline: Pipeline) -> list[str]:
    """What of a pipeline's budget fits nothing that it delivers, a line a mistake.

    Args:
        pipeline: what is to be run.
    """
    if pipeline.budget is None:
        return []
    planned = {variant: pipeline.delivered(variant)[1] for variant in pipeline.variants}
    return [
        f"budget: {said}" for said in mistakes(pipeline.budget, planned, pipeline.device_titles)
    ]


def check_budget(pipeline: Pipeline) -> None:
    """Checks that every rule of a pipeline's budget is for something that it delivers.

    Raises:
        UsageError: one is for nothing, and `tfprune check` could not judge the run.
    """
    for said in budget_mistakes(pipeline):
        raise UsageError(said)


def request(spec: DataSpec, data_dir: str | None = None) -> Request:
    """How a pipeline asks for its data set."""
    return Request(data_dir=data_dir, **_arguments(spec))


def _arguments(spec: DataSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in DataSpec.model_fields if name != "name"}


def check_data(spec: DataSpec, data_dir: str | None = None) -> None:
    """Checks that a data set is there, as far as that can be seen without reading it.

    Args:
        spec: what the pipeline says.
        data_dir: where tensorflow-datasets keeps its sets; see `tfprune.data.load`.

    Raises:
        UsageError: it is not there; the message names the nearest.
    """
    find_source(spec.name, request(spec, data_dir)).check()


def load_data(
    spec: DataSpec,
    data_dir: str | None = None,
    *,
    seed: int = 0,
    usual_size: tuple[int, int] | None = None,
) -> Dataset:
    """Loads a data set as a pipeline asks for it.

    Args:
        spec: what the pipeline says.
        data_dir: where tensorflow-datasets keeps its sets.
        seed: chooses the validation examples.
        usual_size: (height, width) for images that vary in size, if the pipeline gives none.
    """
    from tfprune.quiet import start_keras

    start_keras()
    from tfprune import data

    return data.load(
        spec.name,
        data_dir,
        seed=seed,
        usual_size=usual_size,
        **_arguments(spec),
    )


class _Known(Record):
    """What is remembered of a data set."""

    signature: str | None
    sha256: str
    note: str


class RunData:
    """The data set of a run, whose hash is remembered beside the run.

    A finished run is recognised without reading a data set that takes longer to load than all
    else. What is remembered holds as long as the files of the set keep their sizes and times, in
    the manner of git's index.

    Args:
        spec: what the pipeline says.
        data_dir: where tensorflow-datasets keeps its sets; see `tfprune.data.load`.
        run: the directory of the run.
    """

    def __init__(self, spec: DataSpec, data_dir: str | None, run: Path) -> None:
        self._spec = spec
        self.data_dir = data_dir
        self._cache = run / _CACHE

    @cached_property
    def dataset(self) -> Dataset:
        """The examples themselves."""
        return load_data(self._spec, self.data_dir)

    @property
    def sha256(self) -> str:
        """The hash of every example, and of how they are split."""
        return str(self._known["sha256"])

    @property
    def note(self) -> str:
        """What the examples are, for people."""
        return str(self._known["note"])

    @cached_property
    def _known(self) -> dict[str, Any]:
        signature = self._signature()
        if signature is not None and self._cache.is_file():
            try:
                known = read_record(self._cache, _Known)
            except TfpruneError:
                # It is only a cache: the examples themselves say the same.
                known = {}
            if known.get("signature") == signature:
                return known
        dataset = self.dataset
        fresh = {
            "signature": signature,
            "sha256": dataset.fingerprint or content_hash(dataset),
            "note": dataset.note,
        }
        # A forecast of a run that does not exist leaves nothing behind.
        if self._cache.parent.is_dir():
            write_json(self._cache, fresh)
        return fresh

    def _signature(self) -> str | None:
        """What changes when the files do; None where that cannot be seen without reading them."""
        seen = find_source(self._spec.name, request(self._spec, self.data_dir)).signature()
        if seen is None:
            return None
        installed = versions()
        return document_hash(
            {
                "spec": self._spec.model_dump(mode="json"),
                "versions": {
                    name: installed[name]
                    for name in ("tensorflow", "tensorflow-datasets", "scikit-learn")
                },
                "files": seen,
            }
        )


def content_hash(dataset: Dataset) -> str:
    """A hash of every example of a data set, and of how they are split."""
    digest = hashlib.sha256(repr(dataset.classes).encode())
    for split in (dataset.train, dataset.validation, dataset.test):
        if isinstance(split, Arrays):
            batches: Iterable[tuple[Any, ...]] = [split.examples.given]
        else:
            batches = split.ordered(_HASHED_AT_ONCE).as_numpy_iterator()
        for batch in batches:
            for array in (leaf for tree in batch for leaf in leaves(tree)):
                digest.update(repr((array.shape, str(array.dtype))).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
