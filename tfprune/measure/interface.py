"""What every runtime offers, whatever file it runs."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tfprune.errors import UsageError
from tfprune.measure.stored import StoredWeights

# From one batch to its float32 outputs.
Runner = Callable[[np.ndarray], np.ndarray]


class Runtime(abc.ABC):
    """A model that is loaded and ready: pixels in, float32 outputs out.

    Attributes:
        name: What messages call it, usually the file's name.
        format: Such as `"keras"`, `"savedmodel"` or `"tflite-int8"`, as the file itself shows.
        input_shape: Shape of one image, without the batch; None where any size fits.
        fixed_batch: The only batch size that the model takes, or None when any size goes.
        output_step: Distance of two neighbouring outputs of a quantized model, 0.0 for float ones.
        threads: Threads that one call of `one` may use; 0 means that TensorFlow chooses.
        delegate: Of a TFLite model, what computes instead of the interpreter's own kernels, such as
            `"XNNPACK"`; `"none"` where nothing does.
    """

    name: str
    format: str
    input_shape: tuple[int | None, ...]
    fixed_batch: int | None = None
    output_step: float = 0.0
    threads: int
    delegate: str = "none"

    def predict(
        self,
        images: np.ndarray,
        batch_size: int = 256,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Runs all images, in batches.

        Args:
            images: Pixels 0..255, any numeric dtype, shape `(n, *input_shape)`.
            batch_size: Images in one batch at most, at least 1; a model with a fixed batch keeps
                its own.
            progress: Told after each batch how many images it had; maybe from another thread.

        Returns:
            float32 outputs, shape `(n, classes)`.

        Raises:
            UsageError: There is no image, or they do not fit the model.
        """
        images = np.asarray(images)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: give at least 1")
        if not len(images):
            raise UsageError(f"no images to run {self.name} on: give at least one")
        self._check_image(images.shape[1:])
        size, runners = self._runners(images, batch_size)
        starts = deque(range(0, len(images), size))
        parts: dict[int, np.ndarray] = {}

        def work(run: Runner) -> None:
            while starts:
                try:
                    start = starts.popleft()
                except IndexError:
                    return  # another thread took the last one
                part = images[start : start + size]
                parts[start] = self._filled(run, part)
                if progress:
                    progress(len(part))

        if len(runners) == 1:
            work(runners[0])
        else:
            with ThreadPoolExecutor(len(runners)) as pool:
                try:
                    for done in [pool.submit(work, run) for run in runners]:
                        done.result()
                finally:
                    # After an error nobody wants the rest.
                    starts.clear()
        return np.concatenate([parts[start] for start in sorted(parts)])

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
        self._check_image(image.shape)
        if self.fixed_batch not in (None, 1):
            raise UsageError(
                f"{self.name} takes only batches of {self.fixed_batch}: "
                "export it with a free batch dimension to run single images"
            )
        return self._prepare_one(image[None])

    @abc.abstractmethod
    def weights(self) -> Iterator[StoredWeights]:
        """The weights that the artifact holds, each once; see `tfprune.measure.parameters`."""

    def macs(self) -> int | None:
        """Multiply-accumulates of one image, counted in the artifact; None where nobody can say."""
        return None

    def _check_image(self, shape: Sequence[int]) -> None:
        fits = len(shape) == len(self.input_shape) and all(
            want is None or want == got for want, got in zip(self.input_shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"an image of shape {tuple(shape)} does not fit {self.name}: "
                f"it takes {self.input_shape}"
            )

    def _filled(self, run: Runner, part: np.ndarray) -> np.ndarray:
        """Runs a batch, filled up first where the model takes only larger ones."""
        missing = (self.fixed_batch or 0) - len(part)
        if missing > 0:
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            return run(batch)[: len(part)]
        return run(part)

    @abc.abstractmethod
    def _runners(self, images: np.ndarray, batch_size: int) -> tuple[int, Sequence[Runner]]:
        """The batch size to use for checked images, and one runner for each thread."""

    @abc.abstractmethod
    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        """Like `one`, for a checked batch of one."""
