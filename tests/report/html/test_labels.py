"""Names stay apart."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tfprune.report.html.labels import Box, place

coordinate = st.floats(0, 300)
BOUNDS = Box(0, 0, 300, 200)


@given(st.lists(st.tuples(coordinate, coordinate), max_size=25), st.floats(5, 90))
def test_no_name_covers_another_a_point_or_leaves_the_figure(points, width):
    taken = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    boxes = [box for box in place(points, [(width, 10)] * len(points), BOUNDS, taken=taken) if box]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    assert not any(box.meets(other) for box in boxes for other in taken)
    assert all(BOUNDS.holds(box) for box in boxes)


def test_a_lonely_name_stands_right_of_its_point():
    assert place([(100, 100)], [(40, 10)], BOUNDS) == [Box(106, 95, 146, 105)]


def test_a_name_crosses_a_line_only_where_it_must():
    line = Box(100, 99, 300, 101)
    (box,) = place([(100, 100)], [(40, 10)], BOUNDS, disliked=[line])
    assert box is not None
    assert not box.meets(line)
    everywhere = Box(0, 0, 300, 200)
    assert place([(100, 100)], [(40, 10)], BOUNDS, disliked=[everywhere]) != [None]


def test_a_name_without_room_is_left_out():
    assert place([(100, 100)], [(400, 10)], BOUNDS) == [None]
