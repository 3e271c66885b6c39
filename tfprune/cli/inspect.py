"""`tfprune inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options, step_options
from tfprune.figures import ACCURACY, Figure
from tfprune.pipeline.steps import Context
from tfprune.pipeline.steps.filters import SlimStep
from tfprune.quiet import start_keras

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.data import Dataset
    from tfprune.pipeline.spec import DataSpec, ModelSpec
    from tfprune.tasks import Task, TaskSpec
    from tfprune.weights.rewriting import Rewrites
    from tfprune.weights.xnnpack import SparseLayers


def _plot(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Wants a picture that can be written, and something to draw in it."""
    from tfprune.report.sensitivity import PLOTS

    if value is None:
        return None
    if value.suffix not in PLOTS:
        raise click.BadParameter(f"{options.shown(value)} does not end in {', '.join(PLOTS)}")
    return options.writable(ctx, param, value)


@click.command("inspect")
@options.model
@click.option(
    "--sensitivity",
    "probed",
    is_flag=True,
    help="Also cut each group alone, at several ratios, and measure the accuracy, or the figure of "
    "another task. Needs --data.",
)
@step_options.option(SlimStep, "importance")
@click.option(
    "--images",
    type=options.COUNT,
    default=1000,
    show_default=True,
    help="Validation images to look at.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    callback=_plot,
    help="Draw it: .svg, .png or .pdf.",
)
@click.option(
    "--device",
    type=click.Choice(["wasm"]),
    help="Also show which layers run sparse there, which forbid it, and what `tfprune rewrite` "
    "makes of these.",
)
@options.data(required=False, why="its validation images show how sensitive each group is")
@options.task
@options.imports
@options.as_json
def inspect_command(
    model: ModelSpec,
    probed: bool,
    importance: str,
    images: int,
    plot: Path | None,
    device: str | None,
    data: DataSpec | None,
    data_dir: str | None,
    task: TaskSpec | None,
    as_json: bool,
) -> None:
    """Show the channel groups of MODEL, its frozen layers and its sparsity."""
    if probed and data is None:
        raise click.UsageError("--sensitivity needs images to measure with: give --data NAME")
    if plot is not None and not probed:
        raise click.UsageError("--plot draws how sensitive groups are: give --sensitivity too")
    start_keras()
    from tfprune import channel_groups
    from tfprune.filters import group_table
    from tfprune.measure.sparsity import sparsity
    from tfprune.model.counting import count_macs, describe_layers
    from tfprune.pipeline.execution import model_with_data
    from tfprune.report import render
    from tfprune.tasks import find_task
    from tfprune.weights.rewriting import rewrites
    from tfprune.weights.xnnpack import sparse_layers

    # Data that are not looked at still tell a function the shape of its input.
    wanted = data if probed or model.reference.path is None else None
    network, dataset = model_with_data(model, wanted, data_dir, task=task)
    options.tell(dataset)
    groups, work = channel_groups(network), count_macs(network)
    table, zeros = group_table(groups), sparsity(network)
    by, cuts = ACCURACY, None
    sparse = sparse_layers(network) if device else None
    rewritable = rewrites(network) if sparse is not None and sparse.forbidden else None
    if dataset is not None and probed:
        found = find_task(network, task, dataset)
        by, cuts = found.figure, _sensitivity(network, dataset, found, images, importance, plot)
    if as_json:
        document = {
            "macs": work.whole_macs,
            "uncounted": work.uncounted,
            "parameters": network.count_params(),
            "groups": json.loads(render(table, "json")),
            "frozen": groups.frozen,
            "sparsity": json.loads(render(zeros, "json")),
        }
        if sparse is not None:
            document["sparse"] = {
                "layers": [layer.name for layer in sparse.layers],
                "zeros": sparse.zeros,
                "forbidden": sparse.forbidden,
            }
        if rewritable is not None:
            document["rewritable"] = {
                "layers": list(rewritable.layers),
                "changes": rewritable.changes,
                "left": rewritable.left,
            }
        if cuts is not None:
            document["sensitivity"] = json.loads(render(cuts, "json"))
        click.echo(json.dumps(document, indent=2))
        return
    without = f" without {describe_layers(work.uncounted)}" if work.uncounted else ""
    click.echo(
        f"{options.shown(model.name)}: {work.macs:,} MACs{without}, "
        f"{network.count_params():,} parameters\n"
    )
    click.echo(render(table))
    for layer, reason in groups.frozen.items():
        click.echo(f"frozen {layer}: {reason}")
    click.echo()
    click.echo(render(zeros), nl=False)
    if sparse is not None:
        click.echo(f"\n{_told(sparse)}")
    if sparse is not None and rewritable is not None:
        click.echo(_rewritten(rewritable, sparse.forbidden))
    if cuts is not None:
        whole = by.text(cuts[by.name][0])
        click.echo(f"\n{by.noun} when one group alone is cut, of {whole}:\n")
        click.echo(render(_cuts_for_people(cuts, by)), nl=False)


