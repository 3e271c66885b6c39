"""A model at an address is downloaded once, whole, and is the file that was meant."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune import TfpruneError, UsageError
from tfprune.model.download import fetched
from tfprune.model.reference import find_model


class Site:
    """Files at an address, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        # Bytes that are promised and never sent.
        self.missing = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                content = site.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"") + site.missing))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "cache"))
    found = Site()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def kept(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_model_at_an_address_is_the_model_of_its_file(site: Site, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(path := tmp_path / "net.keras")
    site.files["/a%20b/net.keras"] = path.read_bytes()
    address = f"{site.address}/a%20b/net.keras"
    x = np.ones((1, 3), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(tfprune.load(address)(x), model(x))
    assert site.asked == ["/a%20b/net.keras"]
    # A run knows it by its content, as it knows a file.
    assert find_model(address).identity() == find_model(path).identity()
    assert kept(tmp_path) == ["net.keras"]


def test_a_file_of_another_checksum_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.files["/net.h5"] = b"content"
    right, wrong = hashlib.sha256(b"content").hexdigest(), 64 * "0"
    with pytest.raises(TfpruneError, match=f"has the SHA-256 {right}, not {wrong}"):
        fetched(f"{site.address}/net.h5#sha256={wrong}")
    assert kept(tmp_path) == []
    path = fetched(f"{site.address}/net.h5#sha256={right.upper()}")
    assert path.read_bytes() == b"content"


@pytest.mark.reliability("addresses of models", "refused")
@pytest.mark.parametrize("trouble", ["missing", "broken off", "nobody there", "no address"])
def test_what_cannot_be_downloaded_is_one_line_and_leaves_nothing(
    site: Site, tmp_path: Path, trouble: str
) -> None:
    address = {"no address": "http://[::1/net.h5", "nobody there": "http://127.0.0.1:1/net.h5"}.get(
        trouble, f"{site.address}/net.h5"
    )
    if trouble == "broken off":
        site.files["/net.h5"], site.missing = b"content", 5
    with pytest.raises((TfpruneError, UsageError)) as error:
        find_model(address).check_files()
    assert str(error.value).startswith("http")
    assert "\n" not in str(error.value)
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("https://example.org/", {}, "names no file: give the address of a .keras or .h5 file"),
        ("https://example.org/n.h5#sha256=12", {}, "must be sha256= and 64 hexadecimal digits"),
        ("https://example.org/n.h5#v2", {}, "must be sha256= and 64 hexadecimal digits"),
        ("https://example.org/n.h5", {"width": 3}, "is a file, which has no option width"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_before_anything_is_asked(
    name: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_model(name, options)
