"""CNNs by name: those of papers on pruning, and those of `keras.applications`.

Each of them is a functional Keras model. Its input "image" takes float32 pixels, 0 to 255, channels
last; its layer "logits" returns logits. The CNNs of papers normalise pixels in their first layer,
"normalize". Their layers have readable names, and the initial weights of a layer depend only on the
seed and its position. The CNNs of `keras.applications` scale pixels as their ImageNet weights
require, and their layers have the names of Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfprune.zoo.catalogue import APPLICATIONS, NAMES, NETS, canonical, check

if TYPE_CHECKING:
    import keras

__all__ = ["APPLICATIONS", "NAMES", "build", "canonical", "check", "usual_size"]

_IMAGENET_SIZE = (224, 224)
_CIFAR_SIZE = (32, 32)


def usual_size(name: str) -> tuple[int, int]:
    """The height and width of the images of the paper of a net.

    Example:
        >>> usual_size("resnet20")
        (32, 32)
    """
    return _IMAGENET_SIZE if name in APPLICATIONS else _CIFAR_SIZE


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

    Example:
        ```python
        model = zoo.build("resnet20", (32, 32, 3), 10)
        model = zoo.build("MobileNetV2", (96, 96, 3), 5, weights="imagenet", alpha=0.35)
        ```

    Args:
        name: one of `NAMES` or `APPLICATIONS`, in upper or lower case.
        input_shape: (height, width, channels) of one image.
        classes: number of logits.
        mean: mean of each channel, 0 to 255, as `tfprune.data.statistics` returns it. Without mean
            and std, pixels are scaled to -1..1. The names in `APPLICATIONS` have their own
            convention, which takes precedence; see `tfprune.zoo.applications.application`.
        std: standard deviation of each channel.
        seed: fixes all random initial weights. Keras' global random state does not change.
        **options: the options of the name. The CNNs of papers have `width` (filters of the first
            layer), and vgg also `blocks` (convolutions in each block). Names in `APPLICATIONS` have
            `weights` ("imagenet", "random" or a file), `dropout` before the logits, `trainable`
            ("all", or "head" for the logits alone), and options of the Keras function, such as
            `alpha`.

    Returns:
        An uncompiled model.

    Raises:
        UsageError: a name or option is unknown, or a value is impossible.
        TfpruneError: ImageNet weights cannot be downloaded.
    """
    check(name, options)
    name = canonical(name) or name
    # These modules import Keras, which a check of the name does not need.
    if name in NETS:
        net = NETS[name]
        family = getattr(importlib.import_module("tfprune.zoo.papers"), net.function)
        options |= net.fixed
    else:
        family = importlib.import_module("tfprune.zoo.applications").application
    return family(input_shape, classes, mean=mean, std=std, seed=seed, name=name, **options)
