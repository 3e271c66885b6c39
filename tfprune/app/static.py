"""The application as a page without a server: LiteRT.js runs the TFLite files in the browser."""

from __future__ import annotations

import base64
import dataclasses
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
_FLOAT_ENDS = "runs here with float32 inputs and outputs, as LiteRT.js takes no int8 and no int16"


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
    directory.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(directory.parent) as partial:
        offered, left_out = _agreeing(contents, device, partial)
        if not offered:
            said = next(iter(left_out.values()), "it has none")
            raise TfpruneError(
                f"{contents.run.directory} has no file that runs in a browser: {said}"
            )
        # Its front and its lists name only files that it runs.
        contents = contents.showing([each.file for each in offered], left_out)
        new = partial / "page"
        (new / "files").mkdir(parents=True)
        for number, each in enumerate(offered):
            shutil.copyfile(each.path, new / _place(number))
        _copy_runtime(new)
        own = resources("tfprune.app").joinpath("page")
        for name in _OWN:
            (new / name).write_text(own.joinpath(name).read_text("utf-8"), "utf-8")
        (new / "index.html").write_text(_index(contents, offered), "utf-8")
        if directory.exists():
            directory.rmdir()
        new.replace(directory)
    return Page(directory / "index.html", tuple(each.file.title for each in offered), left_out)


@dataclass(frozen=True)
class _Offered:
    """A file of the run as the page runs it.

    Attributes:
        file: of the run.
        path: of what LiteRT.js loads: the file, or the same with float32 inputs and outputs.
        dtype: of its input.
        notes: what to know of its answers.
    """

    file: File
    path: Path
    dtype: str
    notes: tuple[str, ...]


def _agreeing(
    contents: Contents, device: Device, folder: Path
) -> tuple[list[_Offered], dict[str, str]]:
    """The files that LiteRT.js runs as LiteRT does, with what to know of each; why not the rest.

    Args:
        contents: of the run.
        device: that runs them.
        folder: where files with other inputs and outputs are written.
    """
    from tfprune.formats.tflite_file import with_float_ends

    left_out = dict(contents.left_out)
    (example,) = (np.asarray(each)[0] for each in leaves(contents.examples.inputs))
    asked: list[_Offered] = []
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
        elif {each.dtype for each in (*runtime.inputs, *runtime.outputs)} & {"int8", "int16"}:
            # LiteRT.js knows neither type.
            path = folder / f"{len(asked)}.tflite"
            path.write_bytes(with_float_ends(file.path.read_bytes()))
            asked.append(_Offered(file, path, "float32", (_FLOAT_ENDS,)))
        else:
            asked.append(_Offered(file, file.path, runtime.inputs[0].dtype, ()))
    offered = []
    for each, found in zip(asked, device.measure([each.path for each in asked]), strict=True):
        if found.refusal:
            left_out[each.file.title] = found.refusal.removeprefix(f"{each.path}: ")
        else:
            # The first note tells of times, which the page measures itself.
            notes = (*each.notes, *found.notes[1:])
            offered.append(dataclasses.replace(each, notes=notes))
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


def _index(contents: Contents, offered: list[_Offered]) -> str:
    template = resources("tfprune.app").joinpath("page", "index.html").read_text("utf-8")
    styles = [
        resources("tfprune.app").joinpath("app.css").read_text("utf-8"),
        # After the other one: its colours follow the system's dark mode.
        resources("tfprune.report.html").joinpath("templates", "report.css").read_text("utf-8"),
    ]
    # Nothing in the data may end the element that holds them.
    data = json.dumps(_data(contents, offered)).replace("<", "\\u003c")
    filled = {
        "NAME": html.escape(contents.name),
        "STYLE": "\n".join(styles),
        "DIFFERENCES": views.differences(contents),
        "DATA": data,
    }
    # In one pass: nothing that is filled in is taken for a place to fill.
    return re.sub("@([A-Z]+)@", lambda found: filled[found[1]], template)


def _data(contents: Contents, offered: list[_Offered]) -> dict[str, Any]:
    (inputs,) = leaves(contents.examples.inputs)
    examples = np.asarray(inputs)
    examples = examples.astype(np.uint8 if examples.dtype == np.uint8 else np.float32)
    size = figure("bytes")
    by = contents.figure
    variants = {each.file.variant for each in offered}
    return {
        "classes": list(contents.dataset.classes),
        "image": list(contents.image_shape) if contents.image_shape else None,
        "bright": contents.is_bright if contents.image_shape else False,
        "by": by.noun,
        "leftOut": contents.left_out,
        "files": [
            {
                "title": each.file.title,
                "variant": each.file.variant,
                "format": each.file.format,
                "path": _place(number),
                "dtype": each.dtype,
                "shape": [1, *examples.shape[1:]],
                "size": size.text(each.file.row["bytes"]),
                "value": by.text(each.file.row[by.name]),
                "notes": list(each.notes),
            }
            for number, each in enumerate(offered)
        ],
        "fronts": {
            cost.sentence: [
                views.front_member(contents, cost, number + 1)
                for number in range(len(contents.front(cost)))
            ]
            for cost in contents.costs
        },
        "layers": {name: drawn for name, drawn in contents.pictures.items() if name in variants},
        "examples": {
            "dtype": examples.dtype.name,
            "shape": list(examples.shape),
            "values": base64.b64encode(np.ascontiguousarray(examples).tobytes()).decode(),
            "truth": list(contents.truth),
        },
    }
