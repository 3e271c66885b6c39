"""WebAssembly in a browser: TFLite files run by LiteRT.js and tfjs-tflite, in Chromium."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field

from tfprune.devices.answers import feed, largest, litert
from tfprune.devices.base import Device, Measurement
from tfprune.errors import TfpruneError, UsageError, check_package, one_line
from tfprune.vocabulary import FORMATS, FormatName

Runtime: TypeAlias = Literal["litert.js", "tfjs-tflite"]
RUNTIMES: dict[Runtime, str] = {
    "litert.js": "@litertjs/core",
    "tfjs-tflite": "@tensorflow/tfjs-tflite",
}
"""What runs TFLite files in a browser, with its npm package."""

_WEB = Path(__file__).with_name("web")
_PACKAGES = ("package.json", "package-lock.json")
_PAGES = ("page.html", "page.js")
_INSTALL = "tfprune devices install wasm"
_SECONDS_TO_INSTALL = 600
_SECONDS_TO_ANSWER = 300.0
# As a share of the largest value of floats, or of the range of integers: kernels round in another
# order, and quantize activations in another way; what is further off is another computation.
_WRONG = 0.05
_SAME = 1e-3
_FLAGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # Nothing but the page's own server is asked.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Wasm(Device):
    """Chromium without a window, on this computer.

    Each runtime first runs each file in a page of its own, and its outputs are compared with those
    of LiteRT here: LiteRT.js says only in the browser's console that it may not know sparse
    weights. Those that are right are then timed in turn in one page. Of a file that both runtimes
    run, the faster one counts.
    """

    key: ClassVar[str] = "wasm"
    # LiteRT does not run weights in tables.
    formats: ClassVar[tuple[FormatName, ...]] = tuple(
        name for name in FORMATS if name.startswith("tflite") and name != "tflite-lut"
    )
    told: ClassVar[tuple[str, ...]] = ("device_ms",)

    runtime: Annotated[
        Runtime | None,
        Field(description="that runs the files; if not given, the faster one of each file"),
    ] = None
    threads: Annotated[int, Field(ge=1, le=64, description="of one example")] = 1
    rounds: Annotated[int, Field(ge=1, le=100_000, description="timed turns of each file")] = 50
    chromium: Annotated[str, Field(description="the program, or its path")] = "chromium"

    @classmethod
    def install(cls) -> Path:
        """Installs the npm packages of the runtimes, with the versions that tfprune pins.

        Returns:
            The folder that holds them, in the user's cache.

        Raises:
            UsageError: npm is missing.
            TfpruneError: npm fails.
        """
        folder = packages_folder()
        if _installed(folder):
            return folder
        npm = shutil.which("npm")
        if npm is None:
            raise UsageError("device wasm: npm is not found: install Node.js, which brings it")
        from tfprune.files import partial_folder

        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder.parent) as partial:
            new = partial / folder.name
            new.mkdir()
            for name in _PACKAGES:
                shutil.copyfile(_WEB / name, new / name)
            _run_npm(npm, new)
            # A folder without its packages is of no use to anyone.
            shutil.rmtree(folder, ignore_errors=True)
            new.replace(folder)
        return folder

    def check(self) -> None:
        """Playwright, Chromium and the npm packages are there.

        Raises:
            UsageError: one of them is not.
        """
        check_package("device wasm", "playwright", "web")
        if shutil.which(self.chromium) is None:
            raise UsageError(
                f"device wasm: {self.chromium!r} is not found: install Chromium, or give "
                "chromium=PATH"
            )
        if not _installed(packages_folder()):
            raise UsageError(f"device wasm: its npm packages are missing: {_INSTALL}")

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Runs and compares each file with each runtime, then times what is right, in turn."""
        from tfprune.formats.sandbox import Sandbox

        distinct = dict.fromkeys(files)
        prepared: dict[Path, _Prepared] = {}
        refusals: dict[Path, str] = {}
        with contextlib.closing(Sandbox()) as sandbox:
            for path in distinct:
                try:
                    prepared[path] = _prepare(path, sandbox, number=len(prepared))
                except TfpruneError as error:
                    refusals[path] = str(error)
        found: dict[Path, Measurement] = {
            path: Measurement({}, refusal=said) for path, said in refusals.items()
        }
        if prepared:
            # Playwright refuses a thread that runs an event loop, as a notebook's does.
            with ThreadPoolExecutor(1) as thread:
                found |= thread.submit(self._in_browser, prepared).result()
        return [found[path] for path in files]

    def settings(self) -> dict[str, str]:
        """Versions of the runtimes, threads and turns."""
        asked = {"threads": str(self.threads), "rounds": str(self.rounds)}
        return {**versions(), **asked}

    def _in_browser(self, prepared: Mapping[Path, _Prepared]) -> dict[Path, Measurement]:
        data: dict[str, bytes] = {}
        for each in prepared.values():
            data |= each.served
        runtimes = (self.runtime,) if self.runtime else tuple(RUNTIMES)
        wrong: dict[tuple[Path, Runtime], str] = {}
        notes: dict[Path, list[str]] = {path: [] for path in prepared}
        right: dict[str, tuple[Path, Runtime]] = {}
        with _serving(data) as address, self._browser(address) as open_page:
            for path, each in prepared.items():
                for runtime in runtimes:
                    asked = each.asked(runtime, self.threads)
                    with open_page() as page:
                        try:
                            off = each.relative(page.ask("compare", asked))
                        except TfpruneError as error:
                            wrong[path, runtime] = f"{runtime} cannot run it ({error})"
                            continue
                    if off.share > _WRONG:
                        wrong[path, runtime] = f"{runtime} gives wrong outputs ({off.said})"
                        continue
                    right[str(len(right))] = path, runtime
                    if not off.same:
                        notes[path].append(f"the outputs of {runtime} are {off.said}")
            times: dict[Path, dict[Runtime, float]] = {path: {} for path in prepared}
            if right:
                with open_page() as page:
                    for key, (path, runtime) in right.items():
                        page.ask(
                            "load", {**prepared[path].asked(runtime, self.threads), "key": key}
                        )
                    timed = page.ask("time", {"keys": [*right], "rounds": self.rounds}, limit=None)
                for key, (path, runtime) in right.items():
                    milliseconds = statistics.median(timed[key]) / prepared[path].batch
                    times[path][runtime] = milliseconds
        return {
            path: _result(path, times[path], [wrong[at] for at in wrong if at[0] == path], said)
            for path, said in notes.items()
        }

    @contextlib.contextmanager
    def _browser(
        self, address: str
    ) -> Iterator[Callable[[], contextlib.AbstractContextManager[_Page]]]:
        from playwright.sync_api import Error, sync_playwright

        with sync_playwright() as playwright:
            try:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which(self.chromium), args=list(_FLAGS)
                )
            except Error as error:
                raise TfpruneError(
                    f"device wasm: {self.chromium} does not start ({one_line(error)}): install "
                    "another Chromium, or give chromium=PATH"
                ) from error

            @contextlib.contextmanager
            def open_page() -> Iterator[_Page]:
                page = browser.new_page()
                try:
                    page.goto(f"{address}/page.html")
                    page.wait_for_function("window.ready")
                    yield _Page(page)
                finally:
                    with contextlib.suppress(Error):
                        page.close()

            try:
                yield open_page
            except Error as error:
                raise TfpruneError(
                    f"device wasm: Chromium fails ({one_line(error)}): measure fewer files at once"
                ) from error
            finally:
                browser.close()


