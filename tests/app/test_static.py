"""The application as a page: it answers as the files do in Python, in Chromium."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfprune.app.contents import Contents, example_at, open_run
from tfprune.devices.wasm import packages_folder
from tfprune.errors import UsageError

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("gradio", reason="gradio is not installed")
CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not (packages_folder() / "node_modules").is_dir(),
    reason="no chromium or no LiteRT.js: try `make chromium` and `make web`",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def contents(tiny_run: Path) -> Contents:
    return open_run(tiny_run, limit=20)


@pytest.fixture(scope="module")
def address(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tfprune.app.static import write_page

    folder = tmp_path_factory.mktemp("page") / "out"
    page = write_page(contents, folder)
    assert page.offered and set(page.offered) | set(page.left_out) >= {
        file.title for file in contents.files
    }
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on(
            "console",
            lambda said: page.wrong.append(said.text) if said.type == "error" else None,
        )
        page.goto(address)
        page.wait_for_selector("#answers tbody tr", timeout=60_000)
        yield page
        browser.close()


@pytest.mark.slow
@needs_browser
def test_page_answers_as_the_files_do(contents: Contents, page: Any) -> None:
    for number in range(3):
        example = example_at(contents.examples, number)
        assert isinstance(example, np.ndarray)
        found = page.evaluate("array => window.tfprune.answers(array)", example.ravel().tolist())
        wanted = {each.file.title: each for each in contents.answers(example)}
        for each in found:
            there = wanted[each["file"]["title"]]
            assert contents.dataset.classes[each["place"]] == there.text
            assert np.allclose(each["output"], there.outputs, atol=1e-2)


@pytest.mark.slow
@needs_browser
def test_page_runs_int8_files_and_names_only_what_it_runs(page: Any) -> None:
    told = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    shown = {each["title"] for each in told["files"]}
    assert any(title.endswith("tflite-int8") for title in shown)
    for members in told["fronts"].values():
        for member in members:
            assert any(f"<strong>{title}</strong>" in member for title in shown)
    assert set(told["layers"]) <= {each["variant"] for each in told["files"]}


@pytest.mark.slow
@needs_browser
def test_wide_tables_scroll_in_their_box_and_say_so(page: Any) -> None:
    boxes = page.evaluate(
        """[...document.querySelectorAll('.box, .tp-wide')].map((box) =>
          [box.scrollWidth > box.clientWidth, !box.nextElementSibling.hidden])"""
    )
    assert len(boxes) == 2 and all(wide == said for wide, said in boxes)
    assert any(wide for wide, _ in boxes)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("size", [(20, 31), (5, 6)])
def test_page_prepares_photos_and_drawings_as_python_does(
    contents: Contents, page: Any, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 4), np.uint8)
    image[..., 3] = 255
    asked = [image.ravel().tolist(), *size]
    found = page.evaluate("asked => [...window.tfprune.photo(...asked)]", asked)
    assert np.abs(np.array(found) - contents.photo(image).ravel().astype(int)).max() <= 1
    ink = np.zeros((40, 40), np.uint8)
    ink[5 : 5 + size[0], 3 : 3 + size[1]] = 255
    found = page.evaluate(
        "asked => [...window.tfprune.drawing(...asked)]", [ink.ravel().tolist(), 40, 40]
    )
    assert np.abs(np.array(found) - contents.drawing(ink).ravel().astype(int)).max() <= 1


@pytest.mark.slow
@needs_browser
def test_page_is_used_on_a_phone_by_keyboard_and_asks_nobody_else(
    page: Any, address: str, tmp_path: Path
) -> None:
    from PIL import Image

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    before = page.evaluate("document.getElementById('seen').toDataURL()")
    page.focus("#number")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.getElementById('truth').textContent.startsWith('Example 1')")
    assert page.evaluate("document.getElementById('seen').toDataURL()") != before
    page.focus("#paper")
    for key in (" ", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    drawn = page.evaluate("document.getElementById('seen').toDataURL()")
    Image.new("RGB", (30, 20), (200, 10, 10)).save(tmp_path / "red.png")
    page.set_input_files("#photo", tmp_path / "red.png")
    page.wait_for_function("was => document.getElementById('seen').toDataURL() !== was", arg=drawn)
    shown = page.inner_html("#layers")
    page.select_option("#variant", index=0)
    assert page.inner_html("#layers") != shown
    assert all(each.startswith((address, "data:", "blob:")) for each in page.asked)
    assert page.wrong == []


def test_folder_with_files_is_not_written_over(contents: Contents, tmp_path: Path) -> None:
    from tfprune.app.static import write_page

    (tmp_path / "kept").touch()
    with pytest.raises(UsageError, match="not an empty folder: give a new one"):
        write_page(contents, tmp_path)
