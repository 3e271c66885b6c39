"""Importance: one score per removable unit, higher is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.data.adapting import SAMPLE, Data, examples
from tfprune.data.splits import Examples, leaves
from tfprune.errors import UsageError, one_line
from tfprune.filters.channels import Slice, float_values
from tfprune.filters.groups import ChannelGroups
from tfprune.model.cloning import copy
from tfprune.model.compiled import Settings, classifies, settings_of
from tfprune.model.graph import ends_in_softmax, functional
from tfprune.tasks.ends import ends_of
from tfprune.tasks.finding import resolve
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


def taylor(groups: ChannelGroups, data: Examples) -> np.ndarray:
    """How much the loss would change to first order if the unit became zero (Molchanov et al.
    2019, Importance Estimation for Neural Network Pruning).

    For each batch the gradients times the weights are summed over the unit, whichever layers it
    spans; their absolute values are averaged over the batches. The weights are those that carry the
    unit's scale: gamma and beta where BatchNorm follows, the paper's gate, and else filter and
    bias. The loss is the one that the model is compiled with, the cross entropy of a classifier
    that is not compiled; the model runs as at inference.
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
        needs_data: whether `score` also takes `Examples`: inputs by the names of the model's, and
            targets and sample weights as they were given.
        from_training: whether `LearnStructure` takes it from the gradients of its training, and
            needs no data.
    """

    score: Callable[..., np.ndarray]
    needs_data: bool = False
    from_training: bool = False


IMPORTANCE: dict[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(l2),
    "lasso": Criterion(lasso),
    "bn_gamma": Criterion(bn_gamma),
    "geometric_median": Criterion(geometric_median),
    "taylor": Criterion(taylor, needs_data=True, from_training=True),
    "random": Criterion(random),
}
"""All importances by name; a new one is a function and a row here, and a name in the vocabulary."""


def scores(groups: ChannelGroups, importance: Importance, data: Data | None = None) -> np.ndarray:
    """Importance of every unit, comparable between groups.

    Example:
        ```python
        scores(channel_groups(model), "l1")
        ```

    Args:
        groups: the channel groups of a model.
        importance: a name in `IMPORTANCE`, or a function of the groups that returns float
            (groups.unit_count,).
        data: examples with targets, in any form that `tfprune.data.examples` takes; `taylor` needs
            them, and nothing else looks at them. Of data that are not arrays, the first 1,024.

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


def _raw(groups: ChannelGroups, importance: Importance, data: Data | None) -> np.ndarray:
    if callable(importance):
        return importance(groups)
    criterion = named_criterion(importance)
    if not criterion.needs_data:
        return criterion.score(groups)
    return criterion.score(groups, looked_at(groups.model, importance, data))


def named_criterion(name: str) -> Criterion:
    """The row of an importance.

    Example:
        ```python
        named_criterion("taylor").needs_data  # True
        ```

    Raises:
        UsageError: there is no such importance.
    """
    criterion = IMPORTANCE.get(name)
    if criterion is None:
        raise UsageError(f"unknown importance {name!r}: choose one of {', '.join(IMPORTANCE)}")
    return criterion


def needs_data(importance: Importance) -> bool:
    """Whether `scores` needs labelled examples for an importance.

    Example:
        ```python
        needs_data("l2")  # False
        ```

    Raises:
        UsageError: there is no such importance.
    """
    return not callable(importance) and named_criterion(importance).needs_data


def from_training(importance: Importance) -> bool:
    """Whether `LearnStructure` takes an importance from the gradients of its training.

    Example:
        ```python
        from_training("taylor")  # True
        ```

    Raises:
        UsageError: there is no such importance.
    """
    return not callable(importance) and named_criterion(importance).from_training


