"""Exports models in every format, and verifies what was written.

The nets of the zoo at 32 x 32, with random weights and images, and three classifiers of
`keras.applications` at 96 x 96, trained for some epochs on scikit-learn's digits: so deep a net of
random weights turns the least rounding into another answer, and no format could be told right.
Half of the weights are zero, as after weight pruning. A process of its own does each model, and its
rows are kept as soon as they are there: started again, only models without rows are done.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from tfprune.files import read_json, write_json, write_text
from tfprune.pipeline import provenance
from tfprune.zoo import NAMES

ZOO = NAMES
# What each is built with, and for how many epochs it trains.
APPLICATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "MobileNetV2": ({"alpha": 0.35}, 8),
    "EfficientNetB0": ({}, 6),
    "ResNet50": ({}, 4),
}
PIXELS = 96


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The training images of scikit-learn's digits in colour, (n, 96, 96, 3), and their labels."""
    import keras

    from tfprune import data

    train = data.load("digits").train
    large = keras.ops.image.resize(train.inputs.astype("float32"), (PIXELS, PIXELS))
    return np.repeat(keras.ops.convert_to_numpy(large), 3, axis=-1), train.labels


def built(name: str) -> tuple[Any, np.ndarray]:
    """A model with half of its kernels' weights at zero, and images for it, float32."""
    import keras

    from tfprune import zoo
    from tfprune.weights import KeepZeros, prune_once

    keras.utils.set_random_seed(0)
    if name in ZOO:
        pixels = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3))
        return prune_once(zoo.build(name, (32, 32, 3), 10, seed=0), 0.5), pixels.astype(np.float32)
    options, epochs = APPLICATIONS[name]
    application = getattr(keras.applications, name)
    model = prune_once(
        application(
            weights=None,
            classes=10,
            classifier_activation=None,
            input_shape=(PIXELS, PIXELS, 3),
            **options,
        ),
        0.5,
    )
    # So few steps would leave BatchNorm's statistics near where they began.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = digits()
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0, callbacks=[KeepZeros()])
    return model, images[:64]


def exported(name: str) -> list[dict[str, Any]]:
    """One row a format: what was written, or why nothing was."""
    from tfprune import TfpruneError, export
    from tfprune.artifacts import verify, write_manifest
    from tfprune.formats import FORMATS
    from tfprune.vocabulary import RECIPE

    model, representative = built(name)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for form in FORMATS:
            begun = time.perf_counter()
            folder = Path(scratch, form)
            row: dict[str, Any] = {"model": name, "format": form}
            try:
                artifacts = export(
                    model,
                    folder,
                    formats=[form],
                    representative_data=representative,
                    recipe="dynamic_wi8_afp32" if form == RECIPE else None,
                )
                write_manifest(folder, artifacts)
                (verdict,) = verify(folder)
                (artifact,) = artifacts
                row |= {
                    "verified": verdict.passed,
                    "bytes": artifact.bytes_raw,
                    "bytes_gzip": artifact.bytes_gzip,
                    "bytes_zstd": artifact.bytes_zstd,
                    "agreement": artifact.agreement,
                    "largest_difference": artifact.largest_difference,
                    "said": verdict.said,
                }
            except TfpruneError as error:
                row |= {"verified": None, "said": str(error).replace(scratch, "").strip()}
            rows.append({**row, "seconds": time.perf_counter() - begun})
            click.echo(rows[-1], err=True)
    return rows


def report(document: dict[str, Any]) -> str:
    """The result as Markdown: sizes, then refusals."""
    table = pd.DataFrame(document["rows"])
    written = table[table["verified"].notna()]
    shown = pd.DataFrame(
        {
            "model": written["model"],
            "format": written["format"],
            "verified": written["verified"].map({True: "yes", False: "NO"}),
            "KiB": (written["bytes"] / 1024).round(1),
            "gzip": (written["bytes_gzip"] / 1024).round(1),
            "zstd": (written["bytes_zstd"] / 1024).round(1),
            "agreement": written["agreement"].map("{:.0%}".format),
            "largest difference": written["largest_difference"].map("{:.2g}".format),
        }
    )
    refused = table[table["verified"].isna()]
    lines = [f"- {row.model}, {row.format}: {row.said}" for row in refused.itertuples()] or ["none"]
    return (
        "# Every format\n\n"
        f"{__doc__.split(chr(10), 2)[2].strip()}\n\n"
        f"{shown.to_markdown(index=False)}\n\n## Refused\n\n" + "\n".join(lines) + "\n\n"
        f"`{document['command']}` at {', '.join(document['commits'])}; {document['machine']}\n"
    )


@click.command()
@click.option("--only", multiple=True, type=click.Choice([*ZOO, *APPLICATIONS]))
@click.option("--again", is_flag=True, help="Also models that have rows.")
@click.option("--worker", type=click.Choice([*ZOO, *APPLICATIONS]), hidden=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/formats")
)
def main(only: tuple[str, ...], again: bool, worker: str | None, output: Path) -> None:
    """Export every model in every format; exit 1 where one is not verified."""
    if worker is not None:
        click.echo(json.dumps(exported(worker)))
        return
    stored = output.with_suffix(".json")
    rows = read_json(stored)["rows"] if stored.exists() else []
    for name in only or (*ZOO, *APPLICATIONS):
        if not again and any(row["model"] == name for row in rows):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.formats", "--worker", name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        fresh = json.loads(done.stdout.splitlines()[-1])
        rows = [row for row in rows if row["model"] != name]
        rows += [{**row, "commit": provenance.commit()} for row in fresh]
        document = {
            "command": "python -m benchmarks.formats",
            "commits": sorted({row["commit"] for row in rows}),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "rows": rows,
        }
        write_json(stored, document)
        write_text(output.with_suffix(".md"), report(document))
    sys.exit(0 if all(row["verified"] is not False for row in rows) else 1)


if __name__ == "__main__":
    main()
