"""Group lasso: the penalty under which whole groups of weights become zero together."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import keras
from keras import ops

from tfprune.errors import UsageError

Groups = Literal["filter", "channel", "shape", "depth"]

# Inside the square root: without it the gradient of an all-zero group is NaN.
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="tfprune")
class GroupLasso(keras.regularizers.Regularizer):
    """Group lasso over the filters, channels, shapes or depth of a kernel.

    Example:
        ```python
        penalty = tfprune.GroupLasso(5e-3, groups="filter")
        layer = keras.layers.Conv2D(16, 3, kernel_regularizer=penalty)
        ```

    The penalty is `strength * sum over groups of sqrt(group size) * ||group||`, for a kernel of
    shape (..., inputs, outputs): Conv1D/2D/3D or Dense. Its gradient is finite everywhere, but
    alone it leaves groups small and none exactly zero; `tfprune.LearnStructure` applies the
    matching proximal step, which does.

    Args:
        strength: the factor of the penalty, 0 or more.
        groups: `filter`, each W[..., n]; `channel`, each W[..., c, :]; `shape`, each W[k, c, :];
            `depth`, the kernel as a whole.

    Raises:
        UsageError: a negative strength or an unknown kind of group.

    Source:
        Yuan & Lin 2006 (group lasso and its weighting by size); Wen et al. 2016, Learning
        Structured Sparsity in Deep Neural Networks (the four kinds of groups).
    """

    def __init__(self, strength: float, groups: Groups = "filter") -> None:
        if groups not in get_args(Groups):
            kinds = ", ".join(get_args(Groups))
            raise UsageError(f"GroupLasso has no groups {groups!r}: choose one of {kinds}")
        if not strength >= 0:
            raise UsageError(f"GroupLasso strength {strength} is negative: give 0 or more")
        self.strength = float(strength)
        self.groups = groups

    def __call__(self, x: Any) -> Any:
        """The penalty of kernel `x`, float (..., inputs, outputs), as a scalar of its dtype."""
        rank = len(x.shape)
        axes = {
            "filter": tuple(range(rank - 1)),
            "channel": (*range(rank - 2), rank - 1),
            "shape": (rank - 1,),
            "depth": tuple(range(rank)),
        }[self.groups]
        size = math.prod(x.shape[axis] for axis in axes)
        norms = ops.sqrt(ops.sum(ops.square(x), axis=axes) + _EPSILON) - math.sqrt(_EPSILON)
        return self.strength * math.sqrt(size) * ops.sum(norms)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal one."""
        return {"strength": self.strength, "groups": self.groups}


def shrinkage(squares: Any, sizes: Any, threshold: Any) -> Any:
    """The factor by which the proximal step of group lasso scales each group.

    Args:
        squares: float (groups,), each group's sum of squared weights.
        sizes: float (groups,), how many weights each group has.
        threshold: scalar, learning rate times strength.

    Returns:
        float (groups,) in 0..1: `max(0, 1 - threshold * sqrt(size) / norm)`, exactly 0 for a group
        whose norm is at most its threshold.

    Source:
        Parikh & Boyd 2014, Proximal Algorithms, section 6.5.4 (block soft thresholding).
    """
    norms = ops.sqrt(squares + _EPSILON)
    return ops.maximum(0.0, 1.0 - threshold * ops.sqrt(sizes) / norms)
