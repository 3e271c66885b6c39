"""Which activation functions work on each number alone, and which mix channels.

`keras.activations.relu`, `keras.ops.relu` and `tf.nn.relu` are three functions that compute the
same. This module identifies a function by the names under which Keras and TensorFlow publish it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

# Functions of one number: each output depends on one input only.
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
# Functions of the last axis: each output depends on all channels.
_MIXING = ["softmax", "log_softmax", "sparsemax"]
_NAMESPACES = ("activations", "ops", "ops.nn", "ops.numpy")
_TENSORFLOW_NAMESPACES = ("", "nn", "math")

_registered: set[Callable[..., Any]] = set()


def register_pointwise(*functions: Callable[..., Any]) -> None:
    """Declares that activation functions work on each number alone.

    Example:
        ```python
        def capped(x):
            return keras.ops.clip(x, 0.0, 6.0)

        tfprune.register_pointwise(capped)
        ```

    tfprune knows the functions of Keras and TensorFlow. It cannot look into other functions, so it
    removes no channel that passes through one of them until the function is registered.

    Args:
        *functions: each maps a tensor to a tensor of the same shape, with `f(x)[i] == f(x[i])` for
            every index. A function without this property makes slim models that compute something
            else.
    """
    _registered.update(functions)


def is_pointwise(activation: Any) -> bool:
    """Whether an activation is known to work on each number alone.

    Example:
        ```python
        is_pointwise(keras.ops.relu)  # True
        is_pointwise(keras.activations.softmax)  # False
        ```

    Args:
        activation: the activation of a layer: a function, a `functools.partial` that binds numbers
            to a function, a layer such as `LeakyReLU`, or None, which is linear.
    """
    if isinstance(activation, keras.layers.Activation):
        activation = activation.activation
    if type(activation) in (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU):
        return True
    function = _unwrap_partial(activation)
    return function is None or is_activation(function, *_POINTWISE) or function in _registered


def mixes_channels(activation: Any) -> bool:
    """Whether an activation is known to compute along the last axis, as softmax does.

    Example:
        ```python
        mixes_channels(keras.ops.softmax)  # True
        ```
    """
    return is_activation(_unwrap_partial(activation), *_MIXING)


def is_activation(activation: Any, *names: str) -> bool:
    """Whether an object is a function that Keras or TensorFlow publishes under one of the names.

    Example:
        ```python
        is_activation(tf.nn.relu, "linear", "relu")  # True
        ```

    Args:
        activation: any object.
        *names: names of functions, such as "relu".
    """
    return any(activation is function for name in names for function in _functions_named(name))


def _unwrap_partial(activation: Any) -> Any:
    """The function inside a `functools.partial` that binds numbers; any other object as it is."""
    while isinstance(activation, functools.partial):
        numbers = activation.keywords.values()
        if activation.args or not all(value is None or np.isscalar(value) for value in numbers):
            return activation
        activation = activation.func
    return activation


@functools.cache
def _functions_named(name: str) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(_find_published(name)))


def _find_published(name: str) -> Iterable[Any]:
    roots: list[tuple[Any, tuple[str, ...]]] = [(keras, _NAMESPACES)]
    # While TensorFlow is not imported, no layer holds one of its functions.
    if tensorflow := sys.modules.get("tensorflow"):
        roots.append((tensorflow, _TENSORFLOW_NAMESPACES))
    for root, namespaces in roots:
        for path in namespaces:
            space = functools.reduce(getattr, filter(None, path.split(".")), root)
            if function := getattr(space, name, None):
                yield function
