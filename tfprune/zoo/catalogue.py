"""The names of the zoo and their options, as tables that do not need Keras."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfprune.errors import UsageError, did_you_mean, shorten


@dataclass(frozen=True)
class Net:
    """A CNN of a paper.

    Attributes:
        function: the function in `tfprune.zoo.papers` that builds it.
        fixed: arguments that the name fixes.
        options: arguments that the caller may give.
    """

    function: str
    fixed: dict[str, int]
    options: tuple[str, ...] = ("width",)


@dataclass(frozen=True)
class Application:
    """A classifier of `keras.applications`.

    Attributes:
        convention: how its input is scaled: `"tf"` to -1..1; `"torch"` and `"caffe"` subtract
            ImageNet's mean of each colour; `"inside"` takes 0..255, scaled by its own first layers.
        smallest: the smallest height and width in pixels.
        options: arguments of the Keras function that have an effect below its top.
        rgb: whether its convention is defined only for red, green and blue.
    """

    convention: Literal["tf", "torch", "caffe", "inside"]
    smallest: int = 32
    options: tuple[str, ...] = ()
    rgb: bool = False


NETS: dict[str, Net] = {
    "conv2": Net("conv", {"modules": 1}),
    "conv4": Net("conv", {"modules": 2}),
    "conv6": Net("conv", {"modules": 3}),
    "vgg": Net("vgg", {}, ("blocks", "width")),
    **{f"resnet{depth}": Net("resnet", {"depth": depth}) for depth in (8, 20, 32, 44, 56, 110)},
    "mobilenetv1": Net("mobilenet", {}),
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

TRAINABLE = ("all", "head")
"""What of a classifier of `keras.applications` trains: everything, or the new logits alone."""

NAMES: tuple[str, ...] = tuple(NETS)
"""The CNNs of papers."""

APPLICATIONS: tuple[str, ...] = tuple(KERAS_APPLICATIONS)
"""The classifiers of `keras.applications`."""


_BY_LOWER_CASE = {name.lower(): name for name in NAMES + APPLICATIONS}


def canonical(name: str) -> str | None:
    """The name of the zoo that is meant, whatever its upper and lower case; None if there is none.

    Example:
        ```python
        canonical("mobilenetv2")  # "MobileNetV2"
        ```
    """
    return _BY_LOWER_CASE.get(name.lower())


def options_of(name: str) -> tuple[str, ...]:
    """The options of a name, sorted.

    Example:
        ```python
        options_of("VGG16")  # ("dropout", "trainable", "weights")
        ```

    Args:
        name: one of `NAMES` or `APPLICATIONS`.
    """
    if name in NETS:
        return NETS[name].options
    return tuple(sorted(("dropout", "trainable", "weights", *KERAS_APPLICATIONS[name].options)))


def check(name: str, options: Iterable[str] | Mapping[str, Any] = ()) -> None:
    """Checks a name and its options without importing Keras.

    Example:
        ```python
        zoo.check("resnet20", {"width": 8})
        ```

    Args:
        name: the name of a model, as for `build`.
        options: the options with their values; or only their names. Each net also has `classes`,
            for data that do not tell how many logits there are.

    Raises:
        UsageError: the name or an option is unknown, or a value is impossible.
    """
    known = canonical(name)
    if known is None:
        raise UsageError(f"unknown model {name!r}: {_suggestion(name)}")
    offered = (*options_of(known), "classes")
    for option in options:
        if option not in offered:
            raise UsageError(
                f"unknown option {option!r} of {known}: {did_you_mean(option, offered)}"
            )
    for option, value in options.items() if isinstance(options, Mapping) else ():
        check_option(option, value, known)


# No paper has wider or deeper nets; larger values are typing errors.
_WIDEST, _MOST_BLOCKS = 1024, 64


def check_option(option: str, value: Any, of: str = "the net") -> Any:
    """Checks the value of an option and converts it to the type that the nets take.

    Example:
        ```python
        check_option("width", np.int64(8))  # 8
        check_option("alpha", 1)  # 1.0
        ```

    Args:
        option: an option of a name of the zoo; see `options_of`.
        value: the value of the option.
        of: the name of the model, for the message.

    Returns:
        The converted value.

    Raises:
        UsageError: the value is impossible.
    """
    match option:
        case "width":
            return positive(option, value, _WIDEST)
        case "blocks":
            if not isinstance(value, list | tuple):
                raise UsageError(
                    f"blocks is {_quote(value)} and must be a list of whole numbers, such as [2, 2]"
                )
            positive("the number of blocks", len(value), _MOST_BLOCKS)
            return tuple(positive("a number in blocks", count, _MOST_BLOCKS) for count in value)
        case "depth_multiplier":
            return positive(option, value, _WIDEST)
        case "classes":
            return positive(option, value)
        case "trainable":
            if value not in TRAINABLE:
                raise UsageError(
                    f"trainable is {_quote(value)} and must be one of {', '.join(TRAINABLE)}"
                )
            return value
        case "minimalistic":
            if not isinstance(value, bool):
                raise UsageError(f"minimalistic is {_quote(value)} and must be true or false")
            return value
        case "dropout":
            if not _is_number(value) or not 0 <= value < 1:
                raise UsageError(
                    f"dropout is {_quote(value)} and must be a number from 0 to below 1"
                )
            return value
        case "alpha":
            if not _is_number(value) or value <= 0:
                raise UsageError(f"alpha is {_quote(value)} and must be a number above 0")
            if value > _WIDEST:
                raise UsageError(f"alpha is {_quote(value)}, beyond {_WIDEST:,}, the most there is")
            # It is part of the name of Keras' weight file, with a decimal point.
            return float(value)
        case "weights":
            if not isinstance(value, str | os.PathLike) or not str(value):
                raise UsageError(
                    f"weights of {of} are {_quote(str(value))}, which is not a file: "
                    'give "imagenet", "random" or the path of a file'
                )
            return value
    raise AssertionError(option)


def positive(what: str, value: Any, largest: int | None = None) -> int:
    """Checks that a value is a whole number of 1 or more, and converts it to int.

    Example:
        ```python
        positive("classes", np.int64(10))  # 10
        ```

    Args:
        what: what the value is, for the message.
        value: the value to check.
        largest: the largest value that is allowed.

    Raises:
        UsageError: the value is something else.
    """
    # bool is a subclass of int; NumPy's integers are not.
    whole = type(value) is not bool and isinstance(value, numbers.Integral)
    number = int(value) if whole else 0
    if number < 1:
        raise UsageError(f"{what} is {_quote(value)} and must be a whole number of 1 or more")
    if largest is not None and number > largest:
        raise UsageError(f"{what} is beyond {largest:,}, the most there is")
    return number


def _is_number(value: Any) -> bool:
    known = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return known and math.isfinite(value)


def _quote(value: Any) -> str:
    return shorten(repr(value))


def _suggestion(name: Any) -> str:
    otherwise = (
        f"choose one of {', '.join(NAMES)}, or a classifier of keras.applications "
        "such as MobileNetV2 or ResNet50; or give a .keras file, or FILE.py:FUNCTION"
    )
    # "mobilenet_v2" is nearer to MobileNetV2 than to mobilenetv1, whatever the case.
    close = difflib.get_close_matches(str(name).lower(), _BY_LOWER_CASE, n=1, cutoff=0.5)
    return did_you_mean(_BY_LOWER_CASE[close[0]], NAMES + APPLICATIONS) if close else otherwise
