from __future__ import annotations

import numpy as np
import pytest

from tfprune.filters.channels import Channels, Trace


def test_ids_must_fill_their_axis() -> None:
    with pytest.raises(AssertionError, match=r"2 ids for axis 1 of \(None, 3\)"):
        Channels((None, 3), 1, np.arange(2), np.zeros(2))


def test_united_channels_are_one_component_and_others_are_not() -> None:
    trace = Trace()
    trace.count = 6
    first, second = (Channels((None, 2), 1, ids, np.zeros(2)) for ids in np.array([[0, 1], [4, 3]]))
    trace.unite(first, second)
    found = trace.components()
    assert found[0] == found[4]
    assert found[1] == found[3]
    assert len(set(found.tolist())) == 4


def test_without_edges_every_channel_is_its_own_component() -> None:
    trace = Trace()
    trace.count = 3
    assert trace.components().tolist() == [0, 1, 2]
