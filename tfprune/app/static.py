"""The application as a page without a server: LiteRT.js runs the TFLite files in the browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.app import views
from tfprune.app.contents import Contents, File
from tfprune.data.splits import leaves
from tfprune.devices import Device, find_device
from tfprune.devices.wasm import packages_folder
from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import figure
from tfprune.files import partial_folder

_OWN = ("page.js", "page.css")
# What `loadLiteRt` loads without threads: the compat build where a browser lacks relaxed SIMD.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")


@dataclass(frozen=True)
class Page:
    """A written page.

    Attributes:
        index: its `index.html`.
        offered: titles of the files that it runs.
        left_out: why it does not run the others, by their titles.
    """

    index: Path
    offered: tuple[str, ...]
    left_out: dict[str, str]


def write_page(contents: Contents, directory: Path) -> Page:
    """Writes the application of a run as a page that needs no server of its own.

    Example:
        ```python
        write_page(open_run(Path("saved_models/digits")), Path("page"))
        ```

    Each TFLite file first runs in Chromium here, and its outputs are compared with those of LiteRT:
    the page offers only the files that agree, and says why it leaves out the others. Browsers load
    no module from `file://`, so the folder needs any web server, such as `python -m http.server`.

    Args:
        contents: of the run.
        directory: where it is written; it must not exist, or be empty.

    Raises:
        UsageError: the folder is not empty, Chromium or LiteRT.js is missing, or the run's files
            are not of one input and one answer.
        TfpruneError: no file runs in a browser.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty folder: give a new one to --static")
    inputs = leaves(contents.examples.inputs)
    if len(inputs) != 1 or not contents.is_classification:
        raise UsageError(
            f"{contents.run.directory}: a page shows files of one input that answer one class: "
            "try it without --static"
        )
    device = find_device("wasm", runtime="litert.js", rounds=1)
    device.check()
    offered, left_out = _agreeing(contents, device)
    if not offered:
        said = next(iter(left_out.values()), "it has none")
        raise TfpruneError(f"{contents.run.directory} has no file that runs in a browser: {said}")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(directory.parent) as partial:
        new = partial / "page"
        (new / "files").mkdir(parents=True)
        for number, (file, _) in enumerate(offered):
            shutil.copyfile(file.path, new / _place(number))
        _copy_runtime(new)
        own = resources("tfprune.app").joinpath("page")
        for name in _OWN:
            (new / name).write_text(own.joinpath(name).read_text("utf-8"), "utf-8")
        (new / "index.html").write_text(_index(contents, offered, left_out), "utf-8")
        if directory.exists():
            directory.rmdir()
        new.replace(directory)
    return Page(directory / "index.html", tuple(file.title for file, _ in offered), left_out)


def _agreeing(
    contents: Contents, device: Device
) -> tuple[list[tuple[File, tuple[str, ...]]], dict[str, str]]:
    """The files that LiteRT.js runs as LiteRT does, with what to know of each; why not the rest."""
    left_out = dict(contents.left_out)
    (example,) = (np.asarray(each)[0] for each in leaves(contents.examples.inputs))
    asked = []
    for file in contents.files:
        runtime = file.runtime
        if file.path.suffix != ".tflite":
            left_out[file.title] = "only TFLite files run in a browser"
        elif file.format not in device.formats:
            left_out[file.title] = "LiteRT does not run it"
        elif runtime.fixed_batch not in (None, 1):
            left_out[file.title] = f"its batch is {runtime.fixed_batch}: export it with --batch 1"
        elif tuple(runtime.inputs[0].shape[1:]) != example.shape:
            left_out[file.title] = "its input has another shape than the data"
        else:
            asked.append(file)
    offered = []
    for file, found in zip(asked, device.measure([file.path for file in asked]), strict=True):
        if found.refusal:
            left_out[file.title] = found.refusal.removeprefix(f"{file.path}: ")
        else:
            # The first note tells of times, which the page measures itself.
            offered.append((file, found.notes[1:]))
    return offered, left_out


def _place(number: int) -> str:
    return f"files/{number}.tflite"


def _copy_runtime(folder: Path) -> None:
    packages = packages_folder() / "node_modules" / "@litertjs"
    for package in ("core", "wasm-utils"):
        into = folder / "litert" / package
        shutil.copytree(
            packages / package / "dist", into / "dist", ignore=shutil.ignore_patterns("*.map")
        )
        shutil.copyfile(packages / package / "package.json", into / "package.json")
    (folder / "litert" / "core" / "wasm").mkdir()
    for build in _BUILDS:
        for end in (".js", ".wasm"):
            shutil.copyfile(
                packages / "core" / "wasm" / (build + end),
                folder / "litert" / "core" / "wasm" / (build + end),
            )


# -- what the page is told ----------------------------------------------------------------------


def _index(
    contents: Contents, offered: list[tuple[File, tuple[str, ...]]], left_out: dict[str, str]
) -> str:
    template = resources("tfprune.app").joinpath("page", "index.html").read_text("utf-8")
    styles = [
        resources("tfprune.app").joinpath("app.css").read_text("utf-8"),
        # After the other one: its colours follow the system's dark mode.
        resources("tfprune.report.html").joinpath("templates", "report.css").read_text("utf-8"),
    ]
    # Nothing in the data may end the element that holds them.
    data = json.dumps(_data(contents, offered, left_out)).replace("<", "\\u003c")
    filled = {
        "NAME": html.escape(contents.name),
        "STYLE": "\n".join(styles),
        "DIFFERENCES": views.differences(contents),
        "DATA": data,
    }
    # In one pass: nothing that is filled in is taken for a place to fill.
    return re.sub("@([A-Z]+)@", lambda found: filled[found[1]], template)


def _data(
    contents: Contents, offered: list[tuple[File, tuple[str, ...]]], left_out: dict[str, str]
) -> dict[str, Any]:
    (inputs,) = leaves(contents.examples.inputs)
    examples = np.asarray(inputs)
    examples = examples.astype(np.uint8 if examples.dtype == np.uint8 else np.float32)
    size = figure("bytes")
    by = contents.figure
    return {
        "classes": list(contents.dataset.classes),
        "image": list(contents.image_shape) if contents.image_shape else None,
        "bright": contents.is_bright if contents.image_shape else False,
        "by": by.noun,
        "leftOut": left_out,
        "files": [
            {
                "title": file.title,
                "variant": file.variant,
                "format": file.format,
                "path": _place(number),
                "dtype": file.runtime.inputs[0].dtype,
                "shape": [1, *examples.shape[1:]],
                "size": size.text(file.row["bytes"]),
                "value": by.text(file.row[by.name]),
                "notes": list(notes),
            }
            for number, (file, notes) in enumerate(offered)
        ],
        "fronts": {
            cost.sentence: [
                views.front_member(contents, cost, number + 1)
                for number in range(len(contents.front(cost)))
            ]
            for cost in contents.costs
        },
        "layers": contents.pictures,
        "examples": {
            "dtype": examples.dtype.name,
            "shape": list(examples.shape),
            "values": base64.b64encode(np.ascontiguousarray(examples).tobytes()).decode(),
            "truth": list(contents.truth),
        },
    }
