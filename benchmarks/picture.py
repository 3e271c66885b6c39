"""README's picture: accuracy against what a device takes, from a committed result."""

from __future__ import annotations

import json
from pathlib import Path

import click
import matplotlib as mpl
import pandas as pd

mpl.use("svg")
from matplotlib import pyplot as plt

RESULT = Path("benchmarks/results/cifar10_stack.json")
PICTURE = Path("docs/images/accuracy-against-size.svg")
# What each stage is called in the picture, and where its text goes beside its point.
STAGES = {
    "dense": ("dense", (-10, 12), "right"),
    "dense-int8": ("dense, int8", (-10, 6), "right"),
    "filters": ("half of the MACs removed", (-12, -5), "right"),
    "filters-weights": ("and 90% of the weights zero", (4, 10), "left"),
    "filters-weights-int8": ("and int8", (-8, 28), "left"),
    "filters-weights-round-int8": ("and 31 values a channel", (-12, -24), "left"),
}


def table(result: Path) -> pd.DataFrame:
    """Mean and deviation of each stage over its seeds, and its size in KiB."""
    rows = pd.DataFrame(json.loads(result.read_text())["rows"])
    groups = rows.groupby("variant", sort=False)
    found = groups.agg(
        accuracy=("accuracy", "mean"),
        deviation=("accuracy", "std"),
        bytes=("bytes_gzip", "mean"),
        smaller=("smaller", "mean"),
        files=("artifact", "nunique"),
    )
    if (found.pop("files") != 1).any():
        raise click.ClickException(f"{result} has variants with files of several formats")
    return found


def draw(found: pd.DataFrame, into: Path) -> None:
    """Writes the picture."""
    # The same bytes each time, and text that can be searched.
    mpl.rcParams.update({"svg.hashsalt": "tfprune", "svg.fonttype": "none", "font.size": 11})
    figure, axes = plt.subplots(figsize=(7.6, 3.7), layout="constrained")
    size = found["bytes"] / 1024
    axes.errorbar(
        size,
        100 * found["accuracy"],
        100 * found["deviation"],
        fmt="o",
        markersize=8,
        color="#0072b2",
        ecolor="#8a949e",
        capsize=3,
    )
    for name, row in found.iterrows():
        text, offset, side = STAGES[str(name)]
        axes.annotate(
            f"{text}: {row['smaller']:.0f}x smaller" if name != "dense" else text,
            (row["bytes"] / 1024, 100 * row["accuracy"]),
            offset,
            textcoords="offset points",
            ha=side,
        )
    axes.set(xscale="log", xlim=(40, 5_000), ylim=(79.2, 82.4))
    axes.set(xlabel="compressed TFLite file, KiB", ylabel="test accuracy, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(color="#d8dee5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    into.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(into, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # matplotlib ends lines with spaces.
    lines = into.read_text().splitlines()
    into.write_text("\n".join(line.rstrip() for line in lines) + "\n")


@click.command()
@click.option("--result", type=click.Path(path_type=Path, exists=True), default=RESULT)
@click.option("--output", type=click.Path(path_type=Path), default=PICTURE)
def picture(result: Path, output: Path) -> None:
    """Draw accuracy against the size of the compressed file, one point a stage."""
    draw(table(result), output)
    click.echo(output)


if __name__ == "__main__":
    picture()