def versions() -> dict[str, str]:
    """The pinned version of each runtime, by the runtime's name."""
    asked = json.loads((_WEB / "package.json").read_text("utf-8"))["dependencies"]
    return {name: asked[package] for name, package in RUNTIMES.items()}


def packages_folder() -> Path:
    """Where the npm packages of this version of tfprune are, or will be: in the user's cache."""
    locked = hashlib.sha256((_WEB / "package-lock.json").read_bytes()).hexdigest()[:12]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tfprune" / f"web-{locked}"


def _installed(folder: Path) -> bool:
    return all((folder / "node_modules" / name).is_dir() for name in RUNTIMES.values())


def _run_npm(npm: str, folder: Path) -> None:
    # What tfjs-tflite wants beside it is for tensors, which the page does without.
    command = [npm, "ci", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS_TO_INSTALL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TfpruneError(
            f"device wasm: npm ci fails ({one_line(error)}): see whether it reaches its registry"
        ) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        raise TfpruneError(
            f"device wasm: npm ci ends with exit code {done.returncode} ({said}): see whether it "
            "reaches its registry"
        )


def _result(
    path: Path, times: Mapping[Runtime, float], wrong: Sequence[str], notes: Sequence[str]
) -> Measurement:
    if not times:
        advice = "export it as tflite, or choose another device"
        return Measurement({}, refusal=f"{path}: {'; '.join(wrong)}: {advice}")
    best = min(times, key=lambda name: times[name])
    others = [f"{name} takes {each:.3g} ms" for name, each in times.items() if name != best]
    ran = "; ".join([f"timed with {best}", *others])
    return Measurement({"device_ms": times[best]}, notes=(ran, *wrong, *notes))


# -- a file, its example and its answers -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Off:
    """How far outputs are from those of LiteRT here."""

    share: float
    same: bool
    said: str


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A file with an example and what LiteRT answers, and where the server has them."""

    number: int
    batch: int
    ends: dict[str, list[dict[str, Any]]]
    ranges: list[float]
    integers: list[bool]
    served: dict[str, bytes]

    def asked(self, runtime: Runtime, threads: int) -> dict[str, Any]:
        return {
            "key": "",
            "runtime": runtime,
            "file": str(self.number),
            "ends": self.ends,
            "threads": threads,
        }

    def relative(self, distances: Sequence[float]) -> _Off:
        shares = [d / r for d, r in zip(distances, self.ranges, strict=True)]
        worst = int(np.argmax(shares))
        share = float(shares[worst])
        integers = self.integers[worst]
        same = distances[worst] <= 1 if integers else share <= _SAME
        unit = "the range of its integers" if integers else "the largest output"
        return _Off(share, same, f"off those of LiteRT by up to {share:.2g} of {unit}")


def _prepare(path: Path, sandbox: Any, number: int) -> _Prepared:
    from tfprune.formats.sandbox import call_on_file
    from tfprune.formats.tflite_file import TFLiteFile

    if path.suffix != ".tflite":
        raise TfpruneError(f"{path} is not a .tflite file: export it as one of tflite-*")
    content = path.read_bytes()
    found = call_on_file(sandbox, _answers, path, content, timeout=_SECONDS_TO_ANSWER)
    batch = TFLiteFile(content).batch()
    if batch is None:
        raise TfpruneError(
            f"{path}: its batch is open, which LiteRT.js refuses: export it with --batch 1"
        )
    served = {f"{number}/content": content}
    ends: dict[str, list[dict[str, Any]]] = {}
    for end, tensors in found.items():
        ends[end] = []
        for place, (names, array) in enumerate(tensors):
            key = f"{number}/{end}/{place}"
            served[key] = np.ascontiguousarray(array).tobytes()
            ends[end].append(
                {
                    "names": names,
                    "place": place,
                    "path": f"/data/{key}",
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                }
            )
    outputs = [array for _, array in found["outputs"]]
    integers = [array.dtype.kind in "iu" for array in outputs]
    ranges = [
        float(np.iinfo(array.dtype).max) - np.iinfo(array.dtype).min
        if array.dtype.kind in "iu"
        else largest([array])
        for array in outputs
    ]
    return _Prepared(number, batch, ends, ranges, integers, served)


def _answers(path: Path, content: bytes) -> dict[str, list[tuple[list[str], np.ndarray]]]:
    """An example of random numbers and what LiteRT answers, each with the names of its tensor."""
    from ai_edge_litert import schema_py_generated as schema

    from tfprune.formats.tflite_file import end_names

    interpreter = litert(path, content)
    arrays = feed(interpreter, seed=0)
    interpreter.invoke()
    signed = end_names(schema.Model.GetRootAs(content, 0))
    found: dict[str, list[tuple[list[str], np.ndarray]]] = {}
    for end, details, names in zip(
        ("inputs", "outputs"),
        (interpreter.get_input_details(), interpreter.get_output_details()),
        signed,
        strict=True,
    ):
        values = (
            arrays if end == "inputs" else [interpreter.get_tensor(d["index"]) for d in details]
        )
        found[end] = [
            ([*(n for n, number in names.items() if number == each["index"]), each["name"]], value)
            for each, value in zip(details, values, strict=True)
        ]
    return found


# -- the page and its server -----------------------------------------------------------------------


class _Page:
    """A page that runs files, and answers what it is asked."""

    def __init__(self, page: Any) -> None:
        self._page = page

    def ask(self, name: str, argument: Any, limit: float | None = _SECONDS_TO_ANSWER) -> Any:
        """What one of the page's functions returns.

        Raises:
            TfpruneError: it fails, takes longer than the limit in seconds, or the page crashes.
        """
        from playwright.sync_api import Error
        from playwright.sync_api import TimeoutError as Late

        try:
            self._page.evaluate(
                "([name, argument]) => window.begin(name, argument)", [name, argument]
            )
            # Nothing looks more often, while calls are timed.
            self._page.wait_for_function(
                "window.answer", timeout=limit * 1000 if limit else 0, polling=250
            )
            answer = self._page.evaluate("window.answer")
        except Late:
            raise TfpruneError(f"it takes longer than {limit:g} s") from None
        except Error as error:
            raise TfpruneError(one_line(error)) from error
        if "error" in answer:
            raise TfpruneError(" ".join(answer["error"].split())[:200])
        return answer["value"]


@contextlib.contextmanager
def _serving(data: Mapping[str, bytes]) -> Iterator[str]:
    """A server for this computer alone, while the context lasts; gives its address."""
    handler = functools.partial(_Handler, data, packages_folder() / "node_modules")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}


class _Handler(http.server.BaseHTTPRequestHandler):
    """Gives the page, the packages, and the bytes of files and arrays."""

    protocol_version = "HTTP/1.1"

    def __init__(self, data: Mapping[str, bytes], packages: Path, *arguments: Any) -> None:
        self._data = data
        self._packages = packages
        super().__init__(*arguments)

    def do_GET(self) -> None:
        content = self._found(self.path.partition("?")[0])
        self.send_response(404 if content is None else 200)
        kind = _TYPES.get(PurePosixPath(self.path).suffix, "application/octet-stream")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content or b"")))
        # A page that is isolated has threads, and a clock of microseconds.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(content or b"")

    def _found(self, path: str) -> bytes | None:
        kind, _, rest = path.removeprefix("/").partition("/")
        if kind == "data":
            return self._data.get(rest)
        if kind in _PAGES and not rest:
            return (_WEB / kind).read_bytes()
        if kind != "packages" or ".." in rest.split("/"):
            return None
        file = self._packages / rest
        return file.read_bytes() if file.is_file() else None

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
