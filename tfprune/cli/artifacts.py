"""`tfprune export` and `tfprune verify`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tfprune.cli import options, step_options
from tfprune.errors import UsageError
from tfprune.pipeline.steps import CALIBRATION_IMAGES
from tfprune.pipeline.steps.weights import QuantizeWeightsStep
from tfprune.quiet import start_keras
from tfprune.vocabulary import FORMATS, KEEPING, PRECISIONS, RECIPE, RECIPES, Batch, explained

if TYPE_CHECKING:
    from tfprune.artifacts import Artifact
    from tfprune.pipeline.spec import DataSpec, ModelSpec


def _kept(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        layer, _equals, precision = value.rpartition("=")
        if not layer or precision not in PRECISIONS:
            raise click.BadParameter(
                f"{value!r} is not of the form LAYER={' or LAYER='.join(PRECISIONS)}"
            )
        found.setdefault(layer, precision)
    return found


@click.command("export")
@options.model
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    default=("keras", "savedmodel", "tflite"),
    show_default=True,
    help=f"{explained(FORMATS)}; repeatable.",
)
@click.option(
    "-o",
    "--out",
    required=True,
    callback=options.folder,
    type=click.Path(path_type=Path),
    help="The directory to write to.",
)
@click.option(
    "--io",
    type=click.Choice(["int8", "float"]),
    default="int8",
    show_default=True,
    help="What int8 and int16x8 files take and give: integers, or float32.",
)
@click.option(
    "--keep",
    multiple=True,
    callback=_kept,
    metavar="LAYER=PRECISION",
    help=f"Keep a layer of {' and '.join(KEEPING)} in another precision: {explained(PRECISIONS)}. "
    "LAYER is a name, path or glob; repeatable, the first counts.",
)
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help=f"What {RECIPE} is quantized by: a JSON file of ai-edge-quantizer, or one of "
    f"{', '.join(RECIPES)}.",
)
@options.batch
@step_options.option(
    QuantizeWeightsStep,
    "bits",
    "--weight-bits",
    default=None,
    help="First round the weights of each output channel to so many bits: compressed files shrink, "
    "runtimes see nothing of it.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A text file with the name of one class a line; written beside the artifacts.",
)
@options.data(
    required=False,
    why="its training images calibrate int8 and int16x8, and files are compared on its validation "
    "images",
)
@options.imports
@options.as_json
def export_command(
    model: ModelSpec,
    formats: tuple[str, ...],
    out: Path,
    io: Literal["int8", "float"],
    keep: dict[str, str],
    recipe: str | None,
    batch: Batch,
    bits: int | None,
    labels: Path | None,
    data: DataSpec | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Export MODEL, mostly a .keras file. Every artifact is loaded, run and compared first.

    What is known of each is written to artifacts.json: shapes, quantization, hashes, sizes,
    versions and agreement.
    """
    names = _read_labels(labels) if labels else None
    start_keras()
    from tfprune.artifacts import export, write_manifest
    from tfprune.artifacts.examples import COMPARED_IMAGES
    from tfprune.pipeline.execution import model_with_data
    from tfprune.weights import round_weights

    network, dataset = model_with_data(model, data, data_dir)
    options.tell(dataset)
    if bits is not None:
        network = round_weights(network, bits)
    artifacts = export(
        network,
        out,
        formats,
        representative_data=dataset.train.sample(CALIBRATION_IMAGES).inputs if dataset else None,
        comparison_data=dataset.validation.sample(COMPARED_IMAGES).inputs if dataset else None,
        io=io,
        batch=batch,
        labels=names,
        keep=keep,
        recipe=recipe,
    )
    write_manifest(out, artifacts)
    if as_json:
        options.print_json([each.to_dict(out) for each in artifacts])
        return
    import pandas as pd

    from tfprune.report import render

    click.echo(render(pd.DataFrame([_row(each) for each in artifacts])), nl=False)


def _read_labels(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as labels: give a text file with one class a line"
        ) from error


def _row(artifact: Artifact) -> dict[str, Any]:
    zstd = artifact.bytes_zstd
    row: dict[str, Any] = {
        "artifact": options.shown(artifact.path),
        "format": artifact.format,
        "batch": artifact.batch or "any",
        "bytes": artifact.bytes_raw,
        "bytes_gzip": artifact.bytes_gzip,
        "zstd": "" if zstd is None else f"{zstd / 1024:,.1f} KiB",
        "agreement": f"{artifact.agreement:.1%}",
        "of": artifact.compared_as,
        "largest difference": f"{artifact.largest_difference:.3g}",
    }
    if artifact.memory:
        row["arena, estimated"] = f"{artifact.memory.arena_bytes / 1024:,.1f} KiB"
    return row


@click.command("verify")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@options.imports
@options.as_json
def verify_command(directory: Path, as_json: bool) -> None:
    """Verify the artifacts in DIRECTORY, an export or a run: hash, loading and running.

    Exits with 1 where one of them fails. A SavedModel is a program: verify only what you would
    also run.
    """
    from tfprune.artifacts import verify

    verdicts = verify(directory)
    passed = all(each.passed for each in verdicts)
    if as_json:
        listed = [dataclasses.asdict(each) for each in verdicts]
        options.print_json({"passed": passed, "artifacts": listed})
    else:
        for each in verdicts:
            click.echo(f"{'ok' if each.passed else 'FAILED':8}{each.path}: {each.said}")
    if not passed:
        click.get_current_context().exit(1)
