"""`tfprune export` and `tfprune measure`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tfprune.cli import options
from tfprune.quiet import start_keras


@click.command("export")
@click.argument("model", type=options.KERAS_FILE)
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    default=("keras", "savedmodel", "tflite"),
    show_default=True,
    help="keras, savedmodel, tflite or tflite-int8; repeatable.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory to write to.",
)
@options.data(required=False, why="its training images calibrate int8")
@options.as_json
def export_command(
    model: Path,
    formats: tuple[str, ...],
    out: Path,
    data_name: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Export MODEL, a .keras file. Every artifact is loaded, run and compared before it counts."""
    start_keras()
    from tfprune.artifacts import export, write_manifest
    from tfprune.data import load
    from tfprune.measure.keras_runtime import read_keras

    network = read_keras(model)
    images = load(data_name, data_dir).train.images[:500] if data_name else None
    artifacts = export(network, out, formats, representative_data=images)
    write_manifest(out, artifacts)
    if as_json:
        click.echo(json.dumps([each.to_dict(out) for each in artifacts], indent=2))
        return
    for each in artifacts:
        click.echo(
            f"{each.path}: {each.bytes_raw:,} bytes, {each.bytes_gzip:,} compressed, "
            f"agrees on {each.agreement:.1%} of the images"
        )


@click.command("measure")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.data(required=True, why="its test images are what accuracy is measured on")
@click.option("--rounds", type=int, default=200, show_default=True, help="Of the latency.")
@options.as_json
def measure_command(
    files: tuple[Path, ...], data_name: str, data_dir: str | None, rounds: int, as_json: bool
) -> None:
    """Measure FILES, artifacts of any format: accuracy, loss, sparsity, size and latency.

    Latency is timed in turn, one image at a time, so the figures can be compared.
    """
    start_keras()
    import pandas as pd

    from tfprune.data import load as load_data
    from tfprune.measure import evaluate, gzip_bytes, latency, load, parameters, raw_bytes
    from tfprune.report import render

    runtimes = {str(path): load(path) for path in files}
    test = load_data(data_name, data_dir).test
    times = latency(runtimes, test.images[0], rounds=rounds).set_index("runtime")["median_ms"]
    rows: list[dict[str, Any]] = []
    for name, runtime in runtimes.items():
        evaluation, counted = evaluate(runtime, test.images, test.labels), parameters(name)
        rows.append(
            {
                "artifact": name,
                "accuracy": evaluation.accuracy,
                "loss": evaluation.loss,
                "parameters": counted.total,
                "nonzero": counted.nonzero,
                "sparsity": counted.sparsity,
                "bytes": raw_bytes(name),
                "bytes_gzip": gzip_bytes(name),
                "latency_ms": times[name],
                "test_seconds": evaluation.seconds,
            }
        )
    click.echo(render(pd.DataFrame(rows), "json" if as_json else "table"), nl=False)
