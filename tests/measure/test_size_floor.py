"""Floors are what they say: the formulas of the books, which no order-0 coder passes."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfprune.formats import stored
from tfprune.measure import floor
from tfprune.measure.size import binary_entropy


def pruned(dtype: type, sparsity: float, size: int = 50_000) -> np.ndarray:
    rng = np.random.default_rng(0)
    scale = 1.0 if np.dtype(dtype).kind == "f" else 40.0
    values = np.clip(rng.normal(size=size) * scale, -127, 127).astype(dtype)
    values[values == 0] = 1
    values[: round(size * sparsity)] = 0
    return rng.permutation(values)


def entropy(values: np.ndarray) -> float:
    """Bits a value, by counting distinct values."""
    _, counts = np.unique(values, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, 32), (np.float16, 16), (np.int8, 8)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.98])
def test_the_mask_floor_is_the_formula(dtype: type, bits: int, sparsity: float) -> None:
    values, density = pruned(dtype, sparsity), 1 - sparsity
    expected = values.size * (binary_entropy(density) + bits * density) / 8
    assert floor([stored("w", values)]).mask_bytes == pytest.approx(expected)


def test_the_known_figure_at_80_percent() -> None:
    values = pruned(np.float32, 0.8)
    assert values.nbytes / floor([stored("w", values)]).mask_bytes == pytest.approx(4.49, abs=0.005)


@given(arrays(np.int8, st.integers(1, 300), elements=st.integers(-3, 3)))
def test_the_entropy_floor_of_int8_is_the_entropy_of_its_values(values: np.ndarray) -> None:
    found = floor([stored("w", values)])
    assert found.entropy_bytes == pytest.approx(values.size * entropy(values) / 8)
    assert found.entropy_bytes <= found.mask_bytes + 1e-9


@given(arrays(np.float32, st.integers(1, 100), elements=st.floats(-2, 2, width=32)))
def test_a_floor_is_never_above_what_the_numbers_take(values: np.ndarray) -> None:
    found = floor([stored("w", values)])
    # The mask alone may cost a bit a weight.
    assert 0 <= found.entropy_bytes <= found.mask_bytes + 1e-9
    assert found.mask_bytes <= values.nbytes + values.size / 8


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_deflate_comes_close_and_does_not_pass_it(sparsity: float) -> None:
    values = pruned(np.int8, sparsity)
    least = floor([stored("w", values)]).entropy_bytes
    packed = len(zlib.compress(values.tobytes(), 9))
    assert least <= packed <= 1.6 * least


def test_tensors_add_up_and_none_is_nothing() -> None:
    parts = [stored("a", pruned(np.int8, 0.5)), stored("b", pruned(np.float32, 0.9))]
    both, one, other = floor(parts), floor(parts[:1]), floor(parts[1:])
    assert both.mask_bytes == pytest.approx(one.mask_bytes + other.mask_bytes)
    assert both.entropy_bytes == pytest.approx(one.entropy_bytes + other.entropy_bytes)
    assert floor([]) == floor([stored("zeros", np.zeros(9, np.float32))])
    assert floor([]).mask_bytes == 0


def test_one_density_for_all_tensors_never_gives_less() -> None:
    parts = [stored("a", pruned(np.int8, 0.1)), stored("b", pruned(np.int8, 0.9))]
    merged = stored("ab", np.concatenate([pruned(np.int8, 0.1), pruned(np.int8, 0.9)]))
    assert floor(parts).mask_bytes < floor([merged]).mask_bytes


def test_binary_entropy() -> None:
    assert [binary_entropy(p) for p in (0.0, 0.5, 1.0)] == [0, 1, 0]
    assert binary_entropy(0.2) == pytest.approx(-(0.2 * math.log2(0.2) + 0.8 * math.log2(0.8)))
