"""What is known of layer types, and which classes it holds for."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

# What a subclass may define without another computation: how it is made, described and saved.
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
    """A table by layer or operation type, which holds for subclasses that compute the same.

    A class that derives from one of the table follows it as long as neither it nor a class between
    them defines `call`, or anything else of the base but how it is made, described and saved.

    Example:
        ```python
        table = TypeTable({keras.layers.Conv2D: "convolution"})
        table.of(MyConv(8, 3))  # "convolution" where MyConv only has an __init__ of its own
        ```
    """

    def of(self, operation: object) -> T | None:
        """The entry that holds for an operation, None where there is none."""
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
        layer_type: the class itself or one that derives from it.
        base: the class that is known.
    """
    between = layer_type.__mro__[: layer_type.__mro__.index(base)]
    names = {name for each in between for name in vars(each)} - _HARMLESS
    return not any(
        hasattr(base, name)
        for name in names
        if name == "__call__" or not (name.startswith("__") and name.endswith("__"))
    )
