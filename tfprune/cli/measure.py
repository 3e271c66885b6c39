"""`tfprune measure`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tfprune import figures
from tfprune.cli import options
from tfprune.errors import check_package
from tfprune.files import MODEL_FILES
from tfprune.quiet import start_keras
from tfprune.vocabulary import QUANTIZER

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.data import Dataset
    from tfprune.devices import Device
    from tfprune.pipeline.spec import DataSpec
    from tfprune.tasks import TaskSpec


@click.command("measure")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.data(
    required=False,
    why="its test images are what accuracy is measured on; only with --device it may be left out",
)
@options.devices("also measure, or estimate, on this device")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="Compare with this file: size, MACs and latency as shares of its, the accuracy in points.",
)
@click.option(
    "--rounds", type=click.IntRange(1), default=200, show_default=True, help="Of latency."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Of one example's latency and memory. [default: 1 of TFLite, TensorFlow's own choice]",
)
@click.option(
    "--per-layer",
    is_flag=True,
    help="Find the layers of one .keras file that int8 hurts: each alone in int8 and each alone "
    "left in float32, on validation images. Nothing else is measured.",
)
@click.option("--per-class", is_flag=True, help="Also print the accuracy of each class.")
@click.option("--layers", is_flag=True, help="Also print MACs and parameters of .keras files.")
@click.option(
    "--node-data",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write sparsity, channels removed since --baseline, and the figures of --device for each "
    "operator of .tflite files, for Model Explorer.",
)
@options.task
@options.imports
@options.as_json
def measure_command(
    files: tuple[Path, ...],
    data: DataSpec | None,
    data_dir: str | None,
    devices: list[Device],
    task: TaskSpec | None,
    baseline: Path | None,
    rounds: int,
    threads: int | None,
    per_layer: bool,
    per_class: bool,
    layers: bool,
    node_data: Path | None,
    as_json: bool,
) -> None:
    """Measure FILES, artifacts of any format: accuracy, MACs, size, latency and memory.

    What an export writes beside them, such as artifacts.json, is skipped, so FILES may be out/*.

    The accuracy is that of a classification; of another task it is the figure of that task, with
    its own name, unit and direction. Latency is that of one example, median and tenth to ninetieth
    percentile. The files of a library take turns in a process of their own, so the figures can be
    compared. Memory is the peak of a fresh process that loads a file and runs one example, above
    what it had before. The mask floor is what an ideal code of the zeros' places and the living
    weights as they are would take; below the entropy floor no lossless coder gets that looks at one
    weight at a time.

    Up to three files stand side by side, with one line for each figure; of more files, each has a
    line.

    \b
    Figures of the table and keys of each entry of --json:
      artifact         the file
      format           what it is, by its content
      batch            examples that it takes at once; null: any number
      accuracy, loss   on the test examples; share and nats, or the task's figure
      macs             multiply-accumulates of one example
      parameters, nonzero, sparsity
      bytes, bytes_gzip, bytes_zstd          raw, gzip -9, zstd -19
      floor_mask_bytes     where the zeros are, and b bits a living weight
      floor_entropy_bytes  the same with the entropy of the living values' bytes
      zstd_to_mask, zstd_to_entropy        bytes_zstd over either floor
      latency_ms, latency_p10_ms, latency_p90_ms, latency_runs
      threads, delegate    of the latency; 0 threads: TensorFlow chooses
      memory_bytes, test_seconds
      bytes_ratio, gzip_ratio, macs_ratio, latency_ratio   with --baseline: shares of its
      accuracy_points      with --baseline: percentage points above its; NAME_difference of a
                           figure NAME that is not a share
      per_class, class_images   with --per-class
      layers               with --layers
      devices              with --device: a list with device, estimated, figures, refusal, notes,
                           settings, and layers with --layers
    """  # noqa: D301 - click wants the character itself.
    files = _artifacts(files)
    if per_layer:
        _per_layer(files, data, data_dir, devices, task, as_json)
        return
    if node_data is not None:
        from tfprune.report.node_data import check_files

        check_files(files, baseline)
    if data is None:
        if not devices:
            raise click.UsageError("give --data to measure accuracy, or --device, or both")
        _check_unused(baseline is not None and node_data is None)
        told = _only_on_devices(files, devices, layers, node_data is not None, as_json)
        _write_nodes(node_data, files, baseline, told)
        return
    networks = [path for path in files if path.suffix in MODEL_FILES]
    if layers and not networks and not devices:
        raise click.UsageError("--layers shows the layers of .keras and .h5 files: give one")
    from tfprune.formats.runtime import limit_threads

    limit_threads(threads)
    start_keras()
    from tfprune.devices import measure_on
    from tfprune.measure import measure_files
    from tfprune.training.progress import counted

    dataset = _dataset(data, data_dir, files[0])
    table = measure_files(
        files,
        dataset.test,
        task=task,
        baseline=baseline,
        rounds=rounds,
        threads=threads,
        counter=counted,
    )
    by = table.attrs["figure"]
    tables = {str(path): _layers(path) for path in networks} if layers else {}
    wanted = layers or node_data is not None
    found = measure_on(list(table["artifact"]), devices, layers=wanted) if devices else None
    _write_nodes(node_data, files, baseline, found)
    if found is not None and not layers:
        found = found.drop(columns="layers", errors="ignore")
    if as_json:
        options.print_json(_rows(table, tables, per_class, found))
        return
    from tfprune.report import render

    shown = _for_people(table, by)
    click.echo(render(_side_by_side(shown) if len(shown) <= _BESIDE else shown), nl=False)
    if per_class:
        click.echo(
            f"\n{by.noun} of each class:\n\n{render(_classes(table, by, dataset.classes))}",
            nl=False,
        )
    for name, each in tables.items():
        shown = each.assign(
            share=each["share"].map("{:.1%}".format), macs=each["macs"].map("{:,}".format)
        )
        click.echo(f"\nlayers of {name}:\n\n{render(shown)}", nl=False)
    if found is not None:
        click.echo()
        _print_devices(found)


def _artifacts(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files without those that an export writes beside them, which `out/*` names too."""
    from tfprune.artifacts.card import is_beside_artifacts

    beside = [path for path in files if is_beside_artifacts(path)]
    if len(beside) == len(files):
        raise click.UsageError(f"{files[0]} only tells of artifacts: give the artifacts")
    for path in beside:
        click.echo(f"skipped: {path} only tells of artifacts", err=True)
    return tuple(path for path in files if path not in beside)


def _per_layer(
    files: tuple[Path, ...],
    data: DataSpec | None,
    data_dir: str | None,
    devices: list[Device],
    task: TaskSpec | None,
    as_json: bool,
) -> None:
    """The table of `tfprune.precision`."""
    given = click.get_current_context().get_parameter_source
    for name in ("baseline", "rounds", "threads", "per_class", "layers", "node_data"):
        if given(name) == ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} has no meaning with --per-layer: leave it out")
    if devices:
        raise click.UsageError("--device has no meaning with --per-layer: leave it out")
    if data is None:
        raise click.UsageError("--per-layer needs labelled examples: give --data")
    if len(files) != 1 or files[0].suffix not in MODEL_FILES:
        raise click.UsageError("--per-layer looks into one .keras or .h5 file: give one")
    check_package("--per-layer", QUANTIZER, "quantizer")
    start_keras()
    import tfprune
    from tfprune.artifacts.by_layer import EXAMPLES
    from tfprune.model.loading import load as load_model
    from tfprune.pipeline.steps import CALIBRATION_IMAGES
    from tfprune.report import render

    dataset = _dataset(data, data_dir, files[0])
    table = tfprune.precision(
        load_model(files[0]),
        dataset.validation.sample(EXAMPLES),
        dataset.train.sample(CALIBRATION_IMAGES).inputs,
        task=task,
        progress=_tell_layers,
    )
    by = table.attrs["figure"]
    whole = {name: table.attrs[name] for name in ("float32", "int8", "int8_error")}
    if as_json:
        rows = table.to_dict("records")
        options.print_json({"figure": by.name, **whole, "layers": rows})
        return
    shown = table.assign(
        error=table["error"].map("{:.3%}".format),
        alone=table["alone"].map(by.text),
        kept=table["kept"].map(by.text),
        kept_error=table["kept_error"].map("{:.3%}".format),
    ).rename(
        columns={
            "error": "error alone in int8",
            "alone": f"{by.noun} alone in int8",
            "kept": f"{by.noun} when kept in float32",
            "kept_error": "error when kept in float32",
        }
    )
    click.echo(
        f"validation {by.noun}: {by.text(whole['float32'])} in float32, {by.text(whole['int8'])} "
        f"in int8, with an error of {whole['int8_error']:.3%}\n\n{render(shown)}",
        nl=False,
    )


def _tell_layers(done: int, count: int) -> None:
    click.echo(f"\r{done} of {count} layers", nl=done == count, err=True)


def _check_unused(baseline: bool) -> None:
    """Refuses options that only the figures of data have a use for.

    Args:
        baseline: whether a baseline is given that nothing is compared with.
    """
    given = click.get_current_context().get_parameter_source
    asked = [
        name
        for name in ("rounds", "threads", "per_class", "task")
        if given(name) == ParameterSource.COMMANDLINE
    ]
    for name in [*(["baseline"] if baseline else []), *asked]:
        raise click.UsageError(f"--{name.replace('_', '-')} is for data: give --data")


def _only_on_devices(
    files: tuple[Path, ...], devices: list[Device], layers: bool, nodes: bool, as_json: bool
) -> pd.DataFrame:
    """What devices tell of files without data."""
    start_keras()
    from tfprune.devices import measure_on

    found = measure_on(files, devices, layers=layers or nodes)
    shown = found if layers else found.drop(columns="layers", errors="ignore")
    if as_json:
        names = dict.fromkeys(map(str, files))
        entries = [{"artifact": name, "devices": _entries(shown, name)} for name in names]
        options.print_json(entries)
    else:
        _print_devices(shown)
    return found


def _write_nodes(
    folder: Path | None, files: tuple[Path, ...], baseline: Path | None, found: pd.DataFrame | None
) -> None:
    """Writes the figures of operators, and says where."""
    if folder is None:
        return
    from tfprune.report.node_data import tflite_files, write_node_data

    rows = [] if found is None else found.to_dict("records")
    for file in tflite_files(files):
        layers = {
            row["device"]: row["layers"]
            for row in rows
            if row["artifact"] == str(file) and row.get("layers") is not None
        }
        for path in write_node_data(file, folder, baseline=baseline, layers=layers):
            click.echo(f"written: {path}", err=True)


def _print_devices(found: pd.DataFrame) -> None:
    """One table of the figures; refusals and notes below it, and tables of layers."""
    from tfprune.devices.measuring import shown
    from tfprune.report import render

    click.echo(render(shown(found)), nl=False)
    rows = found.to_dict("records")
    for row in rows:
        where = f"{row['artifact']} on {row['device']}"
        if row["refusal"]:
            click.echo(f"{where}: cannot be measured: {row['refusal']}")
        for note in row["notes"]:
            click.echo(f"{where}: {note}")
    for row in rows:
        if "layers" in row and row["layers"] is None and not row["refusal"]:
            where = f"{row['artifact']} on {row['device']}"
            click.echo(f"{where}: this device tells nothing of single layers")
        if row.get("layers") is not None:
            title = f"layers of {row['artifact']} on {row['device']}"
            click.echo(f"\n{title}:\n\n{render(row['layers'])}", nl=False)


def _entries(found: pd.DataFrame, artifact: str) -> list[dict[str, Any]]:
    """What devices tell of one file, for JSON."""
    from tfprune.devices.measuring import entries

    return [row for row in entries(found) if row.pop("artifact") == artifact]


def _dataset(data: DataSpec, data_dir: str | None, file: Path) -> Dataset:
    """The data; images that vary in size get the size that a file takes."""
    from tfprune.errors import OpenSizeError
    from tfprune.formats import load
    from tfprune.measure.first_run import first_runs
    from tfprune.pipeline.inputs import load_data

    try:
        dataset = load_data(data, data_dir)
    except OpenSizeError:
        # What crashes does so in a process of its own.
        first_runs([file])
        inputs = load(file).inputs
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] is None or shape[2] is None:
            raise
        dataset = load_data(data, data_dir, usual_size=(shape[1], shape[2]))
    options.tell(dataset)
    return dataset


def _layers(path: Path) -> pd.DataFrame:
    from tfprune.measure import layer_table
    from tfprune.model.loading import load as load_model

    return layer_table(load_model(path))


def _rows(
    table: pd.DataFrame,
    layers: dict[str, pd.DataFrame],
    per_class: bool,
    found: pd.DataFrame | None,
) -> list[dict[str, Any]]:
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    for row in rows:
        if found is not None:
            row["devices"] = _entries(found, row["artifact"])
        if not per_class:
            del row["per_class"], row["class_images"]
        if row["artifact"] in layers:
            row["layers"] = layers[row["artifact"]].to_dict("records")
    return rows


# Columns that are not figures: what was measured, and how its latency was.
_TEXTS = ("artifact", "format", "batch", "threads", "delegate")
# The sparsity shows it too.
_LEFT_OUT = ("nonzero",)
# So many files stand side by side in a terminal; the lines of more are easier to compare.
_BESIDE = 3


def _for_people(table: pd.DataFrame, by: figures.Figure) -> pd.DataFrame:
    """The figures with their headings and units, what is against a baseline behind its figure.

    Args:
        table: what `measure_files` returned.
        by: what the files are compared by.
    """
    import pandas as pd

    rows = figures.by_name(by)
    ratios = [name for name in table if name in rows and rows[name].of]
    names = [
        column
        for name in table
        if name not in ratios
        for column in (name, *(ratio for ratio in ratios if rows[ratio].of == name))
    ]
    shown = {}
    for name in names:
        if name in _TEXTS:
            # 0 threads stand for as many as TensorFlow chooses, no batch for any.
            shown[name] = [str(value or "any") for value in table[name]]
        elif name in rows and name not in _LEFT_OUT:
            text = rows[name].number.text
            shown[rows[name].column_heading] = [
                "" if value is None else text(value) for value in table[name]
            ]
    return pd.DataFrame(shown)


def _side_by_side(shown: pd.DataFrame) -> pd.DataFrame:
    """One row a figure, one column a file, for few files with many figures."""
    turned = shown.drop(columns="artifact").T
    turned.columns = list(shown["artifact"])
    return turned.reset_index(names="figure")


def _classes(table: pd.DataFrame, by: figures.Figure, names: tuple[str, ...]) -> pd.DataFrame:
    """One row a class, one column a file."""
    import pandas as pd

    rows = table.to_dict("records")
    most = max(rows, key=lambda row: len(row["class_images"]))["class_images"]
    shown = list(names) if len(names) == len(most) else list(map(str, range(len(most))))
    # An example of a segmentation has many places.
    counted = "places" if by.name == "mean_iou" else "examples"
    columns: dict[str, list[Any]] = {"class": shown, counted: most}
    for row in rows:
        texts = ["" if share is None else by.text(share) for share in row["per_class"]]
        # Files may know different numbers of classes.
        columns[row["artifact"]] = texts + [""] * (len(most) - len(texts))
    return pd.DataFrame(columns)
