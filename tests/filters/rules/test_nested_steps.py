from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers

import tfprune
from tests.versions import newer_keras

from ..harness import run_slim_test
from ..models import chain


def test_a_layer_at_every_step() -> None:
    model = chain(
        layers.TimeDistributed(layers.Conv2D(4, 2, activation="relu"), name="outer"),
        layers.TimeDistributed(layers.BatchNormalization()),
        layers.TimeDistributed(layers.MaxPooling2D(2)),
        layers.TimeDistributed(layers.Flatten()),
        layers.TimeDistributed(layers.Dense(5)),
        layers.LSTM(3),
        shape=(2, 5, 5, 2),
    )
    groups = run_slim_test(model)
    assert groups[0].layers == ("outer",)
    assert [group.size for group in groups] == [4, 5, 3, 2]


def test_steps_of_steps() -> None:
    """The sizes are found in the config of the outermost wrapper."""
    inner = layers.TimeDistributed(layers.Dense(4), name="inner")
    model = chain(layers.TimeDistributed(inner, name="outer"), layers.Dense(3), shape=(2, 3, 5))
    groups = run_slim_test(model)
    assert groups[0].layers == ("outer",)


def per_frame() -> keras.Model:
    """A small net of two paths, as a model that is no Sequential."""
    x = keras.Input((5, 5, 3))
    y = layers.Conv2D(4, 3, padding="same", name="first")(x)
    y = layers.BatchNormalization()(y)
    z = layers.Add()([y, layers.Conv2D(4, 1, name="second")(x)])
    return keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, name="third")(z)))


@pytest.mark.parametrize(
    "inner",
    [
        per_frame,
        lambda: keras.Sequential([keras.Input((5, 5, 3)), layers.Conv2D(4, 3), layers.Flatten()]),
        # Built by the wrapper.
        lambda: keras.Sequential([layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()]),
        lambda: keras.Sequential([per_frame(), layers.Dense(5)]),
    ],
)
def test_a_model_at_every_step_is_slimmed_with_the_rest(inner: Callable[[], keras.Model]) -> None:
    clip = keras.Input((2, 5, 5, 2))
    frames = layers.TimeDistributed(layers.Conv2D(3, 1, name="before"))(clip)
    features = layers.TimeDistributed(inner(), name="cnn")(frames)
    model = keras.Model(clip, layers.Dense(2)(layers.LSTM(4)(features)))
    groups = run_slim_test(model)
    made = {path for group in groups for path in group.layers if group.removable.any()}
    assert any(path.startswith("cnn/") for path in made)
    assert set(groups.frozen) == {model.layers[-1].name}


def test_a_shared_model_at_every_step() -> None:
    cnn = per_frame()
    clips = [keras.Input((2, 5, 5, 3)), keras.Input((3, 5, 5, 3))]
    both = [layers.LSTM(3)(layers.TimeDistributed(cnn)(clip)) for clip in clips]
    with pytest.raises(tfprune.UsageError, match="shares a layer"):
        run_slim_test(keras.Model(clips, layers.Dense(2)(layers.Concatenate()(both))))


@newer_keras("what a Lambda is made of is not counted")
@pytest.mark.parametrize(
    ("inner", "reason"),
    [(layers.Lambda(lambda x: x), "inner is a Lambda, whose function is not known")],
)
def test_frozen(inner: layers.Layer, reason: str) -> None:
    inner.name = "inner"
    wrapped = layers.TimeDistributed(inner, name="mine")
    model = chain(layers.Dense(4), layers.Dense(4, name="held"), wrapped, shape=(3, 2))
    assert run_slim_test(model, save=False).frozen["held"] == reason
