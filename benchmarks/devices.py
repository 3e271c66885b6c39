"""What each method gains on each device, as ratios to the dense net, on small nets.

A ratio is the dense net's figure over the pruned net's, on the same device: 2.00x is half the
time, half the cycles or half the bytes. The nets are untrained: what they cost depends on their
shapes and on which weights are zero or alike, and no ratio here says anything about accuracy.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import pandas as pd

import tfprune
from benchmarks.nets import NETS
from tfprune.devices import Device, find_device
from tfprune.devices.measuring import device_heading, find_figure
from tfprune.errors import TfpruneError, UsageError
from tfprune.files import read_json, write_json, write_text
from tfprune.formats import FORMATS
from tfprune.formats.source import Source, finished
from tfprune.measure import raw_bytes
from tfprune.pipeline import provenance
from tfprune.weights import prune_once, round_weights

DENSE = "dense"
# Images that calibrate int8 ranges; no figure depends on them.
_IMAGES = 16


def sparse(model: keras.Model, share: float, in_float: bool) -> keras.Model:
    """Zeros where a device gains from them: XNNPACK runs only some layers of some nets sparse."""
    if in_float:
        try:
            return prune_once(model, share, policy="xnnpack")
        except UsageError:
            # The message says which layer forbids it; then all weights are pruned.
            pass
    return prune_once(model, share)


def half(model: keras.Model) -> keras.Model:
    """Half of each layer's channels, in steps of 8."""
    return tfprune.slim(model, filters=0.5, round_to=8)


METHODS: dict[str, Callable[[keras.Model, bool], keras.Model]] = {
    DENSE: lambda model, in_float: model,
    "70% zeros": lambda model, in_float: sparse(model, 0.7, in_float),
    "80% zeros": lambda model, in_float: sparse(model, 0.8, in_float),
    "90% zeros": lambda model, in_float: sparse(model, 0.9, in_float),
    "2:4": lambda model, in_float: prune_once(model, 0.5, pattern="2:4"),
    "half of the channels": lambda model, in_float: half(model),
    "half, 80% zeros": lambda model, in_float: sparse(half(model), 0.8, in_float),
    "15 values": lambda model, in_float: round_weights(model, 4),
}
WITH_ZEROS = ("70% zeros", "80% zeros", "90% zeros", "2:4", "half, 80% zeros")


@dataclass(frozen=True)
class Place:
    """A device, and the files that show there what a method gains.

    Attributes:
        device: its name.
        figures: those that are compared.
        format: of the files.
        with_zeros: the format of files with zeros, where it is another.
        with_few_values: the format of files with few values, where it is another.
        options: of the device.
    """

    device: str
    figures: tuple[str, ...]
    format: str
    with_zeros: str = ""
    with_few_values: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def format_of(self, method: str) -> str:
        """The format of a method's file."""
        if method in WITH_ZEROS and self.with_zeros:
            return self.with_zeros
        if method == "15 values" and self.with_few_values:
            return self.with_few_values
        return self.format

    @property
    def in_float(self) -> bool:
        """Whether its files compute in floats."""
        return self.format == "tflite"

    def find(self) -> Device:
        """The device."""
        return find_device(self.device, **self.options)


_TIME = ("device_ms",)
PLACES = {
    "cpu": Place("cpu", _TIME, "tflite", "tflite-sparse"),
    "cpu, int8": Place("cpu", _TIME, "tflite-int8"),
    "wasm, tfjs-tflite, sparse": Place(
        "wasm", _TIME, "tflite", "tflite-sparse", options={"runtime": "tfjs-tflite"}
    ),
    "wasm, tfjs-tflite, dense": Place("wasm", _TIME, "tflite", options={"runtime": "tfjs-tflite"}),
    "wasm, LiteRT.js": Place("wasm", _TIME, "tflite", options={"runtime": "litert.js"}),
    "ethos-u55-128": Place("ethos-u55-128", ("cycles", "flash_bytes"), "tflite-int8"),
    "ethos-u85-256": Place("ethos-u85-256", ("cycles", "flash_bytes"), "tflite-int8"),
    "tflm": Place(
        "tflm", ("flash_bytes", "arena_bytes"), "tflite-int8", with_few_values="tflite-lut"
    ),
}


class Files:
    """The files of the methods of one net, each made once.

    Args:
        net: the dense net.
        folder: where they are written.
    """

    def __init__(self, net: keras.Model, folder: Path) -> None:
        self._net = net
        self._folder = folder
        self._sources: dict[tuple[str, bool], Source] = {}
        self._files: dict[tuple[str, bool, str], Path | str] = {}

    def file(self, method: str, in_float: bool, form: str) -> Path | str:
        """A file, or in one line why there is none."""
        key = method, in_float, form
        if key not in self._files:
            try:
                source = self._source(method, in_float)
                path = source.scratch / f"model{FORMATS[form].suffix}"
                FORMATS[form].write(source, path)
                self._files[key] = path
            except TfpruneError as error:
                self._files[key] = str(error)
        return self._files[key]

    def _source(self, method: str, in_float: bool) -> Source:
        key = method, in_float
        if key not in self._sources:
            model = METHODS[method](self._net, in_float)
            scratch = self._folder / f"{len(self._sources)}"
            scratch.mkdir()
            rng = np.random.default_rng(0)
            images = rng.uniform(0, 255, (_IMAGES, *model.input_shape[1:])).astype(np.float32)
            self._sources[key] = Source(finished(model), "model", scratch, images)
        return self._sources[key]


