"""A model that is loaded and ready, whatever file it came from, and how it describes itself."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError, UsageError
from tfprune.quiet import quiet

# By the name of the tensor, each of shape `(n, ...)`.
Feeds = dict[str, np.ndarray]
# One example without the batch: an array for the only input, or arrays by the names of the inputs.
Example = np.ndarray | Mapping[str, np.ndarray]
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
        inputs: What it takes, in the order of the model; that of a SavedModel which tfprune did not
            write is the order of the names.
        outputs: What it gives, in the same manner.
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

    def activation(self, output: str) -> str | None:
        """What an output ends in, as far as the file tells.

        Args:
            output: Its name.

        Returns:
            `"sigmoid"`, `"softmax"` or `"none"`; None where the file does not tell.
        """
        return None

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one image, without the batch; None where any size fits."""
        return self._only(self.inputs).shape[1:]

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the model takes, or None when any size fits."""
        return next((each.shape[0] for each in self.inputs if each.shape[0]), None)

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
            feeds: Real values by input name, shape `(n, ...)`; see `named`.
            batch_size: See `predict`.
            progress: See `predict`.

        Returns:
            float32 outputs by name.

        Raises:
            UsageError: There is no example, they do not fit the model, or there are not equally
                many for each input.
        """
        feeds = self.named(feeds)
        counts = {name: len(x) if x.ndim else 0 for name, x in feeds.items()}
        count = min(counts.values())
        if count != max(counts.values()):
            said = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise UsageError(f"{self.name} cannot run {said}: give equally many of each input")
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

    def one(self, example: Example) -> Callable[[], np.ndarray]:
        """Prepares a single example, so that a timed call holds only the inference.

        Args:
            example: Real values, such as pixels 0..255, of the shape that the input takes, without
                the batch; those of several inputs by their names.

        Returns:
            A function that runs the prepared example once, all outputs of it, and returns the
            first raw one, shape `(1, classes)`, in the output dtype of the file. `predict` does
            not disturb it. A model with a fixed batch runs the example as often as it takes at
            once, and the shape is `(fixed_batch, classes)`.

        Raises:
            UsageError: The example does not fit the model.
        """
        feeds = self.named(example)
        for each in self.inputs:
            self._check_image(each, feeds[each.name].shape)
        batch = self.fixed_batch or 1
        return self._prepare_one({name: np.stack([x] * batch) for name, x in feeds.items()})

    def named(self, values: Example) -> Feeds:
        """Says which input gets what.

        Args:
            values: An array for the only input; or arrays by the names of the inputs, in the model
                or in the file. The only input may have any name.

        Returns:
            The arrays by the names of `inputs`, in their order.

        Raises:
            UsageError: The names are not those of the inputs.
        """
        names = [each.name for each in self.inputs]
        given = values if isinstance(values, Mapping) else {"": values}
        if len(given) == len(names) == 1:
            return dict(zip(names, map(np.asarray, given.values()), strict=True))
        # The names in a file are identifiers, those in a model any texts.
        plain = {plain_name(name): np.asarray(x) for name, x in given.items()}
        if len(plain) < len(given) or set(plain) != set(names):
            what = ", ".join(given) if isinstance(values, Mapping) else "one array"
            raise UsageError(
                f"{self.name} takes {', '.join(names)}, and not {what}: give an array for each of "
                "its inputs by its name"
            )
        return {name: plain[name] for name in names}

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

    def _check_image(self, tensor: Tensor, shape: Sequence[int]) -> None:
        wanted = tensor.shape[1:]
        fits = len(shape) == len(wanted) and all(
            want is None or want == got for want, got in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"an image of shape {tuple(shape)} does not fit {self.name}: "
                f"{tensor.name if len(self.inputs) > 1 else 'it'} takes {wanted}"
            )

    def _filled(self, run: Runner, part: Feeds, count: int) -> Feeds:
        """Runs batches, the last one filled up first where the model takes no smaller one."""
        missing = -count % (self.fixed_batch or 1)
        if not missing:
            return run(part)
        batch = {
            name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
            for name, x in part.items()
        }
        return {name: y[:count] for name, y in run(batch).items()}

    def _runners(self, feeds: Feeds, batch_size: int) -> tuple[int, Sequence[Runner]]:
        """How many checked examples a runner gets at a time, and one runner for each thread.

        The number is a multiple of `fixed_batch`.
        """
        # Most libraries have threads of their own.
        return self.fixed_batch or batch_size, [self._run]

    @abc.abstractmethod
    def _run(self, feeds: Feeds) -> Feeds:
        """Runs one batch: real values by input name to float32 values by output name."""

    def _prepare_one(self, feeds: Feeds) -> Callable[[], np.ndarray]:
        """Like `one`, for a checked batch of it, by the names of the inputs."""
        name = self.outputs[0].name
        return lambda: self._run(feeds)[name]


