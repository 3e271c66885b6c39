"""CNNs by name: those of the papers on pruning, and those of `keras.applications`.

Every one is a functional Keras model that takes float32 pixels 0 to 255 in channels-last order,
in the input "image", and gives logits, in the layer "logits". Those of the papers normalise pixels
in their first layer ("normalize"), each layer has a name a person can read, and each weight's start
depends on the seed and the layer alone. Those of `keras.applications` take pixels as their ImageNet
weights want them, and keep the layer names of Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfprune.zoo._catalogue import APPLICATIONS, NAMES, NETS, check

if TYPE_CHECKING:
    import keras

__all__ = ["APPLICATIONS", "NAMES", "build", "check"]


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
        name: One of `NAMES` or `APPLICATIONS`.
        input_shape: (height, width, channels) of one image.
        classes: How many logits.
        mean: Mean grey level (0 to 255) of each channel, as `tfprune.data.statistics` gives it.
            Without mean and std, pixels are scaled to -1..1. A name of `APPLICATIONS` has a
            convention of its own, which goes first; see `tfprune.zoo.applications.application`.
        std: Its standard deviation.
        seed: Fixes every weight that starts at random; Keras' global random state is left as it is.
        **options: What the name offers. A net of the papers: `width` (filters of the first layer),
            and vgg also `blocks` (convolutions in each block). A name of `APPLICATIONS`: `weights`
            ("imagenet", "random" or a file), `dropout` before the logits, and what Keras offers for
            it, such as `alpha`.

    Returns:
        An uncompiled model.

    Raises:
        UsageError: On an unknown name or option, or an impossible value.
        TfpruneError: ImageNet weights cannot be fetched.
    """
    check(name, options)
    # These modules import Keras, which checking a name must not wait for.
    if name in NETS:
        net = NETS[name]
        family = getattr(importlib.import_module(f"tfprune.zoo.{net.module}"), net.function)
        options |= net.fixed
    else:
        family = importlib.import_module("tfprune.zoo.applications").application
    return family(input_shape, classes, mean=mean, std=std, seed=seed, name=name, **options)
