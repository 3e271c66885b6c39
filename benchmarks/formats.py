"""Exports models in every format, and verifies what was written.

The nets of the zoo at 32 x 32, and three classifiers of `keras.applications`, with random weights,
of which the smaller half is zero, as after weight pruning. Each is calibrated on random images, and
the three take their BatchNorm statistics from such. A process of its own does each model, and its
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
APPLICATIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "MobileNetV2": (96, {"alpha": 0.35}),
    "EfficientNetB0": (224, {}),
    "ResNet50": (224, {}),
}
IMAGES = 16


def images(size: int, count: int) -> np.ndarray:
    """Random pixels 0 to 255, float32 (count, size, size, 3)."""
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def built(name: str) -> Any:
    """A model with half of its kernels' weights at zero."""
    import keras

    from tfprune import zoo
    from tfprune.filters import recalibrated
    from tfprune.weights import prune_once

    keras.utils.set_random_seed(0)
    if name in ZOO:
        return prune_once(zoo.build(name, (32, 32, 3), 10, seed=0), 0.5)
    size, options = APPLICATIONS[name]
    application = getattr(keras.applications, name)
    model = application(weights=None, input_shape=(size, size, 3), **options)
    # With statistics 0 and 1 the signal of so deep a net fades until no format can hold it.
    return recalibrated(prune_once(model, 0.5), images(size, 4 * IMAGES), IMAGES)


def exported(name: str) -> list[dict[str, Any]]:
    """One row a format: what was written, or why nothing was."""
    from tfprune import TfpruneError, export
    from tfprune.artifacts import verify, write_manifest
    from tfprune.artifacts.formats import FORMATS

    model = built(name)
    representative = images(model.input_shape[1], IMAGES)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for form in FORMATS:
            begun = time.perf_counter()
            folder = Path(scratch, form)
            row: dict[str, Any] = {"model": name, "format": form}
            try:
                artifacts = export(
                    model, folder, formats=[form], representative_data=representative
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
            "same class": written["agreement"].map("{:.0%}".format),
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