def check_numbers(inputs: Iterable[Tensor], name: str) -> None:
    """Refuses inputs that are not numbers.

    Args:
        inputs: As a model or a file describes them.
        name: What messages call it.

    Raises:
        UsageError: One takes something else, such as strings.
    """
    for each in inputs:
        if not each.dtype.startswith(("float", "bfloat", "int", "uint", "bool")):
            raise UsageError(
                f"{name} takes {each.dtype} as {each.name}, and tfprune runs models of numbers: "
                "let the layer that turns text into numbers work on the data, and give the rest of "
                "the model"
            )


def plain_name(name: str) -> str:
    """A name as exported files write it: an identifier that a serving signature takes."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain[:1].isalnum() else f"x{plain}"


def example_shape(
    tensor: Tensor,
    examples: int,
    name: str,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> tuple[int, ...]:
    """The shape of a few examples for an input, a size set where the file takes any.

    Args:
        tensor: As the file describes it.
        examples: How many.
        name: What messages call the file.
        input_shape: Shape of one example where the file takes any size, or those of several inputs
            by their names; 32 for each size if None.

    Raises:
        TfpruneError: It would be unreasonably large.
    """
    wanted = tensor.shape[1:]
    if isinstance(input_shape, Mapping):
        by_name = {plain_name(key): shape for key, shape in input_shape.items()}
        input_shape = by_name.get(tensor.name)
    free = input_shape or ()
    if len(free) != len(wanted):
        free = [_ANY_SIZE] * len(wanted)
    shape = (examples, *(size or other for size, other in zip(wanted, free, strict=True)))
    # Python's numbers do not overflow.
    if not 0 < math.prod(shape) <= _MOST_VALUES:
        raise TfpruneError(
            f"{name} takes input {tensor.name} of shape {shape[1:]}: do not trust this file"
        )
    return shape


def random_feeds(
    inputs: Sequence[Tensor],
    examples: int,
    name: str = "the file",
    ids: Mapping[str, int] | None = None,
) -> Feeds:
    """Random values of the shapes that a file takes, the same ones each time.

    Args:
        inputs: As the file describes them.
        examples: How many; a file with a batch size of its own takes a multiple of it.
        name: What messages call the file.
        ids: Inputs that take row numbers of a table, and how many rows it has: they get these
            numbers. The others get pixels 0..255.

    Raises:
        TfpruneError: They would be unreasonably large.
    """
    rng, feeds = np.random.default_rng(0), {}
    for each in inputs:
        shape = example_shape(each, examples, name)
        if ids and each.name in ids:
            feeds[each.name] = rng.integers(0, ids[each.name], shape).astype(np.float32)
        else:
            feeds[each.name] = rng.uniform(0, 255, shape).astype(np.float32)
    return feeds


def zero_feeds(
    inputs: Sequence[Tensor],
    examples: int,
    name: str = "the file",
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
) -> Feeds:
    """Zeros of the shapes that a file takes: what an input of row numbers takes as well.

    Args:
        inputs: As the file describes them.
        examples: See `random_feeds`.
        name: What messages call the file.
        input_shape: See `example_shape`.

    Raises:
        TfpruneError: They would be unreasonably large.
    """
    # `np.zeros` takes memory only once it is read.
    return {
        each.name: np.full(example_shape(each, examples, name, input_shape), 0, each.dtype)
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
