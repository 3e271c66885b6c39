"""What rewriting for XNNPACK's sparse kernels costs and gains in a browser.

A ratio is the time of the net as it is, dense, over the time of the file: 2.00x is half of the
time. The nets are untrained: times depend on shapes and on which weights are zero. Zeros are in the
1x1 convolutions that can run sparse after the rewriting; of the net as it is, in the same ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import pandas as pd

import tfprune
from benchmarks.nets import NETS
from tfprune.devices import find_device
from tfprune.figures import figure
from tfprune.files import write_json, write_text
from tfprune.model.counting import count_macs
from tfprune.pipeline import provenance
from tfprune.weights import prune_once
from tfprune.weights.xnnpack import sparse_layers

COMPARED: dict[str, Callable[[], keras.Model]] = {
    **{name: NETS[name] for name in ("MobileNetV1 0.5, 96 px", "MobileNetV2 0.35, 96 px")},
    "MobileNetV1 0.5, 32 px": lambda: keras.applications.MobileNet(
        (32, 32, 3), alpha=0.5, weights=None, classes=2
    ),
    "MobileNetV2 0.35, 97 px": lambda: keras.applications.MobileNetV2(
        (97, 97, 3), alpha=0.35, weights=None, classes=2
    ),
    "MobileNetV3 small, 224 px": lambda: keras.applications.MobileNetV3Small(
        (224, 224, 3), weights=None, classes=2
    ),
}
SHARES = (0.7, 0.8, 0.9)
AS_IT_IS = "as it is"


def models(net: keras.Model) -> dict[str, keras.Model]:
    """What is compared of a net, by name."""
    rewritten = tfprune.rewrite_for_xnnpack(net)
    made = {AS_IT_IS: net, "rewritten": rewritten}
    names = [layer.name for layer in sparse_layers(rewritten).layers]
    # Dense layers that became 1x1 convolutions are convolutions of another kind there.
    known = {layer.name for layer in net.layers}
    made[f"{AS_IT_IS}, 80% zeros"] = prune_once(
        net, 0.8, include=[name for name in names if name in known]
    )
    for share in SHARES:
        made[f"rewritten, {share:.0%} zeros"] = prune_once(rewritten, share, policy="xnnpack")
    return made


def measured(title: str, net: keras.Model, rounds: int) -> list[dict[str, Any]]:
    """One row a file."""
    device = find_device("wasm", runtime="tfjs-tflite", rounds=rounds)
    every = models(net)
    with tempfile.TemporaryDirectory(prefix="tfprune-rewriting-") as folder:
        files = {}
        for number, (name, model) in enumerate(every.items()):
            form = "tflite-sparse" if "zeros" in name else "tflite"
            (artifact,) = tfprune.export(model, folder, [form], name=str(number))
            files[name] = artifact.path
        told = dict(zip(files, device.measure([*files.values()]), strict=True))
    whole = told[AS_IT_IS].figures["device_ms"]
    rows = []
    for name, found in told.items():
        time = found.figures.get("device_ms")
        rows.append(
            {
                "net": title,
                "file": name,
                "macs": count_macs(every[name]).macs,
                "ms": time,
                "gain": None if time is None else whole / time,
                "said": [each.replace(str(folder), "") for each in (found.refusal, *found.notes)],
            }
        )
        click.echo(rows[-1], err=True)
    return rows


@click.command()
@click.option("--net", "nets", multiple=True, type=click.Choice([*COMPARED]), help="Just this one.")
@click.option("--rounds", default=50, show_default=True, help="Timed turns of each file.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/rewriting")
)
def main(nets: tuple[str, ...], rounds: int, output: Path) -> None:
    """Time nets as they are and rewritten, dense and sparse; wants a quiet machine."""
    rows: list[dict[str, Any]] = []
    for title in nets or COMPARED:
        keras.utils.set_random_seed(0)
        rows += measured(title, COMPARED[title](), rounds)
    document = {
        "command": f"python -m benchmarks.rewriting --rounds {rounds}",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "settings": find_device("wasm").settings(),
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    shown = [
        {
            "net": row["net"],
            "file": row["file"],
            "MACs": f"{row['macs']:,}",
            "time": figure("device_ms").text(row["ms"]) if row["ms"] else "refused",
            "gain": f"{row['gain']:.2f}x" if row["gain"] else "none",
        }
        for row in rows
    ]
    explained = (__doc__ or "").split("\n", 2)[2].strip()
    write_text(
        output.with_suffix(".md"),
        f"# Rewriting for sparse kernels\n\n{explained}\n\n"
        f"{pd.DataFrame(shown).to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}; tfjs-tflite "
        f"{document['settings']['tfjs-tflite']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
