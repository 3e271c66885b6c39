"""Gradients of a classifier's loss, as the model is at inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.model.cloning import copy
from tfprune.model.graph import ends_in_softmax

LabelledImages = tuple[np.ndarray, np.ndarray]
"""Float or uint8 (n, ...) images as the model takes them, and int (n,) labels."""


class _AtInference(keras.Model):
    """A model whose training step runs it as at inference, with the cross entropy as its loss.

    Statistics stay, nothing is dropped, and penalties on weights do not count.
    """

    def __init__(self, inner: keras.Model) -> None:
        # The name of a private class is none that TensorFlow takes.
        super().__init__(name="at_inference")
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x, training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                y, ops.cast(y_pred, "float32"), from_logits=not ends_in_softmax(self.inner)
            )
        )


class _Recorder(keras.Optimizer):
    """Keeps the gradients of a step in its slots, and changes nothing else.

    Each backend of Keras finds gradients in its own way and hands them to the optimizer, so this
    works with all of them.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        super().__init__(learning_rate=0.0)
        self.build(variables)
        self.slots = [self.add_variable_from_reference(each, "gradient") for each in variables]

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        for slot, gradient in zip(self.slots, grads, strict=True):
            # None for what no loss depends on; embeddings have gradients of their own kind.
            if gradient is not None:
                slot.assign(ops.convert_to_tensor(gradient))


def gradients(
    model: keras.Model, data: LabelledImages, batch_size: int = 64
) -> Iterator[dict[int, np.ndarray]]:
    """Gradients of the mean cross entropy of each batch.

    Args:
        model: a classifier with one input and one output, logits or a softmax; it is not changed.
        data: images and their labels.
        batch_size: images in one batch at most. Batches are equally large; the few images that
            are left over are not looked at.

    Yields:
        For each batch, by the id of the model's variable, an array of the variable's shape, for all
        that can be trained.

    Raises:
        UsageError: the data are not labelled images that fit the model.
    """
    images, labels = _checked(model, data)
    twin = copy(model)
    # Frozen layers have gradients too. Keras tells the layers only of a change.
    twin.trainable = False
    twin.trainable = True
    origin = {id(new): id(old) for old, new in zip(model.weights, twin.weights, strict=True)}
    keys = [origin[id(each)] for each in twin.trainable_variables]
    recorder = _Recorder(twin.trainable_variables)
    step = _AtInference(twin)
    # Measured on CPU, as for training: XLA is slower than TensorFlow's own kernels.
    step.compile(recorder, auto_scale_loss=False, jit_compile=False)
    # Batches of one size, since the step is traced anew for another.
    count = -(-len(images) // batch_size)
    size = len(images) // count
    for start in range(0, count * size, size):
        batch = slice(start, start + size)
        step.train_on_batch(images[batch].astype(np.float32), labels[batch])
        yield dict(zip(keys, map(ops.convert_to_numpy, recorder.slots), strict=True))


def _checked(model: keras.Model, data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise UsageError(
            f"model {model.name!r} is no classifier with one input and one output, one number a "
            "class: gradients of the cross entropy need one"
        )
    images, labels = map(np.asarray, data)
    classes, shape = model.output_shape[-1], tuple(model.input_shape[1:])
    if images.ndim != len(shape) + 1 or any(
        wanted not in (None, size) for wanted, size in zip(shape, images.shape[1:], strict=True)
    ):
        raise UsageError(f"data: {model.name} takes images of {shape}, not {images.shape[1:]}")
    if labels.shape != (len(images),) or not len(images) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"data: {len(images)} images need as many int labels, not {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(
            f"data: labels {labels.min()}..{labels.max()} do not fit the {classes} classes of "
            f"{model.name}"
        )
    return images, labels
