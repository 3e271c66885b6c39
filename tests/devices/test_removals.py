"""Searching plans on staircases that hypothesis draws."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.devices.removals import Ladder, OutOfReachError, search, total_loss


@dataclass
class Chain:
    """Layers in a row: each layer reads the output of the one before, in tiles."""

    ladders: list[Ladder]
    weights: np.ndarray
    tile: int
    smooth: bool

    def cost(self, removed: np.ndarray) -> np.ndarray:
        sizes = np.array([ladder.size for ladder in self.ladders]) - removed
        tiles = -(-sizes // self.tile) * self.tile
        ends = np.full((len(removed), 1), 4)
        read = np.concatenate([ends, sizes if self.smooth else tiles], axis=1)
        return (self.weights * read * np.concatenate([tiles, ends], axis=1)).sum(axis=1)

    @property
    def extremes(self) -> tuple[float, float]:
        last = [ladder.removed[-1] for ladder in self.ladders]
        low, high = self.cost(np.array([last, [0] * len(last)]))
        return float(low), float(high)


@st.composite
def chains(draw: st.DrawFn, most: int = 3) -> tuple[Chain, float]:
    """A chain and a limit within its reach."""
    ladders = []
    for _ in range(draw(st.integers(1, most))):
        size = draw(st.integers(2, 24))
        free = draw(st.integers(1, size - 1))
        # All scores differ, as those of trained filters do.
        scores = np.sort(draw(st.permutations(range(1, 60)))[:free]) / 30
        layers = draw(st.integers(1, 3))
        ladders.append(Ladder(size, scores, size - free, np.arange(free + 1), layers))
    weights = draw(
        st.lists(st.integers(1, 9), min_size=len(ladders) + 1, max_size=len(ladders) + 1)
    )
    chain = Chain(ladders, np.array(weights), draw(st.sampled_from([1, 4, 8])), draw(st.booleans()))
    low, high = chain.extremes
    return chain, low + draw(st.floats(0, 1)) * (high - low)


@settings(max_examples=40, deadline=None)
@given(chains())
def test_the_limit_is_met(drawn: tuple[Chain, float]) -> None:
    chain, limit = drawn
    assert chain.cost(search(chain.ladders, chain.cost, limit)[None])[0] <= limit


@settings(max_examples=40, deadline=None)
@given(chains())
def test_no_removed_unit_could_be_kept(drawn: tuple[Chain, float]) -> None:
    chain, limit = drawn
    removed = search(chain.ladders, chain.cost, limit)
    for group in np.flatnonzero(removed):
        fewer = removed.copy()
        fewer[group] -= 1
        assert chain.cost(fewer[None])[0] > limit


@settings(max_examples=40, deadline=None)
@given(chains())
def test_sizes_sit_on_stairs(drawn: tuple[Chain, float]) -> None:
    chain, limit = drawn
    chain.smooth = False
    limit = max(limit, chain.extremes[0])
    for ladder, removed in zip(
        chain.ladders, search(chain.ladders, chain.cost, limit), strict=True
    ):
        assert removed == 0 or (ladder.size - removed) % chain.tile == 0


@settings(max_examples=40, deadline=None)
@given(chains(), st.integers(1, 60))
def test_removing_the_lowest_scores_of_all_never_loses_less(
    drawn: tuple[Chain, float], bar: int
) -> None:
    chain, _ = drawn
    ranked = np.array([np.searchsorted(ladder.scores, bar / 30) for ladder in chain.ladders])
    limit = float(chain.cost(ranked[None])[0])
    plan = search(chain.ladders, chain.cost, limit)
    assert total_loss(chain.ladders, plan) <= total_loss(chain.ladders, ranked) + 1e-9


@settings(max_examples=40, deadline=None)
@given(chains(most=1), st.floats(0, 1))
def test_a_lower_limit_never_costs_more_nor_loses_less(
    drawn: tuple[Chain, float], share: float
) -> None:
    # For one group the search finds the best plan; for several it may miss it.
    chain, limit = drawn
    lower = chain.extremes[0] + share * (limit - chain.extremes[0])
    more, less = (search(chain.ladders, chain.cost, bound) for bound in (limit, lower))
    assert chain.cost(less[None])[0] <= chain.cost(more[None])[0]
    assert total_loss(chain.ladders, less) >= total_loss(chain.ladders, more)


def test_close_to_the_best_of_all_plans() -> None:
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ladders = [
            Ladder(size, np.sort(rng.uniform(0.3, 1.7, size)), 0.0, np.arange(size))
            for size in rng.choice([4, 8, 12, 16], 3)
        ]
        chain = Chain(ladders, rng.uniform(0.5, 4, 4), int(rng.choice([1, 4, 8])), True)
        low, high = chain.extremes
        limit = low + rng.uniform(0.1, 0.9) * (high - low)
        every = np.array(list(itertools.product(*[range(ladder.size) for ladder in ladders])))
        best = min(total_loss(ladders, plan) for plan in every[chain.cost(every) <= limit])
        ratios.append(total_loss(ladders, search(ladders, chain.cost, limit)) / best)
    assert np.mean(ratios) < 1.05
    assert np.max(ratios) < 1.3


def test_an_error_has_the_least_cost() -> None:
    ladder = Ladder(4, np.ones(3), 1.0, np.arange(4))
    with pytest.raises(OutOfReachError) as error:
        search([ladder], lambda removed: 4.0 - removed.sum(axis=1), 0.5)
    assert error.value.least == 1.0


def test_a_model_without_channels_has_no_plan() -> None:
    with pytest.raises(OutOfReachError):
        search([], lambda removed: np.ones(len(removed)), 0.5)


def test_two_groups_may_have_to_shrink_before_anything_is_saved() -> None:
    ladders = [Ladder(4, np.ones(4), 0.0, np.arange(4)) for _ in range(2)]
    found = search(
        ladders, lambda removed: 1.0 * (removed.max(axis=1) < 2) + (removed.min(axis=1) < 2), 0.5
    )
    assert found.tolist() == [2, 2]


def test_the_same_share_of_a_layer_loses_the_same_and_the_next_share_more() -> None:
    for size, layers in ((8, 1), (64, 1), (64, 3)):
        ladder = Ladder(size, np.ones(size), 0.0, np.arange(size), layers)
        assert total_loss([ladder], [size // 2]) == pytest.approx(layers)
        assert total_loss([ladder], [size * 3 // 4]) == pytest.approx(3 * layers)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(1, 5))
def test_coarse_rungs_begin_and_end_where_all_rungs_do(size: int, step: int) -> None:
    removed = np.arange(0, size, step)
    coarse = Ladder(size, np.ones(size), 0.0, removed).coarse
    assert coarse[0] == 0
    assert coarse[-1] == len(removed) - 1
    assert len(coarse) <= 10
