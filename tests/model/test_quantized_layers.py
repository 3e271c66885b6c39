from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfprune.errors import UsageError
from tfprune.model.quantized_layers import (
    FakeQuantize,
    QuantizedLayer,
    rounded_constant,
    rounded_to_range,
    short,
    step_and_zero,
    weight_levels,
)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.01), (0.0, 6.0), (-0.3, 2.9), (-5.0, 0.0)])
def test_activations_are_rounded_as_tensorflow_does_it(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(-7, 7, 1000).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(given := tf.constant(x))
        ours = rounded_to_range(given, low, high)
    step, below = (float(each) for each in step_and_zero(low, high))
    wanted = tf.quantization.fake_quant_with_min_max_args(x, -below * step, (255 - below) * step)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    assert len(np.unique(ours)) <= 256
    assert (np.asarray(ours) == 0).any() or not (np.abs(x) < 0.001).any()
    # Straight-through: 1 inside the range, 0 where it clips.
    gradient = tape.gradient(ours, given)
    inside = (x > low + 0.05) & (x < high - 0.05)
    outside = (x < low - 0.05) | (x > high + 0.05)
    assert (gradient.numpy()[inside] == 1).all()
    assert (gradient.numpy()[outside] == 0).all()


@pytest.mark.parametrize(("kind", "values"), [("int8", 255), ("int4", 15)])
def test_each_channel_of_a_kernel_has_few_symmetric_values(kind: str, values: int) -> None:
    w = np.random.default_rng(0).uniform(-1, 1, (5, 5, 40, 3)).astype("float32")
    w *= np.array([1, 10, 0.1], "float32")
    w[..., 0, :] = 0
    levels, steps = weight_levels(ops.convert_to_tensor(w), 3, kind)
    rounded = np.asarray(levels * steps)
    assert (rounded[w == 0] == 0).all()
    for channel in range(3):
        step = np.abs(w[..., channel]).max() / 127
        found = rounded[..., channel] / float(steps[0, 0, 0, channel])
        np.testing.assert_array_equal(found, np.rint(found))
        assert 0.6 * values < len(np.unique(found)) <= values
        assert np.abs(found).max() == 127
        assert np.abs(rounded - w)[..., channel].max() <= step * 127 / (values - 1) * 1.2


def test_short_numbers_are_the_next_ones_of_15_bits() -> None:
    x = np.geomspace(1e-6, 1e4, 400).astype("float32")
    found = np.asarray(short(ops.convert_to_tensor(x)))
    assert (x <= found).all() and (found < x * (1 + 2**-13)).all()
    mantissa, _ = np.frexp(found)
    np.testing.assert_array_equal(mantissa * 2**16, np.rint(mantissa * 2**16))
    np.testing.assert_array_equal(short(ops.convert_to_tensor(found)), found)
    # All 8-bit multiples are exact, and so is the way back.
    levels = np.arange(256, dtype="float32")[:, None]
    np.testing.assert_array_equal(levels * found, levels.astype(float) * found)


def test_a_sum_is_that_of_integers_of_64_bits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        its, others, low, high = rng.uniform(1e-3, 1, 4).astype("float32")
        its, others = (short(ops.convert_to_tensor(each)) for each in (its, others))
        one, other = rng.integers(-255, 256, (2, 500))
        a, b = one * its, other * others
        for sign, rounding in ((1, "sum"), (-1, "difference")):
            low, high = -60 * float(low), 60 * float(high)
            found = rounded_to_range(a + sign * b, low, high, rounding, (a, b, its, others))
            step, below = step_and_zero(low, high)
            shares = np.float32(its) / np.float32(step), np.float32(others) / np.float32(step)
            shift = 20 - int(np.floor(np.log2(max(shares))))
            first, second = (int(np.rint(float(share) * 2**shift)) for share in shares)
            levels = (one * first + sign * other * second + 2 ** (shift - 1)) >> shift
            levels = np.clip(levels, -float(below), 255 - float(below))
            np.testing.assert_array_equal(found, np.float32(levels * float(step)))


def test_a_kernel_of_zeros_stays_one() -> None:
    levels, steps = weight_levels(ops.zeros((3, 4)), 1, "int8")
    assert (np.asarray(levels * steps) == 0).all()


def test_the_ends_of_a_constant_are_exact() -> None:
    value = np.array([0.25, 3.0, 1.7], "float32")
    rounded, step = rounded_constant(ops.convert_to_tensor(value))
    rounded = np.asarray(rounded)
    assert rounded[1] == float(step) * 255 == pytest.approx(3.0, rel=1e-4)
    assert np.abs(rounded - value).max() < 3 / 255


def test_a_range_is_an_average_of_batches_and_the_first_sets_it() -> None:
    layer = FakeQuantize(momentum=0.9)
    layer.build((None, 2))
    passed, step = layer(np.float32([[0.123456, 7]]))
    np.testing.assert_array_equal(passed, np.float32([[0.123456, 7]]))
    assert float(step) == 0
    assert not layer.is_known
    layer(np.float32([[-1, 3]]), training=True)
    assert (float(layer.low[0]), float(layer.high[0])) == (-1, 3)
    layer(np.float32([[-2, 3]]), training=True)
    assert float(layer.low[0]) == pytest.approx(-1.1)
    layer(np.float32([[-9, 9]]), training=False)
    assert float(layer.low[0]) == pytest.approx(-1.1)
    low, high = layer.file_range()
    assert high - low == pytest.approx(4.1, rel=1e-4)
    assert float(layer(np.float32([[0, 0]]))[1]) == (high - low) / 255
    # Zero is a value of the file.
    assert low / ((high - low) / 255) == pytest.approx(round(low / ((high - low) / 255)))


def test_the_zero_of_a_symmetric_range_is_that_of_the_file() -> None:
    # -1..1 has its zero between two steps: float32 and float64 must choose the same.
    layer = FakeQuantize()
    layer.build((None, 2))
    layer(np.float32([[-1, 1]]), training=True)
    low, high = layer.file_range()
    found, _ = layer(np.float32([[-9, 9]]))
    np.testing.assert_array_equal(found, np.float32([[low, high]]))


def test_the_sites_of_a_range_have_one_that_holds_all() -> None:
    layer = FakeQuantize(sites=2)
    layer.build((None, 2))
    layer(np.float32([[-1, 0]]), site=0, training=True)
    assert not layer.is_known
    layer(np.float32([[0, 5]]), site=1, training=True)
    assert [float(each) for each in layer.extremes()] == [-1, 5]


def test_a_range_that_nothing_set_is_an_error_in_a_file() -> None:
    layer = FakeQuantize(name="conv_range")
    layer.build((None, 2))
    with pytest.raises(UsageError, match="layer 'conv_range' has no range yet: train the model"):
        layer.file_range()


def test_learnt_ranges_have_gradients() -> None:
    layer = FakeQuantize(ranges="learnt")
    layer.build((None, 4))
    layer.observes = True
    layer(np.float32([[-1, 0, 0, 1]]))
    layer.observes = False
    assert [weight.name for weight in layer.trainable_weights] == ["low", "high"]
    with tf.GradientTape() as tape:
        total = ops.sum(layer(np.float32([[-5, -5, 0.1, 5]]), training=True)[0])
    low, high = tape.gradient(total, [weight.value for weight in layer.trainable_weights])
    assert (float(low[0]), float(high[0])) == pytest.approx((2, 1), abs=0.1)


def test_batchnorm_is_folded_with_the_statistics_that_it_has() -> None:
    conv, norm = layers.Conv2D(3, 1, use_bias=False), layers.BatchNormalization()
    wrapper = QuantizedLayer(conv, norm)
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 4)).astype("float32")
    wrapper.build(x.shape)
    norm.moving_mean.assign([1.0, -1.0, 0.5])
    norm.moving_variance.assign([4.0, 0.25, 1.0])
    norm.gamma.assign([2.0, 1.0, -1.0])
    wanted = norm(conv(x), training=False)
    for training in (False, True):
        found, _ = wrapper(x, np.float32(0), **({"training": True} if training else {}))
        assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()
    np.testing.assert_array_equal(norm.moving_mean, [1.0, -1.0, 0.5])


def test_layers_come_back_from_their_configs() -> None:
    wrapper = QuantizedLayer(
        layers.Dense(3, name="dense"), layers.BatchNormalization(name="norm"), "int4", name="dense"
    )
    twin = QuantizedLayer.from_config(wrapper.get_config())
    assert (twin.layer.units, twin.batch_norm.name, twin.weight_type) == (3, "norm", "int4")
    ranged = FakeQuantize(2, "learnt", 0.5, (0.0, 1.0))
    assert FakeQuantize.from_config(ranged.get_config()).get_config() == ranged.get_config()
    assert keras.saving.get_registered_name(FakeQuantize) == "tfprune>FakeQuantize"