def measured(net: str, files: Files, place: Place) -> list[dict[str, Any]]:
    """One row a method: the file that is measured, its figures, or why it has none."""
    made = {
        method: files.file(method, place.in_float, place.format_of(method)) for method in METHODS
    }
    paths = [path for path in made.values() if isinstance(path, Path)]
    told = dict(zip(paths, place.find().measure(paths), strict=True))
    rows = []
    for method, path in made.items():
        row: dict[str, Any] = {"net": net, "method": method, "format": place.format_of(method)}
        if isinstance(path, str):
            rows.append({**row, "refusal": path})
            continue
        found = told[path]
        rows.append(
            {
                **row,
                "bytes": raw_bytes(path),
                **found.figures,
                # A path of this computer means nothing to a reader.
                "refusal": found.refusal.replace(str(path), "the file"),
                "notes": [each.replace(str(path), "the file") for each in found.notes],
            }
        )
    return rows


def ratios(rows: list[dict[str, Any]], figure: str) -> pd.DataFrame:
    """A net a row, a method a column: the dense net's figure, and how many times less it is."""
    known = find_figure(figure)
    lines = []
    for net in dict.fromkeys(row["net"] for row in rows):
        of_net = {row["method"]: row.get(figure) for row in rows if row["net"] == net}
        whole = of_net[DENSE]
        line = {"net": net, DENSE: known.text(whole) if whole else "none"}
        for method in [each for each in of_net if each != DENSE]:
            value = of_net[method]
            line[method] = f"{whole / value:.2f}x" if whole and value else "none"
        lines.append(line)
    return pd.DataFrame(lines)


def report(document: Mapping[str, Any], title: str, explained: str) -> str:
    """The result for people."""
    parts = [f"# {title}", explained, NOTE]
    for name, told in document["devices"].items():
        place = PLACES[name]
        parts.append(f"## {device_heading(name, place.find().estimated)}")
        for figure in place.figures:
            parts.append(f"{find_figure(figure).title.capitalize()}:")
            parts.append(ratios(told["rows"], figure).to_markdown(index=False))
        said: dict[str, list[str]] = {}
        for row in told["rows"]:
            for sentence in [row["refusal"], *row.get("notes", [])]:
                if sentence:
                    said.setdefault(sentence, []).append(f"{row['net']}, {row['method']}")
        notes = [
            f"- {'all' if len(where) == len(told['rows']) else '; '.join(where)}: {sentence}"
            for sentence, where in said.items()
        ]
        parts += ["\n".join(notes)] if notes else []
        settings = ", ".join(f"{key} {value}" for key, value in told["settings"].items())
        parts.append(f"`{told['command']}` at {told['commit']}; {settings}; {told['machine']}")
    return "\n\n".join(parts) + "\n"


NOTE = """Files with zeros are `tflite-sparse` where the device may have sparse kernels ("cpu" and
"sparse"), and hold zeros in what XNNPACK can run sparse; where a net has nothing of that kind, in
all kernels. On "cpu" this is the true time of sparse files here: XNNPACK has its sparse kernels
switched off on x86 with AVX. Where files compute in integers, zeros are in all kernels. "15 values"
says how many values the weights of an output channel have at most; on tflm such a file looks them
up in tables (`tflite-lut`)."""


on_devices = click.option(
    "--device",
    "places",
    multiple=True,
    type=click.Choice([*PLACES]),
    help="Just this one; what is known of the others stays.",
)


@click.command()
@on_devices
@click.option("--net", "nets", multiple=True, type=click.Choice([*NETS]), help="Just this one.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/devices")
)
def main(places: tuple[str, ...], nets: tuple[str, ...], output: Path) -> None:
    """Measure each method on each device; times want a quiet machine."""
    explained = __doc__.split("\n", 2)[2].strip()
    compare(
        {name: NETS[name] for name in nets or NETS},
        places,
        output,
        "benchmarks.devices",
        ("What each method gains on each device", explained),
    )


def compare(
    nets: Mapping[str, Callable[[], keras.Model]],
    places: Sequence[str],
    output: Path,
    module: str,
    about: tuple[str, str],
) -> None:
    """Measures each method on each net and device, and writes `output`.json and `output`.md.

    Args:
        nets: what makes each.
        places: names of `PLACES`, all if empty; what is known of the others stays.
        output: of the results, without a suffix.
        module: the command, such as "benchmarks.devices".
        about: the title of the result, and how to read it.
    """
    made_by = {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
    asked = places or tuple(PLACES)
    for name in asked:
        PLACES[name].find().check()
    stored = output.with_suffix(".json")
    known = read_json(stored)["devices"] if stored.exists() else {}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    for net, build in nets.items():
        with tempfile.TemporaryDirectory(prefix="tfprune-devices-") as folder:
            keras.utils.set_random_seed(0)
            files = Files(build(), Path(folder))
            for name in asked:
                click.echo(f"{net} on {name}", err=True)
                rows[name] += measured(net, files, PLACES[name])
        fresh = {
            name: {**made_by, "settings": PLACES[name].find().settings(), "rows": rows[name]}
            for name in asked
        }
        both = {**known, **fresh}
        document = {
            "command": f"python -m {module}",
            "devices": {name: both[name] for name in PLACES if name in both},
        }
        # Complete after each net: all of them take long.
        write_json(stored, document)
        write_text(output.with_suffix(".md"), report(document, *about))


if __name__ == "__main__":
    main()
