"""What each method gains of the trained models of MLPerf Tiny, on each device, as ratios.

A ratio is the reference model's figure over the pruned one's, on the same device: 2.00x is half the
cycles or half the bytes. The models are pruned by their weights alone, without data or training:
how accurate they are afterwards is not measured here. `pipelines/mlperf_tiny_ic.toml` trains one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

import tfprune
from benchmarks.devices import compare, on_devices


@click.command()
@click.argument("models", nargs=-1, required=True)
@on_devices
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/mlperf_tiny")
)
def main(models: tuple[str, ...], places: tuple[str, ...], output: Path) -> None:
    """Measure each method of each of MODELS, files or addresses, on each device."""
    compare(
        {Path(name.partition("#")[0]).stem: partial(tfprune.load, name) for name in models},
        places,
        output,
        "benchmarks.mlperf_tiny",
        ("MLPerf Tiny on each device", __doc__.split("\n", 2)[2].strip()),
    )


if __name__ == "__main__":
    main()
