from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune.model.activations import is_pointwise

from ..harness import randomised, run_slim_test
from ..models import chain, conv, head

CONSTRUCTS: dict[str, Callable[[], keras.Model]] = {
    "activation layers": lambda: chain(
        conv(),
        layers.ReLU(max_value=1.0, negative_slope=0.1),
        conv(),
        layers.LeakyReLU(),
        conv(),
        layers.ELU(),
    ),
    "prelu": lambda: chain(conv(), layers.PReLU(), conv(3), layers.PReLU(shared_axes=[1, 2])),
    "prelu shared over channels": lambda: chain(conv(), layers.PReLU(shared_axes=[3]), conv(3)),
    "only in training": lambda: chain(
        layers.Rescaling(2.0, offset=-1.0),
        conv(),
        layers.SpatialDropout2D(0.5),
        layers.Dropout(0.5),
        layers.GaussianNoise(0.1),
        layers.GaussianDropout(0.1),
        layers.AlphaDropout(0.1),
        layers.ActivityRegularization(0.1),
        layers.Identity(),
    ),
    "dropout of steps": lambda: chain(
        layers.Dense(4), layers.SpatialDropout1D(0.1), layers.Dense(3), shape=(4, 2)
    ),
    "dropout of volumes": lambda: chain(
        layers.Conv3D(4, 1), layers.SpatialDropout3D(0.1), layers.Dense(3), shape=(2, 2, 2, 2)
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_construct(construct: str) -> None:
    run_slim_test(CONSTRUCTS[construct](), save="prelu" in construct)


@pytest.mark.parametrize("silent", [True, False])
def test_pointwise_activations(silent: bool) -> None:
    """A dead filter stays dead behind an activation that maps zero to zero, and only there."""
    known = {each for each in vars(keras.activations).values() if callable(each)}
    # It wants two numbers.
    known.discard(keras.activations.threshold)
    pointwise = [each for each in known if is_pointwise(each)]
    mine = [each for each in pointwise if (float(each(ops.zeros(1))[0]) == 0) == silent]
    assert len(mine) >= 5
    x = keras.Input((4,))
    parts = [layers.Dense(3, each)(x) for each in sorted(mine, key=lambda each: each.__name__)]
    model = keras.Model(x, head(layers.Concatenate()(parts)))
    groups = run_slim_test(model, dies=silent, save=False)
    assert sum(group.removable.all() for group in groups) == len(mine)


@pytest.mark.filterwarnings("ignore:.*softmax over axis -1:UserWarning")
@pytest.mark.parametrize("softmax", [layers.Softmax(), layers.Activation("log_softmax")])
def test_a_share_of_all_channels_is_inexact(softmax: layers.Layer) -> None:
    """Slim is not masked then, the plan says so, and a dead channel is not free."""
    model = chain(conv(name="free"), softmax.__class__.from_config(softmax.get_config()))
    run_slim_test(model, exact=False, dies=False)
    groups = tfprune.channel_groups(model)
    assert list(groups.frozen) == [model.layers[-1].name]


def test_a_share_of_each_channels_positions_is_exact() -> None:
    """But a channel of zeros is not silent then: its shares are alike."""
    run_slim_test(chain(conv(), layers.Softmax(axis=(1, 2)), conv(3)), dies=None)


def test_what_a_softmax_hears_is_not_dead() -> None:
    """Even where nobody reads its share: without it the others' shares would grow."""
    model = randomised(chain(layers.Dense(4, "softmax"), layers.Dense(3), shape=(4,)))
    reader = model.layers[1].kernel
    reader.assign(np.asarray(reader) * [[0], [1], [1], [1]])
    assert tfprune.plan(model, dead=True).removed == {}


def test_the_plan_says_what_is_inexact() -> None:
    model = chain(conv(name="a"), conv(name="b", activation="softmax"), conv(name="c"))
    plans = [tfprune.plan(model, filters=share) for share in (1.0, 0.5)]
    assert plans[0].inexact == {}
    assert plans[1].inexact == {"b": "softmax spreads over all channels"}


def test_glu_is_frozen() -> None:
    """It halves the channels, which Keras' own shape inference does not see; no such model runs."""
    model = chain(layers.Dense(6, name="held", activation="glu"), shape=(4,))
    said = tfprune.channel_groups(model).frozen["held"]
    assert (
        said == "the activation glu is not known to act on each channel alone "
        "(see tfprune.register_pointwise)"
    )


def test_masking_is_frozen() -> None:
    """A step whose channels are all zero is skipped; one of them may be what tells it apart."""
    x = keras.Input((5, 2))
    y = layers.Dense(4, name="held")(layers.Dense(4, name="free")(x))
    y = layers.GlobalAveragePooling1D()(layers.Masking(name="mine")(y))
    groups = run_slim_test(keras.Model(x, layers.Dense(2)(y)))
    assert groups.frozen["held"] == "mine skips a step by the values of all its channels"
