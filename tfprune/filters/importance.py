"""Importance: one score per removable unit, higher is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.filters.channels import Slice, float_values
from tfprune.filters.groups import ChannelGroups
from tfprune.model.cloning import copy
from tfprune.model.graph import ends_in_softmax
from tfprune.vocabulary import ImportanceName

Importance = ImportanceName | str | Callable[[ChannelGroups], np.ndarray]


def _weights(entry: Slice) -> np.ndarray:
    return float_values(entry.variable)


def _summed(
    groups: ChannelGroups, slices: Iterable[Slice], numbers: Callable[[Slice], np.ndarray]
) -> np.ndarray:
    """Sums over each unit, where `numbers` gives one number for each weight of a slice."""
    totals = np.zeros(groups.unit_count)
    for entry in slices:
        value = numbers(entry)
        axes = tuple(axis for axis in range(value.ndim) if axis != entry.axis)
        np.add.at(totals, groups.unit[entry.ids], value.sum(axis=axes))
    return totals


def _count(entry: Slice) -> np.ndarray:
    return np.ones(entry.variable.shape)


def l1(groups: ChannelGroups) -> np.ndarray:
    """Sum of absolute filter weights (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""
    return _summed(groups, groups.making("filter"), lambda entry: np.abs(_weights(entry)))


def l2(groups: ChannelGroups) -> np.ndarray:
    """Euclidean norm of the filter weights over all coupled layers (Li et al. 2017; He et al.
    2018, Soft Filter Pruning).
    """  # noqa: D205
    slices = groups.making("filter")
    return np.sqrt(_summed(groups, slices, lambda entry: np.square(_weights(entry))))


def lasso(groups: ChannelGroups) -> np.ndarray:
    """The norms that `LearnStructure` shrinks, by the square root of the group's size (Wen et al.
    2016; Yuan & Lin 2006).
    """  # noqa: D205
    slices = groups.scaled()
    squares = _summed(groups, slices, lambda entry: np.square(_weights(entry)))
    return np.sqrt(squares / np.maximum(_summed(groups, slices, _count), 1))


def bn_gamma(groups: ChannelGroups) -> np.ndarray:
    """Absolute gamma of the BatchNorm that follows, summed over coupled layers (Liu et al. 2017,
    Network Slimming).

    Gamma of the other normalisations counts alike. A group in which a channel has no gamma, as
    after a layer without BatchNorm or before one with `scale=False`, goes by `l2` as a whole, since
    scores are compared within groups first.
    """  # noqa: D205
    slices = [entry for entry in groups.making("scale") if entry.variable.name == "gamma"]
    gammas = _summed(groups, slices, lambda entry: np.abs(_weights(entry)))
    bare = _summed(groups, slices, _count) == 0
    norms = l2(groups)
    for group in groups:
        if bare[group.units].any():
            gammas[group.units] = norms[group.units]
    return gammas


def geometric_median(groups: ChannelGroups) -> np.ndarray:
    """Sum of a filter's distances to the other filters of its layer, summed over coupled layers.

    What lies nearest to the geometric median is what the others can stand in for (He et al. 2019,
    Filter Pruning via Geometric Median). Biases do not count.
    """
    distances = np.zeros(groups.unit_count)
    for entry in groups.making("filter"):
        kernel = _weights(entry)
        if kernel.ndim > 1:
            rows = np.moveaxis(kernel, entry.axis, 0).reshape(kernel.shape[entry.axis], -1)
            np.add.at(distances, groups.unit[entry.ids], _distances(rows).sum(axis=1))
    return distances


def _distances(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances, (n, n), by a matrix product, which wide layers need."""
    squares = np.square(rows).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))


def taylor(groups: ChannelGroups, data: LabelledImages) -> np.ndarray:
    """How much the loss would change to first order if the unit became zero (Molchanov et al.
    2019, Importance Estimation for Neural Network Pruning).

    For each batch the gradients times the weights are summed over the unit, whichever layers it
    spans; their absolute values are averaged over the batches. The weights are those that carry the
    unit's scale: gamma and beta where BatchNorm follows, the paper's gate, and else filter and
    bias. The loss is the cross entropy, and the model runs as at inference.
    """  # noqa: D205

    def change(gradient: dict[int, np.ndarray]) -> np.ndarray:
        slices = [entry for entry in groups.scaled() if id(entry.variable) in gradient]
        return np.abs(
            _summed(groups, slices, lambda entry: gradient[id(entry.variable)] * _weights(entry))
        )

    return np.mean([change(gradient) for gradient in gradients(groups.model, data)], axis=0)


def random(groups: ChannelGroups) -> np.ndarray:
    """A baseline that knows nothing; the same for the same model (Blalock et al. 2020)."""
    return np.random.default_rng(0).random(groups.unit_count) + 1e-6


@dataclass(frozen=True)
class Criterion:
    """One way to score the units of a model.

    Attributes:
        score: from the channel groups to float (groups.unit_count,).
        needs_data: whether `score` also takes labelled images.
    """

    score: Callable[..., np.ndarray]
    needs_data: bool = False


IMPORTANCE: dict[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(l2),
    "lasso": Criterion(lasso),
    "bn_gamma": Criterion(bn_gamma),
    "geometric_median": Criterion(geometric_median),
    "taylor": Criterion(taylor, needs_data=True),
    "random": Criterion(random),
}
"""All importances by name; a new one is a function and a row here, and a name in the vocabulary."""


def scores(
    groups: ChannelGroups, importance: Importance, data: LabelledImages | None = None
) -> np.ndarray:
    """Importance of every unit, comparable between groups.

    Example:
        ```python
        scores(channel_groups(model), "l1")
        ```

    Args:
        groups: the channel groups of a model.
        importance: a name in `IMPORTANCE`, or a function of the groups that returns float
            (groups.unit_count,).
        data: images, float or uint8 (n, ...) as the model takes them, and int (n,) labels; `taylor`
            needs them, and nothing else looks at them.

    Returns:
        float64 (groups.unit_count,): each score divided by the mean of its group's scores, so that
        the scale of a layer's weights does not decide; dead units score zero. They count in the
        mean: the more of a group is dead, the more each of the others matters. Without them, what
        is left of a group would compete among itself for each further removal, to the last one.

    Raises:
        UsageError: the name is not known, data are missing or do not fit the model, or the function
            returns another shape or a value that is not finite.
    """
    raw = np.asarray(_raw(groups, importance, data), np.float64)
    if raw.shape != (groups.unit_count,):
        raise UsageError(
            f"importance gave an array of shape {raw.shape}: return one score a unit, "
            f"({groups.unit_count},)"
        )
    if not np.isfinite(raw).all():
        raise UsageError(
            f"importance gave {np.count_nonzero(~np.isfinite(raw))} scores that are not finite "
            "numbers: look for NaN in the model's weights and the data"
        )
    comparable = raw.copy()
    for group in groups:
        total = raw[group.units].sum()
        if total > 0:
            comparable[group.units] = raw[group.units] * (group.size / total)
    comparable[groups.dead()] = 0.0
    return comparable


def _raw(groups: ChannelGroups, importance: Importance, data: LabelledImages | None) -> np.ndarray:
    if callable(importance):
        return importance(groups)
    criterion = IMPORTANCE.get(importance)
    if criterion is None:
        names = ", ".join(IMPORTANCE)
        raise UsageError(f"unknown importance {importance!r}: choose one of {names}")
    if not criterion.needs_data:
        return criterion.score(groups)
    if data is None:
        raise UsageError(
            f"importance {importance!r} needs labelled images: give data=(images, labels)"
        )
    return criterion.score(groups, data)


# -- gradients ----------------------------------------------------------------------------------


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
            f"model {model.name!r} is not a classifier with one input, and one output of one "
            "number for each class: gradients of the cross entropy need one"
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
