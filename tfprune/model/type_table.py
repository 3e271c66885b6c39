"""A table by layer type that also covers subclasses which compute the same."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

# Methods that a subclass may define without changing what it computes: they build, describe and
# save the layer.
_HARMLESS = {
    "build",
    "build_from_config",
    "compute_mask",
    "compute_output_shape",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}


class TypeTable(dict[type, T]):
    """A table by layer or operation type, which also covers subclasses that compute the same.

    Example:
        ```python
        table = TypeTable({keras.layers.Conv2D: "convolution"})
        table.of(keras.layers.Conv2D(8, 3))  # "convolution"
        table.of(keras.layers.Dense(2))  # None
        ```

    A subclass has the entry of its base class if no class between the two overrides `call` or
    another method of the base, except methods that build, describe or save the layer.
    """

    def of(self, operation: object) -> T | None:
        """The entry for an operation; None if the table has none."""
        if "call" in vars(operation):
            return None
        try:
            return self[type(operation)]
        except KeyError:
            return None

    def __missing__(self, layer_type: type) -> T:
        for base in layer_type.__mro__:
            if base in self and computes_like(layer_type, base):
                return self[base]
            if base in self:
                break
        raise KeyError(layer_type)


def computes_like(layer_type: type, base: type) -> bool:
    """Whether a class computes what its base class computes.

    Args:
        layer_type: the base class itself or a subclass of it.
        base: a class of the table.
    """
    between = layer_type.__mro__[: layer_type.__mro__.index(base)]
    names = {name for subclass in between for name in vars(subclass)} - _HARMLESS
    return not any(
        hasattr(base, name)
        for name in names
        if name == "__call__" or not (name.startswith("__") and name.endswith("__"))
    )
