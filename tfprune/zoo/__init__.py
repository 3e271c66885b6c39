"""The CNNs of the papers on pruning, by name.

Every one is a functional Keras model that takes float32 pixels 0 to 255 in channels-last order,
normalises them in its first layer ("normalize"), and gives logits ("logits"). Each layer has a
name a person can read, and each weight's start depends on the seed and the layer alone.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfprune.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import keras

# Name to (module, function, what the name fixes). The modules import Keras, so they load late.
_FAMILIES: dict[str, tuple[str, str, dict[str, int]]] = {
    "conv2": ("conv", "conv", {"modules": 1}),
    "conv4": ("conv", "conv", {"modules": 2}),
    "conv6": ("conv", "conv", {"modules": 3}),
    "vgg": ("vgg", "vgg", {}),
    **{f"resnet{depth}": ("resnet", "resnet", {"depth": depth}) for depth in (20, 32, 44, 56, 110)},
}

NAMES: tuple[str, ...] = tuple(_FAMILIES)
"""What `build` knows."""


def build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **options: Any,
) -> keras.Model:
    """Builds a model by name.

    Args:
        name: One of `NAMES`.
        input_shape: (height, width, channels) of one image.
        classes: How many logits.
        mean: Mean grey level (0 to 255) of each channel, as `tfprune.data.statistics` gives it.
            Without mean and std, pixels are scaled to -1..1.
        std: Its standard deviation.
        seed: Fixes every initial weight; Keras' global random state is neither used nor changed.
        **options: What the family offers: `width` (filters of the first layer) for all of them,
            `blocks` (convolutions in each block) for vgg.

    Returns:
        An uncompiled model.

    Raises:
        UsageError: On an unknown name or option, or an impossible value.
    """
    if name not in _FAMILIES:
        raise UsageError(f"unknown model {name!r}: {did_you_mean(name, NAMES)}")
    module, function, fixed = _FAMILIES[name]
    family = getattr(importlib.import_module(f"tfprune.zoo.{module}"), function)
    parameters = inspect.signature(family).parameters.values()
    offered = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {
        "mean",
        "std",
        "seed",
        "name",
    }
    offered -= set(fixed)
    for option in options:
        if option not in offered:
            raise UsageError(
                f"unknown option {option!r} of {name}: {did_you_mean(option, sorted(offered))}"
            )
    return family(
        input_shape, classes, mean=mean, std=std, seed=seed, name=name, **fixed, **options
    )
