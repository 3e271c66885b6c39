"""Every name the zoo builds and the options it takes: tables alone, so that no Keras is needed."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tfprune.errors import UsageError, did_you_mean

# Beyond these no machine holds the net.
MOST_WIDTH, MOST_BLOCKS, MOST_LAYERS, MOST_MULTIPLIER = 1024, 16, 64, 16


@dataclass(frozen=True)
class Net:
    """A net of the papers.

    Attributes:
        module: the module of the zoo that builds it.
        function: what builds it there.
        fixed: arguments that the name stands for.
        options: arguments that are left to the caller.
    """

    module: str
    function: str
    fixed: dict[str, int]
    options: tuple[str, ...] = ("width",)


@dataclass(frozen=True)
class Application:
    """A classifier of `keras.applications`.

    Attributes:
        convention: what its pixels must be: `"tf"` -1..1, `"torch"` and `"caffe"` ImageNet's mean
            taken off each colour, `"inside"` 0..255, which its own first layers scale.
        smallest: least height and width in pixels.
        options: numbers and switches of its own that matter below its top.
        rgb: its convention has a figure for red, green and blue, and none for other channels.
    """

    convention: Literal["tf", "torch", "caffe", "inside"]
    smallest: int = 32
    options: tuple[str, ...] = ()
    rgb: bool = False


NETS: dict[str, Net] = {
    "conv2": Net("conv", "conv", {"modules": 1}),
    "conv4": Net("conv", "conv", {"modules": 2}),
    "conv6": Net("conv", "conv", {"modules": 3}),
    "vgg": Net("vgg", "vgg", {}, ("blocks", "width")),
    **{
        f"resnet{depth}": Net("resnet", "resnet", {"depth": depth})
        for depth in (20, 32, 44, 56, 110)
    },
}

_CONVNEXT = Application("inside", rgb=True)
_DENSENET = Application("torch", rgb=True)
_EFFICIENTNET = Application("inside")
_MOBILENET_V3 = Application("inside", options=("alpha", "minimalistic"))
_NASNET = Application("tf")
_RESNET = Application("caffe", rgb=True)
_RESNET_V2 = Application("tf")
_VGG = Application("caffe", rgb=True)

KERAS_APPLICATIONS: dict[str, Application] = {
    **{f"ConvNeXt{size}": _CONVNEXT for size in ("Base", "Large", "Small", "Tiny", "XLarge")},
    **{f"DenseNet{depth}": _DENSENET for depth in (121, 169, 201)},
    **{f"EfficientNetB{size}": _EFFICIENTNET for size in range(8)},
    **{f"EfficientNetV2{size}": _EFFICIENTNET for size in ("B0", "B1", "B2", "B3", "L", "M", "S")},
    "InceptionResNetV2": Application("tf", smallest=75),
    "InceptionV3": Application("tf", smallest=75),
    "MobileNet": Application("tf", options=("alpha", "depth_multiplier")),
    "MobileNetV2": Application("tf", options=("alpha",)),
    "MobileNetV3Large": _MOBILENET_V3,
    "MobileNetV3Small": _MOBILENET_V3,
    "NASNetLarge": _NASNET,
    "NASNetMobile": _NASNET,
    **{f"ResNet{depth}": _RESNET for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": _RESNET_V2 for depth in (50, 101, 152)},
    "VGG16": _VGG,
    "VGG19": _VGG,
    "Xception": Application("tf", smallest=71),
}

NAMES: tuple[str, ...] = tuple(NETS)
"""The nets of the papers."""

APPLICATIONS: tuple[str, ...] = tuple(KERAS_APPLICATIONS)
"""The classifiers of `keras.applications`."""


def options_of(name: str) -> tuple[str, ...]:
    """The options of a name, sorted.

    Args:
        name: one of `NAMES` or `APPLICATIONS`.
    """
    if name in NETS:
        return NETS[name].options
    return tuple(sorted(("dropout", "weights", *KERAS_APPLICATIONS[name].options)))


def check(name: str, options: Iterable[str] = ()) -> None:
    """Checks a name, the names of its options and their values, without importing Keras.

    Args:
        name: what `build` is to build.
        options: the options' names, or the options themselves by name.

    Raises:
        UsageError: The zoo has no such name, or the name no such option, or it cannot have that
            value.
    """
    if name not in NETS and name not in KERAS_APPLICATIONS:
        raise UsageError(f"unknown model {name!r}: {_near(name)}")
    for option in options:
        if option not in options_of(name):
            raise UsageError(
                f"unknown option {option!r} of {name}: {did_you_mean(option, options_of(name))}"
            )

    if isinstance(options, Mapping):
        for option, value in options.items():
            check_value(option, value)


def check_value(option: str, value: Any) -> None:
    """Checks the value of an option.

    Args:
        option: one of those of `options_of`.
        value: what it was given.

    Raises:
        UsageError: It cannot have that value.
    """
    if option == "width":
        positive(option, value, MOST_WIDTH)
    elif option == "depth_multiplier":
        positive(option, value, MOST_MULTIPLIER)
    elif option == "blocks":
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UsageError(
                f"blocks is {value!r} and must be a list of whole numbers, such as [2, 2, 2]"
            )
        positive("the number of blocks", len(value), MOST_BLOCKS)
        for each in value:
            positive("a number in blocks", each, MOST_LAYERS)
    elif option == "minimalistic":
        if not isinstance(value, bool):
            raise UsageError(f"minimalistic is {value!r} and must be true or false")
    elif option == "dropout":
        if not _number(value) or not 0 <= value < 1:
            raise UsageError(f"dropout is {value!r} and must be a number from 0 to below 1")
    elif option == "alpha":
        if not _number(value) or value <= 0:
            raise UsageError(f"alpha is {value!r} and must be a number above 0")
        if value > MOST_MULTIPLIER:
            raise UsageError(f"alpha is {value!r} and must be at most {MOST_MULTIPLIER}")
    elif option == "weights" and not isinstance(value, str | os.PathLike):
        raise UsageError(
            f'weights is {value!r} and must be "imagenet", "random" or the path of a file'
        )


def positive(what: str, value: Any, most: int | None = None) -> int:
    """Returns a whole number of 1 or more.

    Raises:
        UsageError: On anything else, and above `most`.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    number = int(value) if whole else 0
    if number < 1:
        raise UsageError(f"{what} is {value!r} and must be a whole number of 1 or more")
    if most is not None and number > most:
        raise UsageError(f"{what} is {number:.6g} and must be at most {most}")
    return number


def _number(value: object) -> bool:
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return known and math.isfinite(value)  # type: ignore[arg-type]


def _near(name: Any) -> str:
    names = NAMES + APPLICATIONS
    # Of "resnet50", the letters alone say resnet56.
    for each in names:
        if each.lower() == str(name).lower():
            return f"did you mean {each!r}?"
    otherwise = (
        f"choose one of {', '.join(NAMES)}, or a classifier of keras.applications "
        "such as MobileNetV2 or ResNet50"
    )
    return did_you_mean(str(name), names, otherwise)
