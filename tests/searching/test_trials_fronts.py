"""Fronts, halving and the winner, by their definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tfprune.searching.trials import Choice, Tried, front, halved, nearest, ranked, winner

_NUMBERS = st.integers(0, 6).map(float)
TRIED = st.lists(
    st.builds(
        lambda drop, ratio, keep, refusal: Tried(
            Choice("tflite", keep), 1, 1, "t", 0.5, drop, ratio, {}, refusal
        ),
        _NUMBERS,
        _NUMBERS,
        st.sampled_from([0.5, 1.0]),
        st.sampled_from(["", "", "", "its batch is open"]),
    ),
    min_size=1,
    max_size=12,
)


def _beats(one: Tried, other: Tried) -> bool:
    at_least = one.ratio <= other.ratio and one.drop <= other.drop
    return at_least and (one.ratio, one.drop) != (other.ratio, other.drop)


@given(TRIED)
def test_the_front_is_what_nobody_beats(tried):
    running = [each for each in tried if not each.refusal]
    found = {
        (each.ratio, each.drop)
        for each in running
        if not any(_beats(other, each) for other in running)
    }
    line = front(tried, lambda each: each.ratio)
    assert {(each.ratio, each.drop) for each in line} == found
    assert [each.ratio for each in line] == sorted(each.ratio for each in line)


@given(TRIED)
def test_a_trial_is_ranked_after_all_that_beat_it(tried):
    order = ranked(tried)
    assert sorted(map(id, order)) == sorted(map(id, tried))
    for place, each in enumerate(order):
        assert not any(
            _beats(later, each) for later in order[place:] if not each.refusal and not later.refusal
        )


@given(TRIED, _NUMBERS)
def test_no_more_than_half_goes_on_and_nothing_that_cannot_win(tried, max_drop):
    found = halved(tried, max_drop)
    assert len(found) <= max(1, len(tried) // 2)
    keeping = [each.ratio for each in tried if each.keeps(max_drop)]
    for each in found:
        assert not each.refusal
        assert not keeping or each.ratio <= min(keeping)


@given(TRIED.filter(lambda tried: any(not each.refusal for each in tried)), _NUMBERS)
def test_the_winner_is_the_cheapest_inside_the_budget_else_the_nearest(tried, max_drop):
    found = winner(tried, max_drop)
    assert not found.refusal
    keeping = [each.ratio for each in tried if each.keeps(max_drop)]
    if keeping:
        assert found.keeps(max_drop)
        assert found.ratio == min(keeping)
    else:
        assert found.drop == min(each.drop for each in tried if not each.refusal)


def test_the_nearest_is_cheap_enough_and_loses_least():
    def tried(drop: float, ratio: float) -> Tried:
        return Tried(Choice("tflite"), 1, 1, "t", 0.5, drop, ratio)

    near = tried(2.0, 0.4)
    assert nearest([tried(3.0, 0.3), near, tried(1.0, 0.9), tried(0.1, 0.2)], 0.5, 0.5) is near
    assert nearest([tried(3.0, 0.9)], 0.5, 0.5) is None
