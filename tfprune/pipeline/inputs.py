"""What a pipeline needs that is not in its file: images, files, packages.

All of it can be checked without loading an image or TensorFlow; the images themselves are known by
their hash, and loaded when something needs them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.sources import EMBEDDED
from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.files import write_json
from tfprune.formats import check_installed
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.spec import DataSpec, Pipeline
from tfprune.pipeline.store import key
from tfprune.report.budgets import mistakes
from tfprune.report.records import Record, read_record

if TYPE_CHECKING:
    from tfprune.data import Dataset

_CACHE = "data.json"


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
    check_data(pipeline.data.name, data_dir)
    pipeline.model.reference.check_files()


def budget_mistakes(pipeline: Pipeline) -> list[str]:
    """What of a pipeline's budget fits nothing that it delivers, a line a mistake.

    Args:
        pipeline: what is to be run.
    """
    if pipeline.budget is None:
        return []
    planned = {variant: pipeline.delivered(variant)[1] for variant in pipeline.variants}
    return [f"budget: {said}" for said in mistakes(pipeline.budget, planned)]


def check_budget(pipeline: Pipeline) -> None:
    """Checks that every rule of a pipeline's budget is for something that it delivers.

    Raises:
        UsageError: one is for nothing, and `tfprune check` could not judge the run.
    """
    for said in budget_mistakes(pipeline):
        raise UsageError(said)


def data_root(data_dir: str | None) -> Path:
    """Where tensorflow-datasets keeps its sets.

    Args:
        data_dir: where a person said; else TFDS_DATA_DIR, else its own default.
    """
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def base_name(name: str) -> str:
    """The name of a data set without its config and version."""
    return name.partition(":")[0].partition("/")[0]


def check_data(name: str, data_dir: str | None = None) -> None:
    """Checks that a data set is one of tensorflow-datasets, or lies in its directory.

    Args:
        name: as `tfprune.data.load` takes it.
        data_dir: likewise.

    Raises:
        UsageError: it is neither; the message names the nearest.
    """
    base = base_name(name)
    # What is prepared in the directory needs no code in tensorflow-datasets; what has a namespace
    # is a community's, whose names only the network knows.
    if name in EMBEDDED or (":" in name and not name.partition(":")[2][:1].isdigit()):
        return
    plain = base.isidentifier()
    if plain and len(base) < 128 and (data_root(data_dir) / base).is_dir():
        return
    import tensorflow_datasets

    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    if base not in known:
        hint = did_you_mean(
            base[:128].lower(), [*known, *EMBEDDED], "see tensorflow_datasets' catalog for names"
        )
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise UsageError(f"unknown data set {shown!r}: {hint}")


class _Known(Record):
    """What is remembered of a data set."""

    signature: str | None
    sha256: str
    note: str


class Images:
    """A data set whose hash is remembered beside the run.

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
        self._data_dir = data_dir
        self._cache = run / _CACHE

    @cached_property
    def dataset(self) -> Dataset:
        """The images themselves."""
        from tfprune.quiet import start_keras

        start_keras()
        from tfprune import data

        return data.load(
            self._spec.name,
            self._data_dir,
            validation=self._spec.validation,
            image_size=self._spec.image_size,
            limit=self._spec.limit,
        )

    @property
    def sha256(self) -> str:
        """The hash of every image and label, and of how they are split."""
        return str(self._known["sha256"])

    @property
    def note(self) -> str:
        """What the images are, for people."""
        return str(self._known["note"])

    @cached_property
    def _known(self) -> dict[str, Any]:
        signature = self._signature()
        if signature is not None and self._cache.is_file():
            try:
                known = read_record(self._cache, _Known)
            except TfpruneError:
                # It is only a cache: the images themselves say the same.
                known = {}
            if known.get("signature") == signature:
                return known
        dataset = self.dataset
        fresh = {
            "signature": signature,
            "sha256": _content(dataset),
            "note": dataset.note,
        }
        # A forecast of a run that does not exist leaves nothing behind.
        if self._cache.parent.is_dir():
            write_json(self._cache, fresh)
        return fresh

    def _signature(self) -> str | None:
        """What changes when the files do; None where they are not where they can be looked at."""
        installed = versions()
        about = {
            "spec": self._spec.model_dump(mode="json"),
            "versions": {
                name: installed[name]
                for name in ("tensorflow", "tensorflow-datasets", "scikit-learn")
            },
        }
        if self._spec.name in EMBEDDED:
            return key(about)
        name, root = base_name(self._spec.name), data_root(self._data_dir)
        files = sorted(path for path in (root / name).rglob("*") if path.is_file())
        if not files:
            return None
        stats = [(path, path.stat()) for path in files]
        return key(
            {
                **about,
                "files": [
                    [path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]
                    for path, stat in stats
                ],
            }
        )


def _content(dataset: Dataset) -> str:
    digest = hashlib.sha256(repr(dataset.classes).encode())
    for split in (dataset.train, dataset.validation, dataset.test):
        for array in (split.images, split.labels):
            digest.update(repr((array.shape, str(array.dtype))).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
