"""What is known of activation functions, whichever namespace they were taken from.

`keras.activations.relu`, `keras.ops.relu` and `tf.nn.relu` are three functions that mean the same.
They are known by the names under which Keras and TensorFlow publish them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

# Each maps every number by itself.
_POINTWISE = [
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "softplus",
    "softsign",
    "sigmoid",
    "log_sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "hard_shrink",
    "soft_shrink",
    "tanh",
    "tanh_shrink",
    "threshold",
    "squareplus",
    "sparse_plus",
    "sparse_sigmoid",
    "exponential",
    "identity",
    "stop_gradient",
    "abs",
    "absolute",
    "exp",
    "expm1",
    "log1p",
    "erf",
    "erfc",
    "sin",
    "cos",
    "sinh",
    "cosh",
    "tan",
    "arcsinh",
    "asinh",
    "arctan",
    "atan",
    "sqrt",
    "rsqrt",
    "square",
    "negative",
    "sign",
    "floor",
    "ceil",
    "round",
]
# Each spreads over the last axis.
_MIXING = ["softmax", "log_softmax", "sparsemax"]
_NAMESPACES = ("activations", "ops", "ops.nn", "ops.numpy")
_OF_TENSORFLOW = ("", "nn", "math")

_registered: set[Callable[..., Any]] = set()


def register_pointwise(*functions: Callable[..., Any]) -> None:
    """Says that activation functions map every number by itself, so that channels may go.

    tfprune knows Keras' and TensorFlow's own functions. It cannot look into others, and keeps the
    channels that meet them.

    Example:
        ```python
        def capped(x):
            return keras.ops.clip(x, 0.0, 6.0)

        tfprune.register_pointwise(capped)
        ```

    Args:
        *functions: each from a tensor to one of the same shape, `f(x)[i] == f(x[i])` for every
            index; anything else gives wrong slim models.
    """
    _registered.update(functions)


def acts_alone(activation: Any) -> bool:
    """Whether an activation is known to map every number by itself; None counts as linear.

    Args:
        activation: what a layer holds: a function, a `functools.partial` of one with numbers, or a
            layer such as `LeakyReLU`.
    """
    if isinstance(activation, keras.layers.Activation):
        activation = activation.activation
    if type(activation) in (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU):
        return True
    function = _with_numbers(activation)
    return function is None or means(function, *_POINTWISE) or function in _registered


def spreads(activation: Any) -> bool:
    """Whether an activation is known to work along the last axis, as softmax does."""
    return means(_with_numbers(activation), *_MIXING)


def means(activation: Any, *names: str) -> bool:
    """Whether a function is one that Keras or TensorFlow publish under some name.

    Args:
        activation: any object.
        *names: such as "relu".
    """
    return any(activation is each for name in names for each in _spellings(name))


def _with_numbers(activation: Any) -> Any:
    """The function itself where numbers are given to it beforehand."""
    while isinstance(activation, functools.partial):
        numbers = activation.keywords.values()
        if activation.args or not all(value is None or np.isscalar(value) for value in numbers):
            return activation
        activation = activation.func
    return activation


@functools.cache
def _spellings(name: str) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(_published(name)))


def _published(name: str) -> Iterable[Any]:
    roots: list[tuple[Any, tuple[str, ...]]] = [(keras, _NAMESPACES)]
    # Not imported for this: where it is not there, no function of it is given.
    if tensorflow := sys.modules.get("tensorflow"):
        roots.append((tensorflow, _OF_TENSORFLOW))
    for root, namespaces in roots:
        for path in namespaces:
            space = functools.reduce(getattr, filter(None, path.split(".")), root)
            if found := getattr(space, name, None):
                yield found
