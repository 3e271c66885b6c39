"""What is delivered carries nothing of its training."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.artifacts import export
from tfprune.errors import TfpruneError
from tfprune.formats.source import finished


@keras.saving.register_keras_serializable("tfprune")
class OurPenalty(keras.regularizers.Regularizer):
    def __call__(self, x: object) -> object:
        return keras.ops.sum(x)

    def get_config(self) -> dict[str, object]:
        return {}


@keras.saving.register_keras_serializable("tfprune")
class OurLayer(keras.layers.Layer):
    def call(self, x: object) -> object:
        return x


def test_the_keras_file_carries_nothing_of_the_training(
    export_model: keras.Model, tmp_path: Path
) -> None:
    trained = keras.models.clone_model(export_model)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    trained.compile("adam", loss, metrics=["accuracy"])
    trained.fit(np.zeros((2, 8, 8, 3)), np.eye(5)[:2], verbose=0)
    trained.save(tmp_path / "trained.keras")
    (artifact,) = export(trained, tmp_path, ["keras"])
    with zipfile.ZipFile(artifact.path) as file:
        config = json.loads(file.read("config.json"))
    assert not config["compile_config"]
    assert not keras.saving.load_model(artifact.path).compiled
    # Adam keeps two numbers a weight.
    assert artifact.bytes_raw < 0.8 * (tmp_path / "trained.keras").stat().st_size


def test_our_regularizers_go_and_those_of_keras_stay() -> None:
    layer = keras.layers.Conv2D(2, 3, kernel_regularizer=OurPenalty(), bias_regularizer="l2")
    block = keras.Sequential([keras.Input((4, 4, 1)), layer])
    model = keras.Sequential([keras.Input((4, 4, 1)), block])
    assert "OurPenalty" in model.to_json()
    copy = finished(model)
    assert "tfprune" not in copy.to_json()
    inner = copy.layers[0].layers[0]
    assert inner.kernel_regularizer is None
    assert isinstance(inner.bias_regularizer, keras.regularizers.L2)
    np.testing.assert_array_equal(inner.kernel, layer.kernel)
    assert layer.kernel_regularizer is not None


def test_our_layers_are_not_delivered() -> None:
    model = keras.Sequential([keras.Input((4,)), OurLayer()])
    with pytest.raises(TfpruneError, match="carries tfprune's OurLayer: finish pruning"):
        finished(model)


def test_a_layer_that_is_not_registered_goes_where_no_class_is_needed(tmp_path: Path) -> None:
    class Private(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    model = keras.Sequential([keras.Input((4,)), Private(), keras.layers.Dense(2)])
    assert export(model, tmp_path, ["tflite"])[0].agreement == 1
    with pytest.raises(TfpruneError, match="Private") as error:
        export(model, tmp_path, ["keras"])
    assert "\n" not in str(error.value)
