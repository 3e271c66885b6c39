"""Every name the zoo builds and the options it takes: tables alone, so that no Keras is needed."""

from __future__ import annotations

from collections.abc import Iterable
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


def check(name: str, options: Iterable[str] = ()) -> None:
    """Checks a name and the names of its options, without importing Keras.

    Args:
        name: what `build` is to build.
        options: the options' names, or the options themselves by name.

    Raises:
        UsageError: The zoo has no such name, or the name no such option.
    """
    if name not in NETS and name not in KERAS_APPLICATIONS:
        raise UsageError(f"unknown model {name!r}: {_near(name)}")
    for option in options:
        if option not in options_of(name):
            raise UsageError(
                f"unknown option {option!r} of {name}: {did_you_mean(option, options_of(name))}"
            )


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
