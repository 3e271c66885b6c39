"""A user's function that returns examples: FILE.py:FUNCTION."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.data.checking import SPLITS, ClassOptions, check_finite, checked, few
from tfprune.data.sources.base import TEST_SHARE, Opened, Source
from tfprune.errors import TfpruneError, UsageError, did_you_mean, one_line
from tfprune.files import document_hash, sha256
from tfprune.functions import FileFunction, call, file_function, imported, is_file_function

if TYPE_CHECKING:
    import tensorflow as tf

    from tfprune.data.splits import Split, Tree

_MIB = 2**20
_FORMS = (
    "(x, y), (x, y, sample weights), a batched tf.data.Dataset, a keras.utils.PyDataset, or a "
    "generator of batches"
)
_EXTRA = ("classes", "version", "allow_missing_classes")
_WHOLE = "iu"

_Trees = tuple[Any, ...]


class PythonFunction(Source):
    """FILE.py:FUNCTION, a function that returns examples.

    Example:
        ```python
        # my_data.py
        def sensors(path="sensors.npy", split=0.8):
            x, y = ...
            return {"train": (x[:800], y[:800]), "test": (x[800:], y[800:])}


        PythonFunction("my_data.py:sensors", Request(options={"split": 0.9})).open()
        ```

    The data options are the arguments of the function. It returns a dict with "train" and, if it
    has them, "validation" and "test"; an object with these attributes; a tuple (train, test) or
    (train, validation, test); or the train split alone. The dict may also have "classes", names in
    the order of the class numbers, "version", which is a part of the fingerprint, and
    "allow_missing_classes".

    Each split is (x, y) or (x, y, sample weights), trees of arrays as `keras.Model.fit` takes them;
    a batched `tf.data.Dataset`; a `keras.utils.PyDataset`; a generator of batches, or a function
    that returns one; or a split of `tfprune.data`. What has at most `cache_mib` is taken into
    memory. The rest is a stream: it is read again in each epoch, and a buffer shuffles it.

    The fingerprint covers the file, the modules beside it that it imports, the options, the version
    and the content of what is in memory. What a stream reads from elsewhere is not covered: change
    the version with it. With the data option `version`, a finished run is recognised without
    calling the function.
    """

    meaning = "FILE.py:FUNCTION, a function that returns examples"
    order = 10

    @classmethod
    def takes(cls, name: str) -> bool:
        """A name of the form FILE.py:FUNCTION."""
        return is_file_function(name)

    def check(self) -> None:
        """Checks that the file is there; it is not imported yet.

        Raises:
            UsageError: it is not.
        """
        if not self._reference.file.is_file():
            raise UsageError(f"{self._reference.file} does not exist: check the path")

    @cached_property
    def _reference(self) -> FileFunction:
        found = file_function(self.name)
        return FileFunction(found.file.expanduser(), found.function)

    @property
    def _static(self) -> list[Any]:
        """What is known without calling the function."""
        files = sorted(_sources(self._reference.file))
        root = self._reference.file.resolve().parent
        named = [[file.relative_to(root).as_posix(), sha256(file)] for file in files]
        return [named, self._reference.function, dict(self.request.options)]

    def signature(self) -> str | None:
        """The source and the options, if the user gives a version; only a call can tell otherwise."""
        if "version" not in self.request.options:
            return None
        return document_hash(self._static)

    def fingerprint(self) -> str:
        """The source, the options, the version, and the content of what is in memory."""
        given = self._given
        digest = hashlib.sha256()
        for split, found in sorted(self._read.items()):
            digest.update(f"{split} {len(found.labels)}".encode())
            for leaf in found.in_memory:
                digest.update(f"{leaf.shape} {leaf.dtype}".encode())
                digest.update(np.ascontiguousarray(leaf).tobytes())
        return document_hash([self._static, str(given.extra.get("version")), digest.hexdigest()])
