"""The images of a pipeline: known by their hash, loaded when something needs them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.files import write_json
from tfprune.pipeline.provenance import versions
from tfprune.pipeline.requirements import base_name, data_root
from tfprune.pipeline.spec import DataSpec
from tfprune.pipeline.store import key
from tfprune.report.records import Record, read_record

if TYPE_CHECKING:
    from tfprune.data import Dataset

_CACHE = "data.json"


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
        if self._spec.name == "digits":
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
