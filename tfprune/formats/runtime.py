"""A model that is loaded and ready, whatever file it came from, and how it describes itself."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError, UsageError
from tfprune.quiet import quiet

# By the name of the tensor, each of shape `(n, ...)`.
Feeds = dict[str, np.ndarray]
# From one batch to its float32 outputs.
Runner = Callable[[Feeds], Feeds]

# Examples of a batch when files are checked: they may have large inputs.
BATCH = 64
# Where a file takes any size: large enough for the pooling of most nets.
_ANY_SIZE = 32
# The images of real classifiers are far smaller; a file that asks for more may fill the memory.
_MOST_VALUES = 1 << 27


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output, as the file itself describes it.

    Attributes:
        name: What the file calls it.
        shape: None where any size fits; the first entry is the batch.
        dtype: NumPy's name of it.
        scale: Of a quantized tensor: a real value is `(stored - zero_point) * scale`.
        zero_point: See scale.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


def described(name: str, shape: Any, dtype: Any) -> Tensor:
    """A tensor in the words that all formats share.

    Args:
        name: Its name.
        shape: Its sizes; a free one is None, -1 or a word, depending on the library.
        dtype: Anything whose text is NumPy's name of it.
    """
    sizes = (
        None if size is None or isinstance(size, str) or size < 0 else int(size) for size in shape
    )
    return Tensor(name, tuple(sizes), str(dtype))


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a TFLite Micro device needs to run an artifact.

    Attributes:
        arena_bytes: Estimated tensor arena; see `tfprune.formats.tflite_micro`.
        activation_bytes: The part of it that activations take, planned by their lifetimes.
        operators: Builtin operators that the model uses.
        resolver: The line of a `MicroMutableOpResolver` for each of them, in the same order.
    """

    arena_bytes: int
    activation_bytes: int
    operators: tuple[str, ...]
    resolver: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """One weight tensor of a model or an artifact, as it is stored.

    Attributes:
        name: What the file calls it.
        size: How many numbers it has, zeros included, however it is stored.
        bits: Bits of one stored number.
        living: The stored values that do not stand for zero, shape `(nonzero,)`, in the dtype of
            the file; those narrower than a byte are widened to int8.
    """

    name: str
    size: int
    bits: int
    living: np.ndarray

    @property
    def density(self) -> float:
        """Share of non-zeros, 0 to 1; 0 where there is no number."""
        return len(self.living) / self.size if self.size else 0.0


def stored(name: str, values: np.ndarray) -> StoredWeights:
    """A tensor that is stored densely and where 0 stands for zero.

    Args:
        name: What the file calls it.
        values: Any shape.
    """
    return StoredWeights(name, values.size, 8 * values.itemsize, values[values != 0])


