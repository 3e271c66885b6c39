from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tests.quantize.nets import NETS, examples
from tests.tables import slow
from tfprune.errors import UsageError
from tfprune.model.quantized_layers import (
    STEPS,
    rounded_to_range,
    step_and_zero,
    weight_levels,
)
from tfprune.quantize import (
    FakeQuantize,
    QuantizedLayer,
    finished,
    is_quantize_aware,
    quantize_aware,
)
from tfprune.vocabulary import QUANTIZER, ActivationTypeName

QUICK = ("plain", "residual", "mobile")


def outputs(model: keras.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(y) for y in keras.tree.flatten(model(inputs, training=False))]


@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in NETS])
def test_it_differs_by_rounding_alone_and_finished_by_nothing(name: str) -> None:
    model = NETS[name]()
    inputs = examples(model)
    with warnings.catch_warnings():
        # All of these nets have rules for all of their layers.
        warnings.simplefilter("error", UserWarning)
        aware = quantize_aware(model, inputs)
    given = inputs if len(inputs) > 1 else inputs[0]
    float_outputs = outputs(model, given)
    for wanted, found, again in zip(
        float_outputs, outputs(aware, given), outputs(finished(aware), given), strict=True
    ):
        spread = float(np.ptp(wanted))
        assert 0 < np.abs(found - wanted).max() < 0.15 * spread
        np.testing.assert_allclose(again, wanted, atol=2e-6 * max(spread, 1))
    assert is_quantize_aware(aware)
    assert not is_quantize_aware(model)
    assert not is_quantize_aware(finished(aware))


def test_every_output_of_an_operator_has_one_of_256_values() -> None:
    model = NETS["mobile"]()
    aware = quantize_aware(model, examples(model))
    between = keras.Model(
        aware.inputs, [layer.output for layer in aware.layers if isinstance(layer, FakeQuantize)]
    )
    for values in outputs(between, examples(model, 256)):
        assert len(np.unique(values)) <= 256


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_a_range_holds_zero_and_its_ends(kind: ActivationTypeName) -> None:
    for low, high in [(-1.0, 2.0), (0.0, 6.0), (-3.0, 0.0), (0.0, 0.0), (-1e-9, 1e-7)]:
        step, below = (float(each) for each in step_and_zero(low, high, kind))
        assert below == int(below)
        lowest, highest = -below * step, (STEPS[kind] - below) * step
        assert lowest <= low + step and highest >= high - step
        if kind == "int16":
            assert lowest == -highest
        rounded = np.asarray(rounded_to_range(np.float32([low, 0, high]), low, high, kind=kind))
        assert rounded[1] == 0
        np.testing.assert_allclose(rounded, [low, 0, high], atol=step)


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_a_compiled_graph_knows_the_steps_of_an_eager_one_bit_for_bit(
    kind: ActivationTypeName,
) -> None:
    ends = np.random.default_rng(0).uniform(1e-3, 30, (2, 4096)).astype("float32")

    def steps(low: Any, high: Any) -> Any:
        return step_and_zero(-low, high, kind)[0], weight_levels(high[None], 1, "int8")[1]

    compiled = tf.function(steps)(*ends)
    for one, other in zip(steps(*map(tf.constant, ends)), compiled, strict=True):
        np.testing.assert_array_equal(one, other)


