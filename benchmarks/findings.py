"""The three findings of the study that this project began with, asked of a finished run.

- Weight pruning improves test accuracy and shrinks the file: `NAME.md`, by how much.
- At 74% zeros in all, convolutions are less sparse than dense layers: `NAME_layers.md` and a plot.
- Slim nets train and test faster: `NAME_speed.md`, written with `--speed` alone, since it wants a
  quiet machine. Steps of both nets are taken in turn, and so are their test sets.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
import keras
import matplotlib as mpl
import numpy as np
import pandas as pd

import tfprune
from benchmarks import in_turn, runs
from benchmarks.study import rows, summary
from tfprune.files import write_text
from tfprune.report import read_run
from tfprune.report.run import Run
from tfprune.report.tables import are_kernels, layer_sparsity

mpl.use("svg")
from matplotlib import pyplot as plt

SPARSE, SLIM, DENSE = "weights-74", "half-of-filters", "dense-longer"
KINDS = {
    keras.layers.Dense: "dense",
    keras.layers.Conv1D: "convolution",
    keras.layers.Conv2D: "convolution",
    keras.layers.Conv3D: "convolution",
}


def delivered(run: Run, variant: str, seed: int) -> keras.Model:
    """The model of a variant.

    Raises:
        click.ClickException: the run has no such variant as a .keras file.
    """
    for each in run.deliveries:
        if (each.variant, each.seed) == (variant, seed):
            return tfprune.load(each.folder / "model.keras")
    raise click.ClickException(f"{run.directory} has no variant {variant!r} of seed {seed}")


def layers(run: Run) -> pd.DataFrame:
    """One row a kernel and seed of the sparse variant, then those of each kind and of all."""
    table = layer_sparsity(run).query("variant == @SPARSE and layer != 'total'")
    table = table[are_kernels(table)]
    first = delivered(run, SPARSE, int(table["seed"].min()))
    kinds = {
        layer.name: kind
        for layer in first.layers
        for base, kind in KINDS.items()
        if isinstance(layer, base)
    }
    table = table.assign(kind=table["layer"].map(kinds))[["layer", "kind", "seed", "size", "zeros"]]
    parts = [table]
    for whole, chosen in (
        ("all convolutions", table.query("kind == 'convolution'")),
        ("all dense layers", table.query("kind == 'dense'")),
        ("all", table),
    ):
        sums = chosen.groupby("seed", as_index=False)[["size", "zeros"]].sum()
        parts.append(sums.assign(layer=whole, kind="together"))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(sparsity=found["zeros"] / found["size"])


def layer_summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row a kernel, in words: mean and sample deviation over seeds."""

    def told(group: pd.DataFrame) -> pd.Series:
        return pd.Series(
            {
                "kind": group["kind"].iloc[0],
                "weights": f"{group['size'].mean():,.0f}",
                "sparsity, %": runs.spread(100 * group["sparsity"]),
            }
        )

    return found.groupby("layer", sort=False).apply(told, include_groups=False).reset_index()


def draw(found: pd.DataFrame, into: Path) -> None:
    """Writes the plot: the sparsity of each layer, with its deviation."""
    # The same bytes each time, and text that can be searched.
    mpl.rcParams.update({"svg.hashsalt": "tfprune", "svg.fonttype": "none", "font.size": 11})
    single = found.query("kind != 'together'")
    groups = single.groupby("layer", sort=False)
    share = 100 * groups["sparsity"].mean()
    colours = groups["kind"].first().map({"convolution": "#0072b2", "dense": "#d55e00"})
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    deviation = 100 * groups["sparsity"].std(ddof=1).fillna(0)
    axes.bar(share.index, share, yerr=deviation, color=colours, capsize=3)
    axes.axhline(100 * found.query("layer == 'all'")["sparsity"].mean(), color="#8a949e", ls="--")
    axes.set(ylabel="weights that are zero, %", ylim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(into, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # matplotlib ends lines with spaces.
    write_text(into, "".join(f"{line.rstrip()}\n" for line in into.read_text().splitlines()))


def speed(run: Run, steps: int, batch: int) -> pd.DataFrame:
    """Times a training step and a test set of the dense and the slim net in turn."""
    seed = run.deliveries[0].seed
    models = {name: delivered(run, name, seed) for name in (DENSE, SLIM)}
    shape = models[DENSE].input_shape[1:]
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (steps * batch, *shape)).astype("float32")
    y = rng.integers(0, models[DENSE].output_shape[-1], len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train(model: keras.Model, clock: Any) -> None:
        model.compile("adam", loss)
        model.fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=[clock])

    timed = in_turn.alternated(
        [(keras, partial(train, model)) for model in models.values()], steps=1
    )
    tests: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(6):
        for name, model in models.items():
            begun = time.perf_counter()
            model.predict(x, batch_size=batch, verbose=0)
            # The first one traces.
            if turn:
                tests[name].append(1000 * (time.perf_counter() - begun))
    (dense, _), (slim, _) = timed
    return pd.DataFrame(
        [
            {
                "what": what,
                "dense, ms": statistics.median(base),
                "slim, ms": statistics.median(own),
                "faster": statistics.median(base) / statistics.median(own),
                "times": len(own),
            }
            for what, base, own in (
                (f"training step of {batch} images", dense, slim),
                (f"test set of {len(x)} images", tests[DENSE], tests[SLIM]),
            )
        ]
    )


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--speed", "timed", is_flag=True, help="Time instead; wants a quiet machine.")
@click.option("--steps", default=200, show_default=True, help="Training steps that are timed.")
@click.option("--batch", default=128, show_default=True, help="Images of a step.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"))
def findings(directory: Path, timed: bool, steps: int, batch: int, output: Path) -> None:
    """Ask the three questions of DIRECTORY, a finished run of pipelines/findings.toml."""
    run = read_run(directory)
    module, record = "benchmarks.findings", run.record
    if timed:
        table = speed(run, steps, batch)
        note = (
            "Medians of steps and of test sets of the dense net and of the one with half of its "
            "filters, taken in turn in one process, on random images; written with `--speed`."
        )
        shown = table.round({"dense, ms": 2, "slim, ms": 2, "faster": 2})
        click.echo(runs.write(output, record, module, note, (table, shown), "_speed"))
        return
    table = rows(directory)
    note = (
        "Percent and percentage points; mean ± sample deviation over seeds; differences are of "
        "equal seeds. Accuracy and size are of the float TFLite files; test accuracy is of the "
        "last epoch. `dense-longer` trained as long as the pruned nets."
    )
    click.echo(runs.write(output, record, module, note, (table, summary(table))))
    found = layers(run)
    picture = f"{record['name']}_layers.svg"
    note = (
        f"Zeros in the kernels of `{SPARSE}`, which are ranked together; mean ± sample deviation "
        f"over seeds. The picture: [{picture}]({picture})."
    )
    tables = found, layer_summary(found)
    click.echo(runs.write(output, record, module, note, tables, "_layers"))
    draw(found, output / picture)


if __name__ == "__main__":
    findings()
