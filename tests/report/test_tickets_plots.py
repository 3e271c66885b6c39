"""The picture's points are those of the table, and it stands where a run has rounds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from tests.report.html.test_page import Page
from tests.report.test_tickets import fake_lottery
from tfprune.report import read_run, tickets, tickets_over_seeds, write_report
from tfprune.report.tickets import legend, level_plots, tickets_file


@pytest.fixture
def over(tmp_path) -> pd.DataFrame:
    return tickets_over_seeds(tickets(read_run(fake_lottery(tmp_path))))


def _points(svg: str) -> dict[str, tuple[float, float]]:
    """Where each point lies, by what it says of itself."""
    found = {}
    for use in ET.fromstring(svg).iter("use"):
        if (title := use.find("title")) is not None:
            found[str(title.text)] = (float(use.attrib["x"]), float(use.attrib["y"]))
    return found


def test_every_row_is_a_point_at_its_place(over):
    for plot, text in zip(level_plots(over), ("{:.2%}", "{:g}"), strict=True):
        column = plot.figure.name
        said = [
            f"{row['method']}{', level ' + str(row['level']) if row['level'] else ''}: density "
            f"{row['density']:.1%}, {plot.figure.title} {text.format(row[column])}"
            for row in over.to_dict("records")
        ]
        points = _points(plot.svg)
        assert set(points) == set(said)
        places = np.array([points[each] for each in said])
        # Straight lines from figures to places: logarithmic along, linear upward, less to the left.
        for values, place, sign in (
            (np.log(over["density"]), places[:, 0], -1),
            (over[column], places[:, 1], -1),
        ):
            slope, offset = np.polyfit(values, place, 1)
            np.testing.assert_allclose(slope * values + offset, place, atol=0.02)
            assert np.sign(slope) == sign


def test_those_who_cannot_see_it_are_told_the_ends(over):
    accuracy, epoch = (ET.fromstring(plot.svg).attrib["aria-label"] for plot in level_plots(over))
    assert accuracy == (
        "Accuracy against density. dense 95.50% at 100.0%; ticket 94.00% at 80.0% to 94.50% at "
        "64.0%; reinit 93.50% at 80.0%."
    )
    assert epoch.startswith("Early-stop epoch against density. dense 3 at 100.0%; ticket 2 at")


def test_bands_stand_only_where_seeds_differ(tmp_path):
    def bands(seeds) -> list[int]:
        directory = fake_lottery(tmp_path / str(len(seeds)), seeds=seeds)
        over = tickets_over_seeds(tickets(read_run(directory)))
        return [
            len(re.findall("fill-opacity|opacity: 0.1", plot.svg)) for plot in level_plots(over)
        ]

    # Three methods differ in accuracy, none in its early-stop epoch.
    assert bands((0,)) == [0, 0]
    accuracy, epoch = bands((0, 1))
    assert accuracy >= 3
    assert epoch == 0


def test_what_was_not_recorded_is_not_level_plots(tmp_path):
    directory = fake_lottery(tmp_path, history=lambda step, seed: None)
    over = tickets_over_seeds(tickets(read_run(directory)))
    assert [plot.figure.name for plot in level_plots(over)] == ["accuracy"]


def test_methods_look_different(over):
    shown = legend(over)
    assert [name for name, *_ in shown] == ["ticket", "reinit"]
    assert len({path for _, path, _ in shown}) == len({role for *_, role in shown}) == 2


def test_the_file_stands_alone(tmp_path):
    table = tickets(read_run(fake_lottery(tmp_path)))
    text = tickets_file(table.replace({"method": {"reinit": "<a> & b"}}))
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used
    for each in used:
        # In the light and in the dark.
        assert text.count(f"{each}:") == 2
    said = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ticket", "<a> & b", "dense"} <= set(said)
    # All points of both figures.
    assert len(list(root.iter("{http://www.w3.org/2000/svg}title"))) == 1 + 2 * 4
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text == tickets_file(table.replace({"method": {"reinit": "<a> & b"}}))


def test_the_page_has_them_where_a_run_has_rounds(tmp_path):
    write_report(fake_lottery(tmp_path))
    markup = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(markup)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert "tickets" in ids
    assert len(ids) == len(set(ids))
    assert "Lottery tickets Levels of pruning, dense at the left" in page.text
    assert "95.50% (95.00%\N{EN DASH}96.00%)" in page.text
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert {"#tickets", "./tickets.csv", "./tickets.svg"} <= links
    for svg in level_plots(tickets_over_seeds(tickets(read_run(tmp_path)))):
        assert svg.svg in markup
