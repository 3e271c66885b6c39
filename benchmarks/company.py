"""A file's latency alone, in company through `time_files`, and in company within one process.

Alone: the only file that is timed. In company: among files of the same net in every format, the
Keras model and the SavedModel included. Alone and in company are measured in turn, so that the
machine's drift falls on both. `within one process` is what this project did before: one call of
each in turn beside TensorFlow, for the record of the error.

    python -m benchmarks.company
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np
import pandas as pd

from tfprune import export, zoo
from tfprune.files import write_json, write_text
from tfprune.formats import load
from tfprune.measure import time_files
from tfprune.pipeline import provenance

NETS: dict[str, tuple[str, tuple[int, int, int], dict[str, Any]]] = {
    "VGG, width 4, digits": ("vgg", (8, 8, 1), {"width": 4, "blocks": [1, 1]}),
    "VGG, width 16": ("vgg", (32, 32, 3), {"width": 16, "blocks": [2, 2, 2]}),
    "ResNet-20": ("resnet20", (32, 32, 3), {}),
}
FORMATS = ("keras", "savedmodel", "tflite", "tflite-int8", "onnx")
LIMIT = 1.10


def within_one_process(files: dict[str, Path], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Median milliseconds where all files take single calls in turn in this process."""
    calls = {name: load(path).one(image) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds + 10):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(taken[10:]) for name, taken in times.items()}


def compared(files: dict[str, Path], image: np.ndarray, rounds: int, turns: int) -> list[Any]:
    """One row a file: medians alone, in company, and within one process."""
    alone: dict[str, list[float]] = {name: [] for name in files}
    company: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(turns):
        table = time_files(files, image, rounds=rounds).set_index("runtime")
        for name, path in files.items():
            company[name].append(float(table.loc[name, "median_ms"]))
            row = time_files({name: path}, image, rounds=rounds).iloc[0]
            alone[name].append(float(row["median_ms"]))
    mixed = within_one_process(files, image, rounds)
    return [
        {
            "format": name,
            "alone_ms": statistics.median(alone[name]),
            "company_ms": statistics.median(company[name]),
            "company_over_alone": statistics.median(company[name]) / statistics.median(alone[name]),
            "one_process_ms": mixed[name],
            "one_process_over_alone": mixed[name] / statistics.median(alone[name]),
        }
        for name in files
    ]


@click.command()
@click.option("--rounds", default=1000, show_default=True, help="Timed calls of each file a turn.")
@click.option("--turns", default=7, show_default=True, help="Times that alone and company repeat.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/company")
)
def main(rounds: int, turns: int, output: Path) -> None:
    """Time files alone and in company."""
    rows = []
    for title, (name, shape, options) in NETS.items():
        image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        model = zoo.build(name, shape, 10, seed=0, **options)
        with tempfile.TemporaryDirectory() as folder:
            artifacts = export(model, folder, FORMATS, representative_data=image[None])
            files = {each.format: each.path for each in artifacts}
            for row in compared(files, image, rounds, turns):
                rows.append({"net": title, **row})
                click.echo(rows[-1], err=True)
    ratios = [row["company_over_alone"] for row in rows]
    within = sum(1 / LIMIT <= ratio <= LIMIT for ratio in ratios)
    document = {
        "command": f"python -m benchmarks.company --rounds {rounds} --turns {turns}",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "limit": LIMIT,
        "within_limit": f"{within} of {len(rows)}",
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        "# Latency alone and in company\n\n"
        f"One image, medians of {turns} turns of {rounds} calls each. `company` is `time_files` "
        "with all formats of a net; `one process` is one call of each in turn beside TensorFlow, "
        f"as it was measured before. In company within {LIMIT - 1:.0%} of alone: "
        f"{within} of {len(rows)}.\n\n"
        f"{pd.DataFrame(rows).round(4).to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
