"""The application in a real browser: it answers to what is drawn, uploaded and picked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.tables import slow
from tfprune import figures
from tfprune.app import views
from tfprune.app.contents import Contents, example_at, open_run
from tfprune.cli import main

pytest.importorskip("gradio", reason="gradio is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from tfprune.app import server  # noqa: E402

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: try `make chromium`")
# gradio 6 uses what Starlette calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio", "ignore::Warning:starlette")


@pytest.fixture(scope="module")
def contents(tiny_run: Path) -> Contents:
    return open_run(tiny_run, formats=["keras", "tflite"], limit=20)


@pytest.fixture(scope="module")
def address(contents: Contents) -> Iterator[str]:
    blocks = server.build(contents)
    _, address, _ = blocks.launch(
        prevent_thread_lock=True, quiet=True, share=False, **server.look()
    )
    yield address
    blocks.close()


@pytest.fixture(params=[(1280, "light"), slow((390, "dark"))], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    """The opened application; what went wrong by the end of the test fails it."""
    width, scheme = request.param
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        wrong: list[str] = []
        asked: list[str] = []
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#answers table")
        yield page
        fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
    assert not wrong
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    assert fits


def shown(page: Any) -> list[str]:
    """The answers of the table, one a file."""
    found: list[str] = page.locator("#answers tbody strong").all_inner_texts()
    return found


def see(page: Any, image: np.ndarray) -> None:
    """Waits until the answers are those to an image of the data."""
    source = views.picture(image).partition('src="')[2].partition('"')[0]
    page.wait_for_function(
        "source => document.querySelector('#answers img')?.src == source", arg=source
    )


def settle(page: Any) -> None:
    """Waits until the answers stay: one stroke is told in several parts."""
    source = None
    while source != (source := page.locator("#answers img").get_attribute("src")):
        page.wait_for_timeout(2000)


def expected(contents: Contents, image: np.ndarray) -> list[str]:
    return [each.text for each in contents.answers(image)]


@needs_browser
def test_it_answers_what_is_drawn_uploaded_and_picked(page, contents, tmp_path):
    assert shown(page) == expected(contents, example_at(contents.examples, 0))
    # Drawn.
    page.wait_for_selector("#paper canvas")
    before = page.locator("#answers img").get_attribute("src")
    page.wait_for_function(
        "!document.querySelector('#paper').innerText.includes('select the draw')"
    )
    box = page.locator("#paper canvas").first.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 0.7 * box["height"], steps=8)
    page.mouse.up()
    page.wait_for_function("old => document.querySelector('#answers img').src != old", arg=before)
    settle(page)
    assert shown(page)[0] in contents.dataset.classes
    # Uploaded.
    page.get_by_role("tab", name="Upload").click()
    file = tmp_path / "digit.png"
    digit = example_at(contents.examples, 5)
    Image.fromarray(np.kron(digit[..., 0], np.ones((4, 4), np.uint8))).save(file)
    page.locator("#photo input[type=file]").set_input_files(file)
    grown = np.asarray(Image.open(file).convert("RGB"))
    see(page, contents.photo(grown))
    assert shown(page) == expected(contents, contents.photo(grown))
    # Picked, by the keyboard.
    page.get_by_role("tab", name="Test example").click()
    page.locator("#number input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    see(page, example_at(contents.examples, 1))
    assert shown(page) == expected(contents, example_at(contents.examples, 1))
    # The rest is there.
    page.get_by_role("tab", name="Layers").click()
    page.wait_for_selector("#layers svg")
    page.get_by_role("tab", name="Where they differ").click()
    count = min(len(contents.differences), 24)
    assert page.locator("#differences .tp-grid > li").count() == count


def test_a_front_is_walked_from_cheap_to_dear(contents):
    size = figures.figure("bytes")
    front = contents.front(size)
    for place, file in enumerate(front, 1):
        view = views.front_member(contents, size, place)
        assert f"<strong>{file.title}</strong>, {place} of {len(front)}" in view
        assert size.text(file.row["bytes"]) in view
    assert views.front_member(contents, size, 99) == views.front_member(contents, size, len(front))


def test_names_are_text_and_no_markup(contents, monkeypatch):
    monkeypatch.setitem(contents.left_out, "<b>", "<script>")
    assert "<script>" not in views.heading(contents)
    assert "&lt;script&gt;" in views.heading(contents)


def test_the_command_serves_the_run(tiny_run, monkeypatch):
    served = {}

    def serve(contents, **options):
        served.update(options, files=len(contents.files))

    monkeypatch.setattr(server, "serve", serve)
    words = ["app", str(tiny_run), "-f", "tflite", "--port", "7999", "--limit", "3"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert served == {"host": "127.0.0.1", "port": 7999, "open_browser": False, "files": 3}


def test_a_missing_gradio_is_one_line(tiny_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["app", str(tiny_run)])
    assert result.exit_code == 2
    assert "the application needs gradio: pip install 'tfprune[app]', or " in result.output


def test_what_does_not_change_is_the_same_and_not_1_times(contents):
    file = contents.files[0]
    size = figures.figure("bytes")
    alone = contents.showing([file], {})
    view = views.front_member(alone, size, 1)
    assert "<td>the same</td>" in view
    assert " times" not in view and "gained" not in view
