"""Figures are part of the page: its colours, its fonts, ids of their own."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.report.html.svg import (
    Box,
    canvas,
    colour,
    inline,
    panel,
    place_labels,
    round_numbers,
    short_name,
    style,
)

coordinate = st.floats(0, 300)
BOUNDS = Box(0, 0, 300, 200)


def _figure(salt: str, text: str = "name", notes=None) -> str:
    with style(salt):
        figure = canvas(200, 100)
        axes = panel(figure, 20, 20, 5, 5)
        axes.scatter([1, 2, 3], [1, 2, 3], color=colour("accent")).set_gid("dots")
        axes.plot([1, 2], [2, 1], clip_on=True)
        axes.text(1, 1, text)
        return inline(figure, salt=salt, title=f"<{text}>", notes=notes)


def test_the_same_figure_is_the_same_text():
    assert _figure("a") == _figure("a")


def test_ids_are_a_figures_own_and_lead_somewhere():
    one, other = _figure("one"), _figure("other")
    ids = re.findall(r'\bid="([^"]+)"', one + other)
    assert ids
    assert len(ids) == len(set(ids))
    for svg in (one, other):
        wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
        assert wanted == set(re.findall(r'\bid="([^"]+)"', svg))


def test_colours_are_the_pages_and_fonts_are_not_named():
    svg = _figure("a")
    assert "var(--accent)" in svg
    assert "#fe" not in svg
    assert "font-family" not in svg
    assert "DejaVu" not in svg


def test_names_are_text_and_harm_nothing():
    svg = _figure("a", text="$x^2$ <b>&\"'")
    assert "$x^2$ &lt;b&gt;&amp;" in svg
    assert 'aria-label="&lt;$x^2$ &lt;b&gt;&amp;&quot;' in svg
    assert "<b>" not in svg


def test_a_colour_that_is_a_name_stays_a_name():
    assert f">{colour('ink')}<" in _figure("a", text=colour("ink"))


def test_letters_the_font_lacks_are_no_warning():
    assert "日本語" in _figure("a", text="日本語")


def test_every_point_has_its_note():
    svg = _figure("a", notes={"dots": ["first", "<second>", "third"]})
    assert re.findall(r"<title>([^<]*)</title>", svg) == ["first", "&lt;second&gt;", "third"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dense", "dense"),
        ("a\nb\x00\tc", "a b c"),
        ("x" * 30, "x" * 12 + "…" + "x" * 11),
        ("\ud800", ""),
    ],
)
def test_labels_are_one_short_printable_line(name, shown):
    assert short_name(name) == shown


def test_ticks_of_a_log_scale_are_round():
    assert round_numbers(3, 60) == [5, 10, 20, 50]
    assert round_numbers(0.5, 2e6) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]


@given(st.lists(st.tuples(coordinate, coordinate), max_size=25), st.floats(5, 90))
def test_no_name_covers_another_a_point_or_leaves_the_figure(points, width):
    taken = [Box(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    boxes = [
        box for box in place_labels(points, [(width, 10)] * len(points), BOUNDS, taken=taken) if box
    ]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    assert not any(box.meets(other) for box in boxes for other in taken)
    assert all(BOUNDS.holds(box) for box in boxes)


def test_a_lonely_name_stands_right_of_its_point():
    assert place_labels([(100, 100)], [(40, 10)], BOUNDS) == [Box(106, 95, 146, 105)]


def test_a_name_crosses_a_line_only_where_it_must():
    line = Box(100, 99, 300, 101)
    (box,) = place_labels([(100, 100)], [(40, 10)], BOUNDS, disliked=[line])
    assert box is not None
    assert not box.meets(line)
    everywhere = Box(0, 0, 300, 200)
    assert place_labels([(100, 100)], [(40, 10)], BOUNDS, disliked=[everywhere]) != [None]


def test_a_name_without_room_is_left_out():
    assert place_labels([(100, 100)], [(400, 10)], BOUNDS) == [None]