def looked_at(model: keras.Model, importance: Importance, data: Data | None) -> Examples | None:
    """The examples that an importance looks at, in memory; None if it looks at none.

    A generator can be read only once: whoever scores several times calls this before.

    Example:
        ```python
        looked_at(model, "taylor", (x, y)).targets
        ```

    Args:
        model: the model that is scored.
        importance: see `scores`.
        data: see `scores`.

    Raises:
        UsageError: the importance is not known, or data are missing or do not fit the model.
    """
    if not needs_data(importance):
        return None
    if data is None:
        raise UsageError(
            f"importance {importance!r} needs labelled examples: give data=(x, y), or a dataset of "
            "batches"
        )
    if not getattr(model, "inputs", None):
        functional(model)
    return examples(data, SAMPLE, model=model, whole_arrays=True)


# -- gradients ----------------------------------------------------------------------------------


class _AtInference(keras.Model):
    """A model whose training step runs it as at inference.

    Statistics stay, nothing is dropped, and penalties on weights do not count.

    Args:
        inner: the model.
        classifies: whether the loss is the cross entropy of class numbers, and not the one that
            this model is compiled with.
    """

    def __init__(self, inner: keras.Model, classifies: bool) -> None:
        # The name of a private class is none that TensorFlow takes.
        super().__init__(name="at_inference")
        self.inner = inner
        self._classifies = classifies
        # Losses by name are looked up here.
        self.output_names = functional(inner).output_names

    @property
    def losses(self) -> list[Any]:
        """No penalty."""
        return []

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
        if not self._classifies:
            y_pred = keras.tree.map_structure(lambda each: ops.cast(each, "float32"), y_pred)
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        # A single output may stand in a dict or a list.
        (outputs,) = keras.tree.flatten(y_pred)
        return ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                y, ops.cast(outputs, "float32"), from_logits=not ends_in_softmax(self.inner)
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
    model: keras.Model, data: Examples, batch_size: int = 64
) -> Iterator[dict[int, np.ndarray]]:
    """Gradients of the loss of each batch.

    Args:
        model: any model with a graph; it is not changed. Its loss is the one that it is compiled
            with; a classifier with one output, logits or a softmax, need not be compiled.
        data: examples with targets; see `looked_at`.
        batch_size: examples in one batch at most. Batches are equally large; the few examples that
            are left over are not looked at.

    Yields:
        For each batch, by the id of the model's variable, an array of the variable's shape, for all
        that can be trained.

    Raises:
        UsageError: targets are missing or do not fit the model or its loss.
    """
    if data.targets is None:
        raise UsageError(
            f"data has no targets, and gradients need what model {model.name!r} should answer: "
            "give (x, y)"
        )
    settings = _learnt(model, data)
    plain = settings is None
    y, weights = (
        (_classes(model, data), None) if settings is None else _as_answered(model, data, settings)
    )
    twin = copy(model)
    # Frozen layers have gradients too. Keras tells the layers only of a change.
    twin.trainable = False
    twin.trainable = True
    origin = {id(new): id(old) for old, new in zip(model.weights, twin.weights, strict=True)}
    keys = [origin[id(each)] for each in twin.trainable_variables]
    recorder = _Recorder(twin.trainable_variables)
    step = _AtInference(twin, plain)
    # Measured on CPU, as for training: XLA is slower than TensorFlow's own kernels.
    step.compile(
        recorder,
        loss=None if settings is None else settings.loss,
        loss_weights=None if settings is None else settings.loss_weights,
        auto_scale_loss=False,
        jit_compile=False,
    )
    structure = functional(twin).input
    # Batches of one size, since the step is traced anew for another.
    count = -(-len(data) // batch_size)
    size = len(data) // count
    for start in range(0, count * size, size):
        rows = slice(start, start + size)
        x = keras.tree.pack_sequence_as(
            structure,
            [
                values[rows].astype(keras.backend.standardize_dtype(end.dtype))
                for values, end in zip(leaves(data.inputs), model.inputs, strict=True)
            ],
        )
        try:
            step.train_on_batch(x, _rows(y, rows), _rows(weights, rows))
        except UsageError:
            raise
        # Losses raise what they like where targets make no sense to them.
        except Exception as error:
            raise UsageError(
                f"data: the targets do not fit the loss of model {model.name!r} "
                f"({one_line(error)}): give what it was trained on"
            ) from error
        yield dict(zip(keys, map(ops.convert_to_numpy, recorder.slots), strict=True))


def _rows(tree: Any, rows: slice) -> Any:
    return None if tree is None else keras.tree.map_structure(lambda leaf: leaf[rows], tree)


def _learnt(model: keras.Model, data: Examples) -> Settings | None:
    """The losses of a model; None for the cross entropy of class numbers that all count the same.

    They are those that it is compiled with, or those of the task that data without a
    specification tell.
    """
    settings = settings_of(model)
    if classifies(model, settings) and _are_class_numbers(data.targets):
        if data.weights is None:
            return None
        logits = not ends_in_softmax(model)
        return Settings(keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
    if settings.loss is not None:
        return settings
    try:
        task = resolve(ends_of(model), None, None, data).compile_arguments()
    except UsageError as error:
        raise UsageError(
            f"data: the loss of model {model.name!r}, which is not compiled, is not known "
            f"({one_line(error)}): compile it with the loss that it was trained with"
        ) from error
    return Settings(task["loss"], task.get("loss_weights"))


def _are_class_numbers(targets: Any) -> bool:
    parts = leaves(targets)
    alone = len(parts) == 1 and (parts[0].ndim == 1 or parts[0].shape[1:] == (1,))
    return alone and parts[0].dtype.kind in "iu"


def _classes(model: keras.Model, data: Examples) -> np.ndarray:
    """Class numbers, int (n,), that fit a classifier."""
    labels: np.ndarray = leaves(data.targets)[0].reshape(-1)
    classes = model.output_shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(
            f"data: labels {labels.min()}..{labels.max()} do not fit the {classes} classes of "
            f"{model.name}"
        )
    return labels


def _as_answered(model: keras.Model, data: Examples, settings: Settings) -> tuple[Any, Any]:
    """Targets and sample weights, nested as a model nests its outputs."""
    structure = functional(model).output
    names = list(structure) if isinstance(structure, dict) else list(functional(model).output_names)
    ends = dict(zip(names, leaves(structure), strict=True))
    known = _by_output(data.targets, names, "targets", model)
    ignored = [name for name in names if name not in known]
    if ignored and not settings.loss_of_part(names, list(known)):
        raise UsageError(
            f"data: there are targets for {', '.join(known)} and none for {', '.join(ignored)} of "
            f"{model.name}, which has a loss for it: give these too"
        )
    # No loss looks at those.
    empty = np.zeros((len(data), 1), np.float32)
    targets = _nested(structure, {name: known.get(name, empty) for name in ends})
    weights = data.weights
    if weights is not None and len(leaves(weights)) == 1:
        (weights,) = leaves(weights)
    elif weights is not None:
        ones = np.ones(len(data), np.float32)
        given = _by_output(weights, names, "sample weights", model)
        weights = _nested(structure, {name: given.get(name, ones) for name in ends})
    return targets, weights


def _by_output(tree: Any, names: Sequence[str], what: str, model: keras.Model) -> dict[str, Any]:
    """Arrays by the output that they are for; of a dict, some may be missing."""
    if isinstance(tree, dict) and len(names) > 1:
        if unknown := [name for name in tree if name not in names]:
            raise UsageError(
                f"data: there are {what} for {', '.join(unknown)}, and the outputs of "
                f"{model.name} are {', '.join(names)}"
            )
        return {name: tree[name] for name in names if name in tree}
    parts = leaves(tree)
    if len(parts) != len(names):
        raise UsageError(
            f"data: there are {len(parts)} {what}: give one array for each output of "
            f"{model.name}, {', '.join(names)}, in this order"
        )
    return dict(zip(names, parts, strict=True))


def _nested(structure: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(structure, dict):
        return {name: arrays[name] for name in structure}
    return keras.tree.pack_sequence_as(structure, list(arrays.values()))
