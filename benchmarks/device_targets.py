"""How near plans for a device's cycles, flash and SRAM come to their targets, on small nets.

The nets are untrained: cycles and memory do not depend on what they learnt. Every figure is Vela's
estimate of the whole exported file, of one example, at int8.

On an NPU a figure falls in steps of many channels, memory most of all. Where a plan stays more than
3% below its target, each channel group gets one channel back, one group after the other: the
smallest share that this gives tells whether a plan lies nearer.
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
from tfprune.devices import Device, MeasuredPlan, find_device
from tfprune.devices.base import PLANNED_FIGURES
from tfprune.devices.profiling import CompilingProfiler
from tfprune.errors import TfpruneError
from tfprune.files import write_json, write_text
from tfprune.filters import RemovalPlan, rebuild
from tfprune.pipeline import provenance
from tfprune.vocabulary import DEVICE_TARGETS, DeviceTarget

# A plan that is nearer below its target meets it.
_CLOSE = 0.03


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
    found |= {"before": before, "after": after, "share": after / before}
    if after < (1 - _CLOSE) * share * before:
        found["one channel more"] = one_more(net, plan, find_device(device), target) / before
    return {**found, "seconds": time.perf_counter() - begin}


def one_more(net: keras.Model, plan: RemovalPlan, device: Device, target: DeviceTarget) -> float:
    """The least that the net takes above a plan, with one channel more in one group."""
    found = []
    with CompilingProfiler(net, device, None, target) as compiler:
        now = compiler.measure(rebuild(plan)).slim[PLANNED_FIGURES[target]]
        for group in plan.groups:
            gone = group.units[~plan.alive[group.units]]
            if len(gone):
                alive = plan.alive.copy()
                alive[gone[0]] = True
                slim = rebuild(RemovalPlan(plan.groups, alive))
                found.append(compiler.measure(slim).slim[PLANNED_FIGURES[target]])
    return min((value for value in found if value > now), default=now)


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
    made_by = {
        "command": shlex.join(["python", "-m", "benchmarks.device_targets", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "vela": importlib.metadata.version("ethos-u-vela"),
        "settings": find_device(device).settings(),
        "device": device,
    }
    rows = []
    for target in targets or DEVICE_TARGETS:
        for name in names or NETS:
            keras.utils.set_random_seed(0)
            rows.append({"net": name, **planned(NETS[name](), target, share, device)})
            click.echo(rows[-1], err=True)
            # Complete after each plan: all of them take long.
            _write({**made_by, "rows": rows}, share, output)


def _write(document: dict[str, Any], share: float, output: Path) -> None:
    table = (
        pd.DataFrame(document["rows"])
        .drop(columns="seconds", errors="ignore")
        .round(4)
        .astype(object)
        .fillna("")
    )
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        f"# Plans for a device\n\nEach target keeps {share:g} of what Vela {document['vela']} "
        f"estimates for {document['device']}, of the whole int8 file; bytes and cycles of one "
        "example; random weights. Where a plan stays more than 3% below its target, the last "
        "column has the least share with one channel more in one group: figures fall in steps."
        f"\n\n{table.to_markdown(index=False)}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
