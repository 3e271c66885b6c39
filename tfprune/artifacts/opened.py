"""What a loaded file is, whatever its format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfprune.artifacts.artifact import Tensor
from tfprune.errors import TfpruneError

if TYPE_CHECKING:
    from tfprune.artifacts.tflite import Feeds

BATCH = 64
# Where a file takes any size: large enough for most nets' pooling.
_ANY_SIZE = 32
_RANDOM_EXAMPLES = 2
# An honest classifier's image is far below; a file that asks for more is after the memory.
_MOST_VALUES = 1 << 27


@dataclasses.dataclass(frozen=True)
class Opened:
    """A file that is loaded and ready.

    Attributes:
        inputs: What it takes, as the file says.
        outputs: What it gives.
        predict: Real values by input name, shape `(n, ...)`, to float32 values by output name.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    predict: Callable[[Feeds], Feeds]


def random_feeds(inputs: tuple[Tensor, ...], examples: int = _RANDOM_EXAMPLES) -> Feeds:
    """Random pixels 0..255 of the shapes that a file takes, the same ones each time.

    Args:
        inputs: As the file describes them.
        examples: How many; a file with a batch size of its own takes a multiple of it.

    Raises:
        TfpruneError: They would be unreasonably large.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for each in inputs:
        shape = (examples, *(size or _ANY_SIZE for size in each.shape[1:]))
        # Python's numbers do not overflow.
        total = 1
        for size in shape:
            total *= size
        if not 0 < total <= _MOST_VALUES:
            raise TfpruneError(f"input {each.name} has shape {each.shape}: do not trust this file")
        feeds[each.name] = rng.uniform(0, 255, shape).astype(np.float32)
    return feeds


def described(name: str, shape: Any, dtype: Any) -> Tensor:
    """A tensor as libraries tell of it.

    Args:
        name: Its name.
        shape: Its sizes; a free one is None, -1 or a word, as the library likes it.
        dtype: Anything whose text is NumPy's name of it.
    """
    sizes = (
        None if size is None or isinstance(size, str) or size < 0 else int(size) for size in shape
    )
    return Tensor(name, tuple(sizes), str(dtype))


def in_batches(run: Callable[[Feeds], Feeds], fixed: int | None) -> Callable[[Feeds], Feeds]:
    """Runs batch by batch; a model with a batch size of its own gets its last one filled up.

    Args:
        run: Runs one batch.
        fixed: The only batch size that it takes, or None.
    """
    size = fixed or BATCH

    def predict(feeds: Feeds) -> Feeds:
        count = min(len(x) for x in feeds.values())
        parts = []
        for start in range(0, count, size):
            part = {name: x[start : start + size] for name, x in feeds.items()}
            here = min(size, count - start)
            missing = (fixed or 0) - here
            if missing > 0:
                part = {
                    name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
                    for name, x in part.items()
                }
            parts.append({name: y[:here] for name, y in run(part).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return predict