class Runtime(abc.ABC):
    """A model that is loaded and ready: real values in, float32 values out.

    A format implements `_run` and `weights`; one that runs batches in threads of its own, or single
    images faster, also `_runners` and `_prepare_one`.

    Example:
        ```python
        runtime = tfprune.formats.load("model.tflite")
        runtime.predict(images)
        runtime.run({"image": images})["output_0"]
        ```

    Attributes:
        name: What messages call it, usually the file's name.
        format: Such as `"keras"`, `"savedmodel"` or `"tflite-int8"`, as the file itself shows.
        inputs: What it takes.
        outputs: What it gives.
        library: What computes; see `FileType.library`.
        threads: Threads that one call of `one` may use; 0 means that the library chooses.
        delegate: Of a TFLite model, what computes instead of the interpreter's own kernels, such as
            `"XNNPACK"`; `"none"` where nothing does.
    """

    name: str
    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    library: str = ""
    threads: int = 0
    delegate: str = "none"

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one image, without the batch; None where any size fits."""
        return self._only(self.inputs).shape[1:]

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the model takes, or None when any size fits."""
        return self.inputs[0].shape[0]

    @property
    def output_step(self) -> float:
        """Distance of two neighbouring outputs of a quantized model, 0.0 for float ones."""
        return self._only(self.outputs).scale or 0.0

    def predict(
        self,
        images: np.ndarray,
        batch_size: int = 256,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Runs all images, in batches, through a model with one input and one output.

        Args:
            images: Pixels 0..255, any numeric dtype, shape `(n, *input_shape)`.
            batch_size: Images in one batch at most, at least 1; a model with a fixed batch keeps
                its own.
            progress: Told after each batch how many images it had; maybe from another thread.

        Returns:
            float32 outputs, shape `(n, classes)`.

        Raises:
            UsageError: There is no image, they do not fit the model, or it has several inputs or
                outputs.
        """
        x, y = self._only(self.inputs), self._only(self.outputs)
        return self.run({x.name: np.asarray(images)}, batch_size, progress)[y.name]

    def run(
        self,
        feeds: Feeds,
        batch_size: int = BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> Feeds:
        """Runs all examples, in batches, through a model with any number of inputs and outputs.

        Args:
            feeds: Real values by input name, shape `(n, ...)`; those of a model with one input may
                have any name.
            batch_size: See `predict`.
            progress: See `predict`.

        Returns:
            float32 outputs by name.

        Raises:
            UsageError: There is no example, or they do not fit the model.
            TfpruneError: The names are not those of the model's inputs.
        """
        feeds = self._named(feeds)
        count = min(len(x) for x in feeds.values())
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: give at least 1")
        if not count:
            raise UsageError(f"no images to run {self.name} on: give at least one")
        for each in self.inputs:
            self._check_image(each, feeds[each.name].shape[1:])
        size, runners = self._runners(feeds, batch_size)
        starts = deque(range(0, count, size))
        parts: dict[int, Feeds] = {}

        def work(run: Runner) -> None:
            while starts:
                try:
                    start = starts.popleft()
                except IndexError:
                    return  # another thread took the last one
                here = min(size, count - start)
                part = {name: x[start : start + here] for name, x in feeds.items()}
                parts[start] = self._filled(run, part, here)
                if progress:
                    progress(here)

        if len(runners) == 1:
            work(runners[0])
        else:
            with ThreadPoolExecutor(len(runners)) as pool:
                try:
                    for done in [pool.submit(work, run) for run in runners]:
                        done.result()
                finally:
                    # After an error the rest is not needed.
                    starts.clear()
        return {
            each.name: np.concatenate([parts[start][each.name] for start in sorted(parts)])
            for each in self.outputs
        }

    def one(self, image: np.ndarray) -> Callable[[], np.ndarray]:
        """Prepares a single image, so that a timed call holds only the inference.

        Args:
            image: Pixels 0..255, shape `input_shape`.

        Returns:
            A function that runs the prepared image once and returns its raw output, shape
            `(1, classes)`, in the output dtype of the file. `predict` does not disturb it.

        Raises:
            UsageError: The image does not fit the model, or the model takes only larger batches.
        """
        image = np.asarray(image)
        x = self._only(self.inputs)
        self._check_image(x, image.shape)
        if self.fixed_batch not in (None, 1):
            raise UsageError(
                f"{self.name} takes only batches of {self.fixed_batch}: "
                "export it with a free batch dimension to run single images"
            )
        return self._prepare_one({x.name: image[None]})

    @abc.abstractmethod
    def weights(self) -> Iterator[StoredWeights]:
        """The weights that the artifact holds, each once; see `tfprune.measure.parameters`."""

    def macs(self) -> int | None:
        """Multiply-accumulates of one image, counted in the artifact; None where unknown."""
        return None

    def _only(self, ends: tuple[Tensor, ...]) -> Tensor:
        if len(self.inputs) == len(self.outputs) == 1:
            return ends[0]
        raise UsageError(
            f"{self.name} has {len(self.inputs)} inputs and {len(self.outputs)} outputs: "
            "give a model with one of each"
        )

    def _named(self, feeds: Feeds) -> Feeds:
        names = [each.name for each in self.inputs]
        if len(feeds) == len(names) == 1:
            return dict(zip(names, feeds.values(), strict=True))
        if set(feeds) != set(names):
            raise TfpruneError(
                f"{self.name} takes {', '.join(names)} instead of {', '.join(feeds)}: "
                "export it again"
            )
        return feeds

    def _check_image(self, tensor: Tensor, shape: Sequence[int]) -> None:
        wanted = tensor.shape[1:]
        fits = len(shape) == len(wanted) and all(
            want is None or want == got for want, got in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"an image of shape {tuple(shape)} does not fit {self.name}: it takes {wanted}"
            )

    def _filled(self, run: Runner, part: Feeds, count: int) -> Feeds:
        """Runs a batch, filled up first where the model takes only larger ones."""
        missing = (self.fixed_batch or 0) - count
        if missing <= 0:
            return run(part)
        batch = {
            name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
            for name, x in part.items()
        }
        return {name: y[:count] for name, y in run(batch).items()}

    def _runners(self, feeds: Feeds, batch_size: int) -> tuple[int, Sequence[Runner]]:
        """The batch size to use for checked examples, and one runner for each thread."""
        # Most libraries have threads of their own.
        return self.fixed_batch or batch_size, [self._run]

    @abc.abstractmethod
    def _run(self, feeds: Feeds) -> Feeds:
        """Runs one batch: real values by input name to float32 values by output name."""

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        """Like `one`, for a checked batch of one."""
        name = self.outputs[0].name
        return lambda: self._run(feeds)[name]


def example_shape(
    tensor: Tensor, examples: int, name: str, image_shape: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The shape of a few examples for an input, a size set where the file takes any.

    Args:
        tensor: As the file describes it.
        examples: How many.
        name: What messages call the file.
        image_shape: Shape of one image where the file takes any size; 32 for each size if None.

    Raises:
        TfpruneError: It would be unreasonably large.
    """
    wanted = tensor.shape[1:]
    free = image_shape or ()
    if len(free) != len(wanted):
        free = [_ANY_SIZE] * len(wanted)
    shape = (examples, *(size or other for size, other in zip(wanted, free, strict=True)))
    # Python's numbers do not overflow.
    if not 0 < math.prod(shape) <= _MOST_VALUES:
        raise TfpruneError(
            f"{name} takes input {tensor.name} of shape {shape[1:]}: do not trust this file"
        )
    return shape


def random_feeds(inputs: Sequence[Tensor], examples: int, name: str = "the file") -> Feeds:
    """Random pixels 0..255 of the shapes that a file takes, the same ones each time.

    Args:
        inputs: As the file describes them.
        examples: How many; a file with a batch size of its own takes a multiple of it.
        name: What messages call the file.

    Raises:
        TfpruneError: They would be unreasonably large.
    """
    rng = np.random.default_rng(0)
    return {
        each.name: rng.uniform(0, 255, example_shape(each, examples, name)).astype(np.float32)
        for each in inputs
    }


def limit_threads(count: int | None) -> None:
    """Sets how many threads one operator of TensorFlow uses; one operator runs at a time.

    They belong to the whole process. It works until TensorFlow computes for the first time; later
    they stay as they were, and `threads` of a runtime gives the true number.

    Args:
        count: At least 1; None leaves the choice to TensorFlow.
    """
    if count is None:
        return
    with quiet():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(count)
            tf.config.threading.set_inter_op_parallelism_threads(1)
