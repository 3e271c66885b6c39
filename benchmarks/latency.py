"""What a plan for MACs and a plan for measured latency are worth in TFLite, at about equal MACs.

The nets are untrained: speed does not depend on what they learnt. For each, one plan keeps half of
the multiply-accumulates, and one keeps the share of the latency that brings it about as low; all
files of a net are then timed in turn.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

import tfprune
from tfprune import export, filters, macs, zoo
from tfprune.files import write_json, write_text
from tfprune.formats import load
from tfprune.measure import latency
from tfprune.pipeline import provenance

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "VGG, width 16": ("vgg", {"width": 16, "blocks": [2, 2, 2]}),
    "VGG-16, width 16": ("vgg", {"width": 16, "blocks": [2, 2, 3, 3, 3]}),
    "VGG-16, width 32": ("vgg", {"width": 32, "blocks": [2, 2, 3, 3, 3]}),
    "ResNet-20": ("resnet20", {}),
}
SHARES = (0.6, 0.55, 0.5)


def measured(name: str, options: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """The rows of one net, its plans and their figures."""
    model = zoo.build(name, (32, 32, 3), 10, seed=0, **options)
    plans = {"macs=0.5": tfprune.plan(model, macs=0.5, importance="l2")}
    for share in SHARES:
        plans[f"latency={share:g}"] = tfprune.plan(model, latency=share, importance="l2")
    nets = {"dense": model} | {key: filters.rebuild(plan) for key, plan in plans.items()}
    with tempfile.TemporaryDirectory() as folder:
        runtimes = {
            key: load(export(net, Path(folder, key), formats=["tflite"])[0].path)
            for key, net in nets.items()
        }
        image = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
        table = latency(runtimes, image, rounds=rounds).set_index("runtime")
    dense = table.loc["dense", "median_ms"]
    return [
        {
            "plan": key,
            "macs": macs(net),
            "macs_ratio": macs(model) / macs(net),
            "median_ms": float(table.loc[key, "median_ms"]),
            "speedup": float(dense / table.loc[key, "median_ms"]),
        }
        for key, net in nets.items()
    ]


@click.command()
@click.option("--rounds", default=1000, show_default=True, help="Images timed of each file.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/latency")
)
def main(rounds: int, output: Path) -> None:
    """Time plans for MACs and for latency beside each other."""
    rows = []
    for title, (name, options) in MODELS.items():
        for row in measured(name, options, rounds):
            rows.append({"model": title, **row})
            click.echo(rows[-1], err=True)
    document = {
        "command": "python -m benchmarks.latency",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "rounds": rounds,
        "rows": rows,
    }
    table = pd.DataFrame(rows).drop(columns="macs").round(3)
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        "# Plans for MACs and for latency\n\nFloat TFLite, one image of 32 x 32, one thread, "
        f"medians of {rounds} invocations, all files of a net in turn; random weights.\n\n"
        f"{table.to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
