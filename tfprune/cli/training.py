"""`tfprune train`, `prune`, `cluster`, `learn`, `quantize-aware`: steps that train a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options, step_options
from tfprune.quiet import start_keras

if TYPE_CHECKING:
    from tfprune.data import Dataset
    from tfprune.errors import TfpruneError
    from tfprune.pipeline.spec import DataSpec, ModelSpec
    from tfprune.tasks import TaskSpec


def _read(kind: str, given: dict[str, Any]) -> Any:
    """The step that options ask for; its teacher is a file, where a pipeline's is a step."""
    from tfprune.files import existing

    if given["teacher"] is not None:
        given["teacher"] = str(existing(given["teacher"]))
    return step_options.read_step(kind, given)


def _fitted(
    step: Any,
    model: Any,
    dataset: Dataset,
    spec: TaskSpec | None,
    output: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Does one step of a pipeline on a model, and writes what comes out."""
    from tempfile import TemporaryDirectory

    from tfprune import training
    from tfprune.artifacts import export
    from tfprune.artifacts.examples import COMPARED_IMAGES
    from tfprune.model.loading import load as load_model
    from tfprune.pipeline.steps import Context
    from tfprune.pipeline.steps.base import save
    from tfprune.quantize import is_quantize_aware
    from tfprune.report.run import Step
    from tfprune.tasks import find_task

    task = find_task(model, spec, dataset)
    training.check(model, dataset, step.batch_size, task=task)
    compared = dataset.validation.sample(COMPARED_IMAGES)
    with TemporaryDirectory(prefix="tfprune-") as scratch:
        # What cannot be exported now cannot be after the last epoch either.
        export(model, scratch, ["keras"], compared[:2].inputs)
        context = Context(
            dataset,
            seed,
            Path(scratch),
            options.shown(output.stem),
            earlier=lambda teacher: load_model(teacher),
            find_task=lambda other: find_task(other, spec, dataset, like=model),
        )
        model, record = step.perform(model, context)
    try:
        if is_quantize_aware(model):
            save(model, output.parent, output.stem)
        else:
            export(model, output.parent, ["keras"], compared.inputs, name=output.stem)
    except Exception as error:
        raise _rescued(model, output, error) from error
    if as_json:
        options.print_json({"output": str(output), **record})
        return
    history = record["history"]
    by = task.figure
    value = by.text(history[f"val_{by.name}"][Step(output, record).left_row])
    click.echo(f"{options.shown(output)}: validation {by.noun} {value}")


def _rescued(model: Any, output: Path, error: Exception) -> TfpruneError:
    """Saves what was trained somewhere else, whole or its weights alone; the error says where."""
    import tempfile

    from tfprune.errors import TfpruneError

    reason = str(error) if isinstance(error, TfpruneError) else f"{type(error).__name__}: {error}"
    reason = " ".join(reason.split())
    for folder in (output.parent, Path.cwd(), Path(tempfile.gettempdir())):
        for suffix, save in ((".keras", model.save), (".weights.h5", model.save_weights)):
            path = folder / f"{output.stem}-rescued{suffix}"
            try:
                save(path)
            # A full disk, or a layer that cannot be saved: the next place or way may do.
            except Exception:
                path.unlink(missing_ok=True)
                continue
            return TfpruneError(f"{reason}; what was trained is in {path.resolve()}")
    return TfpruneError(f"{reason}; what was trained could not be saved elsewhere either")


@click.command("train")
@options.model
@options.data(required=True, why="what to train on")
@options.task
@step_options.training_options("train", epochs=10, learning_rate=0.1)
@options.output
@options.imports
@options.as_json
def train_command(
    **given: Any,
) -> None:
    """Train MODEL: a net of the zoo or keras.applications by name, FILE.py:FUNCTION, or a file.

    FUNCTION returns a Keras model. If it has arguments `input_shape`, `classes` and `seed`, they
    are told by the data. A .keras or .h5 file trains further.
    """
    _further("train", **given)


@click.command("prune")
@options.model
@options.data(required=True, why="what to train on while pruning")
@options.task
@step_options.training_options("prune", epochs=5, learning_rate=0.02, sparsity=0.8)
@options.output
@options.imports
@options.as_json
def prune_command(**given: Any) -> None:
    """Make the weights of MODEL, mostly a .keras file, sparse while it trains on.

    The sparsity follows tfmot's PolynomialDecay from --begin to --end of the training.
    """
    _further("prune", **given)


@click.command("cluster")
@options.model
@options.data(required=True, why="what to train on with few values")
@options.task
@step_options.training_options("cluster", epochs=5, learning_rate=0.01)
@options.output
@options.imports
@options.as_json
def cluster_command(**given: Any) -> None:
    """Give the weights of MODEL, mostly a .keras file, few values, and train these.

    Weights that share a value go on sharing it; zeros stay zero. Archives, and the formats
    tflite-lut and c-array-lut, store few values in fewer bits.
    """
    _further("cluster", **given)


@click.command("learn")
@options.model
@options.data(required=True, why="what to train on while learning")
@options.task
@step_options.training_options(
    "learn", leave_out=("device_options",), epochs=10, learning_rate=0.05
)
@options.device_option
@options.output
@options.imports
@options.as_json
def learn_command(**given: Any) -> None:
    """Train MODEL, mostly a .keras file, until whole filters are zero.

    Give one of --macs, --params and --filters; with --device one of --cycles, --latency,
    --milliseconds, --sram and --flash; or a --strength. Then `tfprune slim --dead` removes what
    became zero, and changes no output.
    """
    _further("learn", **given)


@click.command("quantize-aware")
@options.model
@options.data(required=True, why="what to train on")
@options.task
@step_options.training_options("quantize-aware", epochs=5, learning_rate=0.001)
@options.output
@options.imports
@options.as_json
def quantize_aware_command(**given: Any) -> None:
    """Train MODEL, mostly a .keras file, with the rounded numbers of its int8 file.

    The file that it writes keeps the ranges: `tfprune export` makes int8 formats of it without
    calibration images. Zeros of MODEL stay zeros.
    """
    _further("quantize-aware", **given)


def _further(
    step: str,
    *,
    model: ModelSpec,
    data: DataSpec,
    data_dir: str | None,
    task: TaskSpec | None,
    output: Path,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Does one step on a model."""
    specified = _read(step, given)
    specified.check_installed()
    start_keras()
    from tfprune.pipeline.execution import model_with_data

    start, dataset = model_with_data(model, data, data_dir, seed, task)
    assert dataset is not None  # data are required
    options.tell(dataset)
    _fitted(specified, start, dataset, task, output, seed, as_json)
