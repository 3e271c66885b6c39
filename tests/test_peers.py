"""What peers share is the same for each of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

schedule = pytest.importorskip("benchmarks.peers.schedule")


def test_every_image_comes_once_an_epoch_in_the_same_order_for_all():
    x = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    y = np.arange(10)
    plan = schedule.Plan(epochs=2, batch=4)
    found = list(plan.batches(x, y))
    assert [len(labels) for _, labels in found] == [4, 4, 2, 4, 4, 2]
    for epoch in (found[:3], found[3:]):
        assert sorted(np.concatenate([labels for _, labels in epoch])) == list(y)
        # Cropped and flipped, each image still is the one of its label.
        assert all(
            (images[place] == labels[place]).all()
            for images, labels in epoch
            for place in range(len(labels))
        )
    again = list(plan.batches(x, y))
    assert all((one[0] == other[0]).all() for one, other in zip(found, again, strict=True))
    other = list(schedule.Plan(epochs=2, batch=4, seed=1).batches(x, y))
    assert any((one[1] != two[1]).any() for one, two in zip(found, other, strict=True))


def test_the_rate_rises_for_an_epoch_and_falls_to_zero():
    plan = schedule.Plan(epochs=3, rate=0.1, batch=4)
    rates = [plan.rate_at(step, 16) for step in range(13)]
    assert rates[:5] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0)
