"""`tfprune prune-once`, `quantize-weights`, `rewrite`, `equalize`, `correct-biases`.

These are steps that train nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options, step_options
from tfprune.pipeline.steps import KINDS
from tfprune.quiet import start_keras

if TYPE_CHECKING:
    from tfprune.pipeline.spec import DataSpec, ModelSpec
    from tfprune.tasks import TaskSpec

_data = options.data(required=False, why="shows what the change costs, on validation examples")
_needed = options.data(required=True, why="the means of its training examples are kept")
_seed = click.option(
    "--seed",
    type=options.SEED,
    default=0,
    show_default=True,
    help="Of what is drawn by chance, and of the validation examples.",
)


def _command(
    kind: str, data: Any = _data, **defaults: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that does a step of a kind, which trains nothing, on a model in a file."""

    def made(function: Callable[..., None]) -> click.Command:
        for option in (
            options.as_json,
            options.imports,
            options.output,
            options.task,
            _seed,
            data,
            step_options.from_table(KINDS[kind], **defaults),
            options.model,
        ):
            function = option(function)
        return click.command(kind)(function)

    return made


@_command("prune-once", share=0.5)
def prune_once_command(**given: Any) -> None:
    """Set a share of the weights of MODEL, mostly a .keras file, to zero, and train nothing.

    Of the weights that are not zero yet, so a second call goes on. `tfprune train` keeps zeros.
    """
    _changed("prune-once", _zeros, **given)


@_command("quantize-weights")
def quantize_weights_command(**given: Any) -> None:
    """Round the weights of MODEL, mostly a .keras file, to few values, and train nothing.

    Each output channel has values of its own; zeros stay zero. Archives, and the formats tflite-lut
    and c-array-lut, store few values in fewer bits.
    """
    _changed("quantize-weights", _zeros, **given)


@_command("rewrite")
def rewrite_command(**given: Any) -> None:
    """Rewrite MODEL, mostly a .keras file, so that XNNPACK can run it sparse.

    Its outputs stay the same up to float rounding. Browsers and phones run zeros faster only where
    each layer has a form that XNNPACK knows; `tfprune inspect --device wasm` shows which layers
    have not, and what would become of them.
    """
    _changed("rewrite", _sparse, **given)


@_command("equalize")
def equalize_command(**given: Any) -> None:
    """Scale the channels of MODEL, mostly a .keras file, so that their weights have ranges alike.

    Its outputs stay the same up to float rounding. Then export an integer format, and compare it
    with that of MODEL.
    """
    _changed("equalize", _scaled, **given)


@_command("correct-biases", data=_needed)
def correct_biases_command(**given: Any) -> None:
    """Move the biases of MODEL, mostly a .keras file, so that rounded weights keep the means.

    Only integer formats of what it writes are better; as a float model it is off. Compare them with
    those of MODEL.
    """
    _changed("correct-biases", _scaled, **given)


def _scaled(original: Any, changed: Any) -> tuple[dict[str, Any], str]:
    import numpy as np

    pairs = zip(original.weights, changed.weights, strict=True)
    count = sum(not np.array_equal(one, other) for one, other in pairs)
    return {"changed": count}, f"{count} of {len(changed.weights)} weights and statistics changed"


def _zeros(_: Any, changed: Any) -> tuple[dict[str, Any], str]:
    from tfprune import sparsity

    zeros = float(sparsity(changed)["sparsity"].iloc[-1])
    return {"sparsity": zeros}, f"{zeros:.1%} of the weights are zero"


def _sparse(original: Any, changed: Any) -> tuple[dict[str, Any], str]:
    from tfprune.model.counting import count_macs
    from tfprune.weights.xnnpack import sparse_layers

    names = [layer.name for layer in sparse_layers(changed).layers]
    before, after = (count_macs(model).whole_macs for model in (original, changed))
    said = f"{len(names)} layers can run sparse, from {names[0]} to {names[-1]}"
    if before is not None and after is not None:
        said += f", {before:,} MACs to {after:,}"
    return {"layers": names, "macs": [before, after]}, said


def _changed(
    kind: str,
    tell: Callable[[Any, Any], tuple[dict[str, Any], str]],
    *,
    model: ModelSpec,
    data: DataSpec | None,
    data_dir: str | None,
    task: TaskSpec | None,
    output: Path,
    seed: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Does one step on a model, writes what comes out, and tells it.

    `tell` gives figures of the model before and after, and a sentence with them.
    """
    step = step_options.read_step(kind, given)
    start_keras()
    from tfprune.artifacts import export
    from tfprune.artifacts.examples import COMPARED_IMAGES
    from tfprune.figures import figure
    from tfprune.pipeline.execution import model_with_data
    from tfprune.pipeline.steps import Context
    from tfprune.tasks import find_task

    original, dataset = model_with_data(model, data, data_dir, seed, task)
    options.tell(dataset)
    context = Context(
        dataset,
        seed,
        Path(),
        find_task=lambda other: find_task(other, task, dataset, like=original),
    )
    changed, record = step.perform(original, context)
    compared = None
    if dataset is not None:
        compared = dataset.validation.sample(COMPARED_IMAGES).inputs
    export(changed, output.parent, ["keras"], compared, name=output.stem)
    figures, sentence = tell(original, changed)
    if as_json:
        options.print_json({"output": str(output), **figures, **record})
        return
    said = [f"{options.shown(output)}: {sentence}"]
    for name, values in record.items():
        row = figure(name.removeprefix("validation_"))
        before, after = (row.text(value) for value in values.values())
        said.append(f"validation {row.noun} {before} to {after}")
    click.echo(", ".join(said))
