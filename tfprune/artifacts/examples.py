"""What a model is compared and calibrated on: examples by the name of the input they go to."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras
import numpy as np

from tfprune.data.adapting import SAMPLE, Data, examples
from tfprune.data.splits import spread
from tfprune.errors import UsageError
from tfprune.formats import Feeds, Tensor
from tfprune.formats.runtime import random_feeds
from tfprune.formats.signature import id_inputs, tensor_names

COMPARED_IMAGES = 256
# With fewer, none can be spared from calibration.
LEAST_EXAMPLES = 20
# One of so many is held back from calibration, for the comparison.
_HELD_BACK = 4
# Maps have many outputs an example; so many numbers in all tell as much as more would.
_COMPARED_OUTPUTS = 1 << 24
_FEWEST = 8


def by_input(model: keras.Model, data: Data, argument: str = "representative_data") -> Feeds:
    """Checks data for a model and says which input gets what.

    Args:
        model: A built Sequential or Functional model.
        data: In any form that `tfprune.data.examples` takes; targets are not looked at. A dict may
            also have the names that exported files give the inputs.
        argument: What the caller calls it, for messages.

    Returns:
        The data by the names that exported files give the inputs: all of what is in arrays, else
        `tfprune.data.adapting.SAMPLE` examples.

    Raises:
        UsageError: It does not fit the model.
    """
    names = tensor_names(model)[0]
    known = [x.name for x in model.inputs]
    if isinstance(data, Mapping) and set(data) == set(names) != set(known):
        data = [data[name] for name in names]
    some = examples(data, SAMPLE, model=model, what=argument, whole_arrays=True)
    return dict(zip(names, some.inputs.values(), strict=True))


def held_back(feeds: Feeds) -> tuple[Feeds, Feeds | None]:
    """Splits examples into those that calibrate and those that a calibrated file is compared on.

    Which ones is drawn once and for all: every fourth one of data that go through the classes in
    turn would be of the same few classes.

    Args:
        feeds: Equally many examples for each input.

    Returns:
        Three of four examples to calibrate, and the fourth to compare; all of them and None
        where there are fewer than `LEAST_EXAMPLES`.
    """
    count = min(len(images) for images in feeds.values())
    if count < LEAST_EXAMPLES:
        return feeds, None
    order = np.random.default_rng(0).permutation(count)
    for_comparison, for_calibration = np.split(order, [count // _HELD_BACK])
    calibration, comparison = (
        {name: images[np.sort(places)] for name, images in feeds.items()}
        for places in (for_calibration, for_comparison)
    )
    return calibration, comparison


def compared(model: keras.Model, feeds: Feeds) -> Feeds:
    """Those that an artifact is compared on: at most `COMPARED_IMAGES`, evenly spread."""
    each = sum(math.prod(size or 1 for size in y.shape[1:]) for y in model.outputs)
    most = max(_FEWEST, min(COMPARED_IMAGES, _COMPARED_OUTPUTS // max(each, 1)))
    return {name: images[spread(len(images), most)] for name, images in feeds.items()}


def random_pixels(model: keras.Model, inputs: tuple[Tensor, ...]) -> Feeds:
    """Random pixels 0..255 for a model, the same ones each time.

    Args:
        model: The model.
        inputs: What it takes.

    Raises:
        UsageError: It takes examples of any size.
    """
    for x, each in zip(model.inputs, inputs, strict=True):
        if None in each.shape[1:]:
            raise UsageError(
                f"the model takes examples of any size {tuple(x.shape[1:])}: "
                "give representative_data to run it on, or input_shape (--input-shape)"
            )
    return random_feeds(inputs, COMPARED_IMAGES, ids=id_inputs(model))
