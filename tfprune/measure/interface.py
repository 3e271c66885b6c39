"""What every runtime offers, whatever file it runs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import numpy as np

from tfprune.errors import UsageError


class Runtime(abc.ABC):
    """A model that is loaded and ready: pixels in, float32 outputs out.

    Attributes:
        name: What messages call it, usually the file's name.
        format: `"keras"`, `"savedmodel"`, `"tflite"` or `"tflite-int8"`.
        input_shape: Shape of one image, without the batch; None where any size fits.
        fixed_batch: The only batch size that the model takes, or None when any size goes.
        output_step: Distance of two neighbouring outputs of a quantized model, 0.0 for float ones.
        threads: Threads that one call of `one` may use; 0 means that TensorFlow chooses.
    """

    name: str
    format: str
    input_shape: tuple[int | None, ...]
    fixed_batch: int | None = None
    output_step: float = 0.0
    threads: int

    def predict(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Runs all images, in batches.

        Args:
            images: Pixels 0..255, any numeric dtype, shape `(n, *input_shape)`.
            batch_size: Images in one batch, at least 1; a model with a fixed batch keeps its own.

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
        size = self.fixed_batch or batch_size
        parts = (images[start : start + size] for start in range(0, len(images), size))
        return np.concatenate([self._predict_part(part) for part in parts])

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

    def _check_image(self, shape: Sequence[int]) -> None:
        fits = len(shape) == len(self.input_shape) and all(
            want is None or want == got for want, got in zip(self.input_shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"an image of shape {tuple(shape)} does not fit {self.name}: "
                f"it takes {self.input_shape}"
            )

    def _predict_part(self, part: np.ndarray) -> np.ndarray:
        missing = (self.fixed_batch or 0) - len(part)
        if missing > 0:
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            return self._run(batch)[: len(part)]
        return self._run(part)

    @abc.abstractmethod
    def _run(self, batch: np.ndarray) -> np.ndarray:
        """Float32 outputs of one checked batch."""

    @abc.abstractmethod
    def _prepare_one(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        """Like `one`, for a checked batch of one."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message that says something, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
