"""A toy format, as an engineer would add one: a dense layer as NumPy's arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfprune.errors import TfpruneError, one_line
from tfprune.formats import Feeds, Runtime, StoredWeights, Tensor, stored
from tfprune.formats.source import Source


def write(source: Source, path: Path) -> None:
    kernel, bias = source.model.get_weights()
    with path.open("wb") as file:
        np.savez(file, kernel=kernel, bias=bias)


def open_file(path: Path, threads: int) -> Runtime:
    return ToyRuntime(path, threads)


class ToyRuntime(Runtime):
    format = "toy"

    def __init__(self, path: Path, threads: int) -> None:
        self.name, self.threads = path.name, threads
        try:
            with np.load(path) as stored_arrays:
                self._kernel, self._bias = stored_arrays["kernel"], stored_arrays["bias"]
        except (OSError, ValueError, KeyError) as error:
            raise TfpruneError(f"{path} is not a toy ({one_line(error)}): export it") from error
        size, classes = self._kernel.shape
        self.inputs = (Tensor("image", (None, size), "float32"),)
        self.outputs = (Tensor("output_0", (None, classes), "float32"),)

    def weights(self) -> Iterator[StoredWeights]:
        yield stored("kernel", self._kernel)
        yield stored("bias", self._bias)

    def macs(self) -> int:
        return int(self._kernel.size)

    def _run(self, feeds: Feeds) -> Feeds:
        return {"output_0": feeds["image"].astype(np.float32) @ self._kernel + self._bias}