def _told(sparse: SparseLayers) -> str:
    """What runs sparse, or what forbids it, one line each."""
    from tfprune.weights.xnnpack import LEAST_ZEROS

    lines = [f"forbids sparse kernels: {name}: {why}" for name, why in sparse.forbidden.items()]
    if sparse.layers:
        state = "they run sparse" if sparse.zeros > LEAST_ZEROS else "they run dense"
        lines.append(
            f"{len(sparse.layers)} layers can run sparse, from {sparse.layers[0].name} to "
            f"{sparse.layers[-1].name}; {100 * sparse.zeros:.1f}% of their weights are zero, and "
            f"more than {100 * LEAST_ZEROS:.1f}% must be: {state}"
        )
    return "\n".join(lines)


def _rewritten(found: Rewrites, forbidden: Mapping[str, str]) -> str:
    """What `tfprune rewrite` would change, and what it cannot, one line each."""
    lines = [f"can be rewritten exactly: {name}: {said}" for name, said in found.changes.items()]
    for name, why in found.left.items():
        # A reason that forbids it is told already.
        more = "" if forbidden.get(name) == why else f": {why}"
        lines.append(f"cannot be rewritten exactly: {name}{more}")
    if found.layers:
        lines.append(
            f"after `tfprune rewrite`, {len(found.layers)} layers can run sparse, from "
            f"{found.layers[0]} to {found.layers[-1]}"
        )
    return "\n".join(lines)


def _cuts_for_people(cuts: pd.DataFrame, by: Figure) -> pd.DataFrame:
    """One row a group, a column for each share that is kept, as text."""
    wide = cuts[1:].pivot(index=["layers", "channels"], columns="keep", values=by.name)
    wide = wide.sort_index(axis="columns", ascending=False)
    wide = wide.map(by.text).rename(columns="{:.0%} kept".format).reset_index()
    # pivot sorts; the order of the model says more.
    order = cuts[1:][["layers", "channels"]].drop_duplicates()
    return order.merge(wide, on=["layers", "channels"])


def _sensitivity(
    network: Any,
    dataset: Dataset,
    task: Task,
    images: int,
    importance: str,
    plot: Path | None,
) -> pd.DataFrame:
    from tfprune.filters import sensitivity
    from tfprune.formats import load
    from tfprune.measure import evaluate
    from tfprune.report.sensitivity import plot_sensitivity

    held_out = dataset.validation.sample(images or len(dataset.validation))

    def accuracy(slim: Any) -> float:
        return evaluate(load(slim), held_out, task).value

    ranked_by = Context(dataset, 0, Path()).labelled
    table = sensitivity(network, accuracy, importance=importance, data=ranked_by)
    # It measures anything, and calls that an accuracy.
    by = task.figure
    table = table.rename(columns={"accuracy": by.name})
    if plot is not None:
        click.echo(f"drawn: {plot_sensitivity(table, plot, by)}", err=True)
    return table
