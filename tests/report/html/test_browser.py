"""The report in a real browser: it is drawn, it fits, it asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.report.fake import fake_run
from tfprune.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: try `make chromium`")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["real", "awkward"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run, and of one with many variants, long names and several seeds."""
    if request.param == "real":
        return request.getfixturevalue("tiny_run") / "report.html"
    chains = {"dense": ["dense"], "unbroken" * 20: ["dense", "sparse"], "<b>": ["dense", "slim"]}
    chains |= {f"sweep-{number}": ["dense", "sparse"] for number in range(12)}
    directory = tmp_path_factory.mktemp("awkward") / "name with spaces & more"
    return write_report(fake_run(directory, chains, seeds=(0, 1), name="unbroken" * 20))


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The opened report; what went wrong by the end of the test fails it."""
    page = browser.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert wrong == []
    assert asked == [report.as_uri()]


def test_every_figure_is_drawn(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    sizes = page.evaluate(
        """[...document.querySelectorAll('figure svg')].map(svg => {
            const box = svg.getBBox(), shown = svg.getBoundingClientRect();
            return [box.width, box.height, shown.width, shown.height];
        })"""
    )
    assert len(sizes) == page.locator("figure").count() >= 3
    assert min(min(each) for each in sizes) > 50
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_itself_never_scrolls_sideways(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.evaluate(
        """width => [...document.querySelectorAll('body *')].filter(each =>
            !each.closest('.box, pre, svg') && each.getBoundingClientRect().right > width + 1
        ).map(each => each.outerHTML.slice(0, 80))""",
        width,
    )
    assert beyond == []


def test_the_first_column_stays_while_the_table_scrolls(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    left = page.evaluate(
        """() => {
            const box = document.querySelector('.box');
            box.scrollLeft = 200;
            const cell = box.querySelector('tbody th[scope=row]');
            return [box.scrollLeft, cell.getBoundingClientRect().left
                - box.getBoundingClientRect().left];
        }"""
    )
    assert left == [200, 0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ground = _luminance(page, "body", "backgroundColor")
    assert ground < 0.05 if scheme == "dark" else ground > 0.9
    for selector, least in {
        ".finding": 7,
        ".note": 4.5,
        "a": 4.5,
        "tbody th[scope=row]": 4.5,
        "td": 7,
        "figcaption": 4.5,
    }.items():
        text = _luminance(page, selector, "color")
        lighter, darker = max(text, ground), min(text, ground)
        assert (lighter + 0.05) / (darker + 0.05) >= least, selector
    # Letters within the figures follow the page, too.
    text = _luminance(page, "figure svg text", "fill")
    assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5


def test_all_relative_links_lead_to_files(page: Any, report: Path) -> None:
    links = page.evaluate("[...document.querySelectorAll('a')].map(each => each.href)")
    files = {unquote(urlsplit(link).path) for link in links if "#" not in link}
    assert len(files) > 5
    for file in files:
        assert Path(file).is_file()
        assert Path(file).is_relative_to(report.parent)


def test_on_paper_folded_parts_are_open_and_tables_whole(page: Any) -> None:
    page.emulate_media(media="print")
    # A4 less its margins, at 96 dots an inch.
    page.set_viewport_size({"width": 703, "height": 1000})
    assert page.evaluate(
        "document.querySelector('details:not([open]) > :nth-child(2)').offsetHeight"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 703
    assert page.pdf(format="A4").startswith(b"%PDF")


def _luminance(page: Any, selector: str, attribute: str) -> float:
    """The relative luminance of an element's colour, after WCAG 2."""
    channels = page.evaluate(
        """([selector, attribute]) => {
            const colour = getComputedStyle(document.querySelector(selector))[attribute];
            return colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
        }""",
        [selector, attribute],
    )
    linear = [
        share / 12.92 if (share := value / 255) <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for value in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