def test_int16_activations_need_what_writes_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETS["plain"]()
    monkeypatch.setitem(sys.modules, QUANTIZER, None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[quantizer\]'"):
        quantize_aware(model, examples(model), activations="int16")


def test_concatenated_tensors_have_one_range() -> None:
    model = NETS["dense_net"]()
    aware = quantize_aware(model, examples(model))
    shared = [layer for layer in aware.layers if getattr(layer, "sites", 1) > 1]
    # The first convolution and those of both branches; ReLU, and the average of it.
    assert [layer.sites for layer in shared] == [3, 2]


@pytest.mark.slow
def test_outputs_keep_their_names_and_the_model_its_settings() -> None:
    model = NETS["ends"]()
    losses = {"scores": "mse", "sure": "binary_crossentropy"}
    model.compile(keras.optimizers.SGD(0.125), losses)
    aware = quantize_aware(model, examples(model))
    assert aware.output_names == finished(aware).output_names == ["scores", "sure"]
    assert float(aware.optimizer.learning_rate) == 0.125
    targets = {"scores": np.zeros((64, 3)), "sure": np.ones((64, 1))}
    history = aware.fit(examples(model), targets, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("ranges", [slow("moving"), "learnt"])
def test_a_saved_model_trains_on_bit_for_bit(ranges: str, tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    y = np.arange(64) % 3
    aware = quantize_aware(model, x, ranges=ranges)
    aware.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    aware.fit(x, y, epochs=1, shuffle=False, verbose=0)
    aware.save(tmp_path / "aware.keras")
    again = keras.saving.load_model(tmp_path / "aware.keras")
    for each in (aware, again):
        each.fit(x, y, epochs=1, shuffle=False, verbose=0)
    for mine, other in zip(aware.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
def test_without_examples_the_first_batches_set_the_ranges(tmp_path: Path) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model)
    np.testing.assert_allclose(
        outputs(aware, x)[0],
        outputs(model, x)[0],
        atol=0.05 * np.ptp(outputs(model, x)[0]),
    )
    with pytest.raises(UsageError, match="has no range yet"):
        tfprune.export(aware, tmp_path, ["tflite-int8"], comparison_data=x)
    aware.compile(keras.optimizers.SGD(0.0), "mse")
    aware.fit(x, np.zeros((64, 3)), verbose=0)
    assert all(layer.is_known for layer in aware.layers if isinstance(layer, FakeQuantize))


def test_what_has_no_rule_stays_in_float_and_is_named() -> None:
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.LayerNormalization(name="norm")(x)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.warns(UserWarning, match="'norm' has no rule for LayerNormalization"):
        aware = quantize_aware(model, examples(model))
    assert type(aware.get_layer("norm")) is keras.layers.LayerNormalization


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (keras.layers.ELU(), "is ELU, which TFLite computes in float"),
        (keras.layers.Activation(keras.ops.gelu), "has no rule for its activation"),
        (keras.layers.Conv2D(2, 1, activation="elu"), "has no rule for its activation"),
        (keras.layers.MaxPooling2D(data_format="channels_first"), "has its channels first"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_reasons_for_float_are_those_of_the_file(layer: keras.layers.Layer, said: str) -> None:
    image = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(2, 1)(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(layer(x))))
    with pytest.warns(UserWarning, match=said):
        quantize_aware(model)


def test_numbers_are_rounded_and_arrays_are_not() -> None:
    image = keras.Input((4,))
    x = keras.layers.Dense(3)(image)
    model = keras.Model(image, keras.layers.Dense(2)((x * 2 - 1) * np.float32([1, 2, 3])))
    with pytest.warns(UserWarning, match=r"1 of the layers.*computes with constants"):
        quantize_aware(model)


def test_a_separable_convolution_keeps_its_constraint_and_regularizer() -> None:
    layer = keras.layers.SeparableConv2D(
        3, 2, depthwise_constraint="non_neg", pointwise_regularizer="l2", activation="relu"
    )
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    model.layers[0].depthwise_kernel.assign(np.full((2, 2, 2, 1), 0.5))
    aware = quantize_aware(model)
    first, second = (each.layer for each in aware.layers if isinstance(each, QuantizedLayer))
    assert isinstance(first.kernel.constraint, keras.constraints.NonNeg)
    assert second.kernel.regularizer is not None
    assert second.name == layer.name


def test_excluded_layers_stay_in_float_without_a_word() -> None:
    model = NETS["plain"]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        aware = quantize_aware(model, examples(model), exclude="head")
    assert type(aware.get_layer("head")) is keras.layers.Dense


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "int2"}, "weights is 'int2': choose one of int8, int4"),
        ({"ranges": "fixed"}, "ranges is 'fixed': choose one of moving, learnt"),
        ({"momentum": 1.0}, "momentum is 1: give 0 or more"),
        ({"ranges": "learnt"}, "start from those of examples: give data"),
        ({"exclude": "haed"}, "has no layer 'haed': did you mean 'head'"),
        ({"exclude": "*"}, "has no layer that can be rounded"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("*", r"\*")) as error:
        quantize_aware(NETS["plain"](), **options)
    assert "\n" not in str(error.value)


def test_a_model_is_made_aware_once() -> None:
    aware = quantize_aware(NETS["plain"]())
    with pytest.raises(UsageError, match="is quantization-aware already"):
        quantize_aware(aware)


# -- zeros --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, slow(False)])
def test_zeros_stay_zeros_beside_other_callbacks(first: bool) -> None:
    model = NETS["plain"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x)
    # Averages, which Keras puts in at the end, and several steps in one call.
    aware.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse", steps_per_execution=2)
    pruner = tfprune.PruneWeights(tfprune.polynomial_decay(0, 0.75, begin=0, end=4, frequency=1))
    saver = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    callbacks = [pruner, saver] if first else [saver, pruner]
    aware.fit(x, np.ones((64, 3)), batch_size=8, epochs=2, callbacks=callbacks, verbose=0)
    kernels = [weight for weight in aware.weights if weight.name == "kernel"]
    assert len(kernels) == 2
    for kernel in kernels:
        assert np.mean(np.asarray(kernel) == 0) == pytest.approx(0.75, abs=0.01)
    for layer in aware.layers:
        if hasattr(layer, "file_weights"):
            zeros = np.asarray(layer.layer.kernel) == 0
            assert (np.asarray(layer.file_weights()[0])[zeros] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", slow("mixed_float16")])
def test_it_trains_in_mixed_precision(precision: str) -> None:
    model = NETS["mobile"]()
    (x,) = examples(model)
    aware = quantize_aware(model, x)
    twin = keras.models.clone_model(aware)
    twin.set_weights(aware.get_weights())
    for layer in twin._flatten_layers(include_self=False):
        layer.dtype_policy = keras.DTypePolicy(precision)
    twin.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    history = twin.fit(x, np.arange(64) % 4, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    # Neither weights nor ranges were rounded to 16 bits.
    for weight in twin.weights:
        assert weight.dtype == "float32"


def _text(pool: keras.layers.Layer, *before: keras.layers.Layer) -> keras.Model:
    """A classifier of words, of which 0 is none."""
    words = keras.Input((8,), dtype="int32")
    x = keras.layers.Embedding(12, 6, mask_zero=True)(words)
    for layer in before:
        x = layer(x)
    keras.utils.set_random_seed(0)
    return keras.Model(words, keras.layers.Dense(3)(pool(x)))


@pytest.mark.parametrize(
    "model",
    [
        _text(keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(6, "relu")),
        slow(_text(keras.layers.LSTM(4), keras.layers.Dense(6, "tanh"), keras.layers.PReLU())),
    ],
    ids=["mean", "lstm"],
)
def test_masks_reach_what_reads_them(model: keras.Model) -> None:
    words = np.random.default_rng(0).integers(1, 12, (32, 8)).astype("int32")
    words[:, 3:] = 0
    with pytest.warns(UserWarning, match="stay in float") as said:
        aware = tfprune.quantize_aware(model, words)
    assert not [each for each in said if "destroy the mask" in str(each.message)]
    wanted, found = model.predict(words, verbose=0), aware.predict(words, verbose=0)
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


def test_activity_regularizers_go_on() -> None:
    inputs = keras.Input((4,))
    options = {"activity_regularizer": "l2"}
    x = keras.layers.Dense(5, "relu", name="a", **options)(inputs)
    x = keras.layers.Dense(5, name="b", **options)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(5, "tanh", name="c", **options)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    some = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    with pytest.warns(UserWarning, match="'c' has an activity regularizer"):
        aware = tfprune.quantize_aware(model, some)
    losses = []
    for each in (model, finished(aware), aware):
        each(some)
        losses.append(float(sum(np.asarray(loss) for loss in each.losses)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)
