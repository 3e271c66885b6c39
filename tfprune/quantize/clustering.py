"""Clustering: the weights of a layer share few values, and go on sharing them as they train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.model import cloning
from tfprune.vocabulary import CLUSTER_SCOPES, CLUSTER_STARTS, ClusterScope, ClusterStart
from tfprune.weights.attached import AttachedConstraints, KeepingCallback
from tfprune.weights.callback import PruneWeights
from tfprune.weights.selection import Kernel, Picks, kernels

MOST_VALUES = 256
# More weights of a layer hardly move the centroids.
_FITTED_WEIGHTS = 100_000


def cluster(
    model: keras.Model,
    values: int = 16,
    *,
    scope: ClusterScope = "layer",
    start: ClusterStart = "linear",
    include: Picks = None,
    exclude: Picks = None,
    seed: int = 0,
) -> keras.Model:
    """Gives the weights of each layer, or of each output channel, few values by k-means.

    Example:
        ```python
        small = cluster(model, values=16)
        small.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        small.fit(x, y, callbacks=[KeepClusters()])
        ```

    Each weight becomes the centroid that is nearest. Weights that are zero stay zero, and zero is
    then one of the values. An index of `log2(values)` bits suffices for a weight: archives find
    that by themselves, and the formats `tflite-lut` and `c-array-lut` store it so (16 values at
    most, of each output channel).

    Args:
        model: a functional or built Sequential Keras model; it is not changed.
        values: how many, zero included where a weight is zero; 2 to 256.
        scope: "layer", one set of values for each weight tensor; "channel", one for each output
            channel of it, which loses less and stores more.
        start: where the centroids begin: "linear", evenly spaced from the smallest weight to the
            largest, which keeps the large weights and was best after training in Han et al.;
            "density", at quantiles of the weights, so that each has as many; "k-means++", drawn
            with the seed (Arthur & Vassilvitskii 2007).
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.
        seed: of the sample that the centroids of a large layer are fitted to, and of "k-means++".

    Returns:
        A new model. A tensor or channel that has no more values than asked for is left as it is.

    Raises:
        UsageError: the number of values is out of range, the scope or the start is unknown, or a
            glob matches no layer with a kernel.

    Source:
        Han, Mao & Dally 2016, Deep Compression, https://arxiv.org/abs/1510.00149, section 3.
    """
    if not 2 <= values <= MOST_VALUES:
        raise UsageError(f"values={values} is out of range: give 2 to {MOST_VALUES}")
    if scope not in CLUSTER_SCOPES:
        raise UsageError(f"scope is {scope!r}; choose {' or '.join(map(repr, CLUSTER_SCOPES))}")
    if start not in CLUSTER_STARTS:
        raise UsageError(f"start is {start!r}; choose {' or '.join(map(repr, CLUSTER_STARTS))}")
    clustered = cloning.copy(model)
    for number, kernel in enumerate(kernels(clustered, include, exclude)):
        array = keras.ops.convert_to_numpy(kernel.variable)
        result = array.copy()
        for part in _parts(kernel, scope):
            result[part] = _clustered(array[part], values, start, seed + number)
        kernel.variable.assign(result)
    return clustered


def _parts(kernel: Kernel, scope: ClusterScope) -> Iterator[tuple[Any, ...]]:
    """The indices of the parts of a kernel that have values of their own."""
    shape, own = kernel.variable.shape, kernel.axes.channels
    if scope == "layer" or len(own) == len(shape):
        yield (...,)
        return
    for index in np.ndindex(*(shape[axis] for axis in own)):
        place: list[Any] = [slice(None)] * len(shape)
        for axis, number in zip(own, index, strict=True):
            place[axis] = number
        yield tuple(place)


def _clustered(array: np.ndarray, values: int, start: ClusterStart, seed: int) -> np.ndarray:
    """The centroids nearest to some weights, which keep their zeros."""
    from sklearn.cluster import KMeans

    living = array[array != 0]
    centroids = values - (living.size < array.size)
    if len(np.unique(living)) <= centroids:
        return array
    sample = living.astype(np.float64)
    if sample.size > _FITTED_WEIGHTS:
        sample = np.random.default_rng(seed).choice(sample, _FITTED_WEIGHTS, replace=False)
    if start == "k-means++":
        means = KMeans(centroids, init=start, n_init=1, random_state=seed)
    else:
        # The extremes of all weights, whichever are in the sample.
        first = (
            np.linspace(living.min(), living.max(), centroids)
            if start == "linear"
            else np.quantile(sample, (np.arange(centroids) + 0.5) / centroids)
        )
        means = KMeans(centroids, init=first[:, None], n_init=1, random_state=seed)
    with warnings.catch_warnings():
        # It warns where equal weights leave fewer clusters than were asked for.
        warnings.simplefilter("ignore")
        means.fit(sample[:, None])
    result = array.copy()
    nearest = means.predict(living.astype(np.float64)[:, None])
    result[array != 0] = means.cluster_centers_[nearest, 0].astype(array.dtype)
    return result


class ClusterConstraint(keras.constraints.Constraint):
    """Holds weights of one tensor that are equal at the same value, after every update.

    The value of a cluster moves by the mean of its weights' updates. For SGD this is a step along
    the gradient of the value, which is the sum of its weights' gradients (Han et al. 2016), with
    the learning rate divided by their number, so that learning rates keep their meaning. Weights
    that are zero stay zero.

    Args:
        shape: shape of the weight.
        inner: the constraint the weight had before. It is applied first, and this one after it.

    Attributes:
        members: int32 variable of that shape, the number of each weight's cluster, of which 0 has
            the zeros.
        count: how many clusters there are; 0 before `read`.
        shares: whether two weights that are not zero share a value.
    """

    def __init__(self, shape: tuple[int, ...], inner: Callable[[Any], Any] | None = None) -> None:
        self.inner = inner
        self.members = keras.Variable(
            np.zeros(shape, np.int32), dtype="int32", trainable=False, name="members"
        )
        self.count = 0
        self.shares = False

    def read(self, values: np.ndarray) -> None:
        """Takes the weights that are equal now for clusters; before the step is traced."""
        # Zero is the first value that is found, whether a weight has it or not.
        found, members = np.unique(np.append(0, values), return_inverse=True)
        order = np.argsort(found != 0, kind="stable")
        numbers = np.empty_like(order)
        numbers[order] = np.arange(order.size)
        self.members.assign(numbers[members.reshape(-1)[1:]].reshape(values.shape))
        self.count = found.size
        self.shares = bool(found.size - 1 < np.count_nonzero(values))

    def __call__(self, w: Any) -> Any:
        """Applies the inner constraint, then shares the values."""
        return self.project(w if self.inner is None else self.inner(w))

    def project(self, w: Any) -> Any:
        """Gives the weights of each cluster their mean, and those of the first one zero."""
        w = ops.convert_to_tensor(w)
        if not self.count:
            return w
        if not self.shares:
            return ops.where(self.members == 0, ops.zeros_like(w), w)
        flat = ops.reshape(ops.cast(w, "float32"), (-1,))
        members = ops.reshape(self.members, (-1,))
        # About one of the weights: weights that are equal keep their very bits.
        first = ops.segment_max(flat, members, num_segments=self.count)
        excess = flat - ops.take(first, members)
        sums = ops.segment_sum(excess, members, num_segments=self.count)
        sizes = ops.segment_sum(ops.ones_like(flat), members, num_segments=self.count)
        means = first + sums / ops.maximum(sizes, 1)
        shared = ops.where(members == 0, 0.0, ops.take(means, members))
        return ops.cast(ops.reshape(shared, ops.shape(w)), w.dtype)


class KeepClusters(KeepingCallback):
    """Holds weights that are equal when training begins equal until it ends, and zeros at zero.

    This is how a clustered model is trained further. The clusters are read from the weights at the
    first batch, so a restored checkpoint brings its own; nothing stays in the model. Weights that
    share their value with no other train as ever.

    Example:
        ```python
        small = cluster(model, values=16)
        small.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        small.fit(x, y, callbacks=[KeepClusters()])
        ```

    Args:
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form.

    Raises:
        UsageError: when a fit begins whose `PruneWeights` would make members of a cluster zero.

    Source:
        Han, Mao & Dally 2016, Deep Compression, https://arxiv.org/abs/1510.00149, section 3.
    """

    _attached: AttachedConstraints[ClusterConstraint]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the constraints on."""
        super().on_train_begin(logs)
        if any(isinstance(callback, PruneWeights) for callback in self._fit_callbacks()):
            self._leave_callbacks()
            raise UsageError(
                "KeepClusters: PruneWeights in the same fit sets members of a cluster to zero: "
                "prune first, then cluster; zeros stay zero"
            )

    def _constraints(
        self, variables: Iterable[keras.Variable]
    ) -> AttachedConstraints[ClusterConstraint]:
        return AttachedConstraints(variables, ClusterConstraint)

    def _read(self) -> None:
        for variable, constraint in self._attached:
            constraint.read(ops.convert_to_numpy(variable))
