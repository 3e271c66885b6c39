from __future__ import annotations

import keras
import numpy as np
import pytest

from tfprune.weights import MaskConstraint
from tfprune.weights.attached import AttachedMasks


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_dead_entries_become_plus_zero_and_others_keep_their_bits(dtype):
    weight = keras.Variable([np.nan, np.inf, -1.0, -0.0, np.nan, -0.0, 3.0], dtype=dtype)
    constraint = MaskConstraint(weight.shape)
    constraint.mask.assign([False, False, False, False, True, True, True])
    result = keras.ops.convert_to_numpy(constraint(weight))
    assert str(result.dtype) == dtype
    bits = f"uint{8 * result.itemsize}"
    before = keras.ops.convert_to_numpy(weight)
    np.testing.assert_array_equal(result[:4].view(bits), 0)
    np.testing.assert_array_equal(result[4:].view(bits), before[4:].view(bits))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_a_changed_mask_does_the_same_to_a_weight_that_was_read(dtype):
    weight = keras.Variable([[np.nan, np.inf, -1.0], [np.nan, -0.0, 3.0]], dtype=dtype)
    attached = AttachedMasks([weight])
    before = keras.ops.convert_to_numpy(weight)
    # As a cut out of a larger array, and so not in one piece.
    mask = np.array([[False, False, True, False], [True, True, True, False]])[:, :3]
    attached.change(0, before, mask)
    result = keras.ops.convert_to_numpy(weight)
    assert str(result.dtype) == dtype
    bits = f"uint{8 * result.itemsize}"
    np.testing.assert_array_equal(result[~mask].view(bits), 0)
    np.testing.assert_array_equal(result[mask].view(bits), before[mask].view(bits))


def test_the_inner_constraint_comes_first():
    # Masking first would give the survivors the whole norm: 1 instead of 0.6.
    constraint = MaskConstraint((2,), inner=keras.constraints.UnitNorm())
    constraint.mask.assign([True, False])
    result = keras.ops.convert_to_numpy(constraint(keras.ops.array([3.0, 4.0])))
    np.testing.assert_allclose(result, [0.6, 0.0], rtol=1e-5)


def test_a_traced_step_sees_a_later_mask():
    import tensorflow as tf

    weight = keras.Variable([1.0, 2.0])
    constraint = MaskConstraint(weight.shape)
    step = tf.function(lambda: constraint(weight))
    np.testing.assert_array_equal(step(), [1, 2])
    constraint.mask.assign([False, True])
    np.testing.assert_array_equal(step(), [0, 2])
