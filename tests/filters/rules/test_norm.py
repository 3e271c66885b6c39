from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.model.cloning import copy

from ..harness import assert_same, examples, outputs, randomised, run_slim_test
from ..models import chain, conv, frozen_between

EXACT: dict[str, Callable[[], keras.Model]] = {
    "batch norm": lambda: chain(
        layers.BatchNormalization(),
        conv(),
        layers.BatchNormalization(center=False),
        conv(3),
        layers.BatchNormalization(),
    ),
    "batch norm on another axis": lambda: chain(
        layers.Dense(4), layers.BatchNormalization(axis=1), layers.Dense(3), shape=(5, 3)
    ),
    "layer norm on other axes": lambda: chain(
        conv(), layers.LayerNormalization(axis=[1, 2]), conv(3)
    ),
    "unit norm on another axis": lambda: chain(conv(), layers.UnitNormalization(axis=1), conv(3)),
    "group norm": lambda: chain(
        conv(8), layers.GroupNormalization(4), conv(6), layers.GroupNormalization(3), conv(3)
    ),
    "group norm of each channel": lambda: chain(
        conv(4), layers.GroupNormalization(-1, scale=False), conv(3)
    ),
    "normalization at the start": lambda: chain(layers.Normalization(), conv(), conv(3)),
    "normalization inside": lambda: chain(conv(), layers.Normalization(), conv(3)),
    "normalization of numbers": lambda: chain(
        conv(4),
        layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 0.5, 4.0]),
        conv(3),
        layers.Normalization(mean=[0.5], variance=[2.0]),
        conv(4),
        layers.Normalization(mean=0.5, variance=2.0, invert=True),
    ),
    "normalization along no axis": lambda: chain(conv(), layers.Normalization(axis=None), conv(3)),
    "rescaling per channel": lambda: chain(
        layers.Rescaling([2.0, 0.5]),
        conv(),
        layers.Rescaling([1.0, 2.0, 3.0, 4.0]),
        conv(),
        layers.Rescaling(2.0, offset=np.array([1.0, 2.0, 3.0, 4.0])),
        conv(3),
        layers.Rescaling([2.0], offset=[-1.0]),
    ),
}

# What keeps a dead filter's channel from being silent: a shift that nothing takes out.
LIVES = ("another axis", "other axes", "of each channel", "normalization", "rescaling")


@pytest.mark.parametrize("construct", EXACT)
def test_exact(construct: str) -> None:
    dies = None if any(each in construct for each in LIVES) else True
    run_slim_test(EXACT[construct](), dies=dies, save="number" in construct)


INEXACT: dict[str, Callable[[], layers.Layer]] = {
    "layer norm": lambda: layers.LayerNormalization(name="norm"),
    "layer norm without beta": lambda: layers.LayerNormalization(center=False, name="norm"),
    "layer norm over maps": lambda: layers.LayerNormalization(axis=[1, 2, 3], name="norm"),
    "rms norm": lambda: layers.RMSNormalization(name="norm"),
    "unit norm": lambda: layers.UnitNormalization(name="norm"),
    "one group": lambda: layers.GroupNormalization(1, name="norm"),
}


@pytest.mark.parametrize("case", INEXACT)
def test_inexact(case: str) -> None:
    model = chain(conv(name="free"), INEXACT[case](), conv(3))
    groups = run_slim_test(model, exact=False, dies=None)
    assert list(groups.frozen) == [model.layers[-1].name]
    found = tfprune.plan(model, filters=0.5)
    assert found.inexact == {"norm": "norm normalises over all channels"}
    assert "free" not in tfprune.plan(model, dead=True).removed


def test_group_norm_loses_whole_groups() -> None:
    model = chain(conv(6, name="a"), layers.GroupNormalization(3, name="norm"), conv(3))
    slim = tfprune.remove_filters(model, {"a": [3]})
    assert slim.get_layer("a").filters == 4
    assert slim.get_layer("norm").groups == 2


def test_a_group_norm_in_other_groups_than_the_convolution() -> None:
    """Both couplings hold, so that nothing can go alone."""
    model = chain(conv(4, name="a"), layers.GroupNormalization(2), conv(4, groups=2), conv(3))
    groups = run_slim_test(model)
    assert groups[0].size == 1


def test_normalization_on_several_axes_is_frozen() -> None:
    mean = np.ones((6, 4))
    norm = layers.Normalization(axis=(2, 3), mean=mean, variance=mean, name="norm")
    groups = run_slim_test(frozen_between(norm), save=False)
    assert groups.frozen["held"] == "norm has numbers along several axes"
    adapted = layers.Normalization(axis=(2, 3))
    assert "free" not in run_slim_test(chain(conv(name="free"), adapted), dies=None).frozen


def test_rescaling_along_another_axis_is_frozen() -> None:
    scale = np.ones((6, 1))
    groups = run_slim_test(frozen_between(layers.Rescaling(scale, name="mine")), save=False)
    assert groups.frozen["held"] == "mine has numbers along other axes than the channels'"


def test_what_normalization_has_learned_is_copied() -> None:
    """It computes with constants made of its weights."""
    model = randomised(chain(layers.Normalization(name="norm"), conv()))
    model.get_layer("norm").adapt(np.random.default_rng(0).normal(3, 2, (20, 6, 6, 2)))
    inputs = examples(model)
    assert_same(outputs(copy(model), inputs), outputs(model, inputs))
    assert_same(outputs(tfprune.remove_filters(model, {}), inputs), outputs(model, inputs))
