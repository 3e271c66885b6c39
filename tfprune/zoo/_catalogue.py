"""Every name the zoo builds and the options it takes: tables alone, so that no Keras is needed."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfprune.errors import UsageError, did_you_mean


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


def check(name: str, options: Iterable[str] | Mapping[str, Any] = ()) -> None:
    """Checks a name and its options, without importing Keras.

    Args:
        name: what `build` is to build.
        options: the options by name, whose values are checked too; or their names alone.

    Raises:
        UsageError: The zoo has no such name, the name no such option, or the option no such value.
    """
    if name not in NETS and name not in KERAS_APPLICATIONS:
        raise UsageError(f"unknown model {name!r}: {_near(name)}")
    for option in options:
        if option not in options_of(name):
            raise UsageError(
                f"unknown option {option!r} of {name}: {did_you_mean(option, options_of(name))}"
            )
    for option, value in options.items() if isinstance(options, Mapping) else ():
        checked(option, value, name)


# Wider and deeper nets than any paper's; a typing error is larger still.
_WIDEST, _MOST_BLOCKS = 1024, 64


def checked(option: str, value: Any, of: str = "the net") -> Any:
    """The value of an option.

    Args:
        option: one of `options_of` some name.
        value: what was given.
        of: the name, for the message.

    Returns:
        The same value, a number in the type that the nets take.

    Raises:
        UsageError: It cannot be; the message says what can.
    """
    match option:
        case "width":
            return positive(option, value, _WIDEST)
        case "blocks":
            if not isinstance(value, list | tuple):
                raise UsageError(
                    f"blocks is {_cut(value)} and must be a list of whole numbers, such as [2, 2]"
                )
            positive("the number of blocks", len(value), _MOST_BLOCKS)
            return tuple(positive("a number in blocks", each, _MOST_BLOCKS) for each in value)
        case "depth_multiplier":
            return positive(option, value, _WIDEST)
        case "minimalistic":
            if not isinstance(value, bool):
                raise UsageError(f"minimalistic is {_cut(value)} and must be true or false")
            return value
        case "dropout":
            if not _is_number(value) or not 0 <= value < 1:
                raise UsageError(f"dropout is {_cut(value)} and must be a number from 0 to below 1")
            return value
        case "alpha":
            if not _is_number(value) or value <= 0:
                raise UsageError(f"alpha is {_cut(value)} and must be a number above 0")
            if value > _WIDEST:
                raise UsageError(f"alpha is {_cut(value)}, beyond {_WIDEST:,}, the most there is")
            # Keras writes it into the names of weight files, where 1 is not 1.0.
            return float(value)
        case "weights":
            if not isinstance(value, str | os.PathLike) or not str(value):
                raise UsageError(
                    f"weights of {of} are {_cut(str(value))}, which is no file: "
                    'give "imagenet", "random" or the path of a file'
                )
            return value
    raise AssertionError(option)


def positive(what: str, value: Any, largest: int | None = None) -> int:
    """Returns a whole number of 1 or more.

    Raises:
        UsageError: On anything else.
    """
    # bool is a kind of int, and NumPy's integers are none.
    whole = type(value) is not bool and isinstance(value, numbers.Integral)
    number = int(value) if whole else 0
    if number < 1:
        raise UsageError(f"{what} is {_cut(value)} and must be a whole number of 1 or more")
    if largest is not None and number > largest:
        raise UsageError(f"{what} is beyond {largest:,}, the most there is")
    return number


def _is_number(value: Any) -> bool:
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return known and math.isfinite(value)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
