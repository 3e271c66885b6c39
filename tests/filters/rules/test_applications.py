from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

import tfprune

from ..harness import run_slim_test
from ..models import conv, head, image


def test_a_block_of_convnext() -> None:
    x = image()
    start = conv(4)(x)
    y = conv(4, groups=4)(start)
    y = layers.Dense(4)(layers.Dense(6, activation="gelu")(y))
    y = StochasticDepth(0.5)(LayerScale(0.1, 4, name="scale")(y))
    groups = run_slim_test(keras.Model(x, head(layers.Add()([start, y]))))
    assert [group.size for group in groups] == [4, 6, 2]
    slim = tfprune.slim(groups.model, filters=0.5)
    assert slim.get_layer("scale").projection_dim == 2


def test_a_block_of_inception_resnet() -> None:
    x = image()
    start = conv(4, name="start")(x)
    y = CustomScaleLayer(0.2)([start, conv(4, name="end")(conv(3)(start))])
    groups = run_slim_test(keras.Model(x, head(layers.ReLU()(y))))
    assert groups[0].layers == ("start", "end")


@pytest.mark.parametrize(
    "name", ["MobileNetV3Small", "Xception", "InceptionResNetV2", "ConvNeXtTiny"]
)
@pytest.mark.slow
def test_whole(name: str) -> None:
    options = {"include_top": False, "weights": None, "input_shape": (75, 75, 3)}
    model = getattr(keras.applications, name)(**options)
    slim = tfprune.slim(model, filters=0.5)
    assert np.isfinite(np.asarray(slim(np.ones((1, 75, 75, 3))))).all()
    assert tfprune.macs(slim) < 0.5 * tfprune.macs(model)
