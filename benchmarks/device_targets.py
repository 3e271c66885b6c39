"""How near plans for a device's cycles, flash and SRAM come to their targets, on small nets.

The nets are untrained: cycles and memory do not depend on what they learnt. Every figure is Vela's
estimate of the whole exported file, of one example, at int8.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click
import keras
import pandas as pd

import tfprune
from benchmarks.nets import NETS
from tfprune.devices import MeasuredPlan, find_device
from tfprune.devices.base import PLANNED_FIGURES
from tfprune.errors import TfpruneError
from tfprune.files import write_json, write_text
from tfprune.pipeline import provenance
from tfprune.vocabulary import DEVICE_TARGETS, DeviceTarget


def planned(net: keras.Model, target: DeviceTarget, share: float, device: str) -> dict[str, Any]:
    """The figures of one plan."""
    begin = time.perf_counter()
    goal: dict[str, Any] = {target: share}
    found = {"target": target, "asked": share}
    try:
        plan = tfprune.plan(net, device=device, **goal)
    except TfpruneError as error:
        return {**found, "error": str(error)}
    assert isinstance(plan, MeasuredPlan)
    figure = PLANNED_FIGURES[target]
    before, after = plan.measured.original[figure], plan.measured.slim[figure]
    return {
        **found,
        "before": before,
        "after": after,
        "share": after / before,
        "seconds": time.perf_counter() - begin,
    }


@click.command()
@click.option("--device", default="ethos-u55-128", show_default=True)
@click.option("--share", default=0.5, show_default=True, help="What each target keeps.")
@click.option("--net", "names", multiple=True, type=click.Choice([*NETS]), help="Just this one.")
@click.option("--target", "targets", multiple=True, type=click.Choice([*DEVICE_TARGETS]))
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/device_targets")
)
def main(
    device: str,
    share: float,
    names: tuple[str, ...],
    targets: tuple[DeviceTarget, ...],
    output: Path,
) -> None:
    """Plan for each target on each net, and write how near the whole files come."""
    rows = []
    for target in targets or DEVICE_TARGETS:
        for name in names or NETS:
            keras.utils.set_random_seed(0)
            rows.append({"net": name, **planned(NETS[name](), target, share, device)})
            click.echo(rows[-1], err=True)
            # Complete after each plan: all of them take long.
            _write(rows, device, share, output)


def _write(rows: list[dict[str, Any]], device: str, share: float, output: Path) -> None:
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.device_targets", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "vela": importlib.metadata.version("ethos-u-vela"),
        "settings": find_device(device).settings(),
        "device": device,
        "rows": rows,
    }
    table = (
        pd.DataFrame(rows)
        .drop(columns="seconds", errors="ignore")
        .round(4)
        .astype(object)
        .fillna("")
    )
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        f"# Plans for a device\n\nEach target keeps {share:g} of what Vela {document['vela']} "
        f"estimates for {device}, of the whole int8 file; bytes and cycles of one example; random "
        f"weights.\n\n{table.to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
