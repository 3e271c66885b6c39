"""What 2:4 zeros gain on Arm's NPUs: `python -m benchmarks.two_of_four`.

Untrained nets are pruned to half of their weights, by 2:4 and without a pattern, exported in int8
and compiled by Vela. Cycles and storage do not depend on what a net has learnt, beyond the spread
of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import pandas as pd

from tfprune import zoo
from tfprune.devices import find_device
from tfprune.devices.profiling import CompilingProfiler
from tfprune.report import render
from tfprune.weights import prune_once

NETS = {
    "mobilenetv1, width 16": ("mobilenetv1", {"width": 16}, (96, 96, 3)),
    "vgg, width 16": ("vgg", {"width": 16}, (32, 32, 3)),
    "vgg, width 64": ("vgg", {"width": 64}, (32, 32, 3)),
}
DEVICES = ("ethos-u55-128", "ethos-u85-256", "ethos-u85-1024")
_SPARSITY = 0.5


def main() -> None:
    """Prints a table with one row for each net, device and kind of zeros."""
    rows = []
    for title, (name, options, shape) in NETS.items():
        keras.utils.set_random_seed(0)
        dense = zoo.build(name, shape, 10, **options)
        nets = {
            "dense": dense,
            "50% zeros": prune_once(dense, _SPARSITY),
            "2:4": prune_once(dense, _SPARSITY, pattern="2:4"),
        }
        for device in DEVICES:
            with CompilingProfiler(dense, find_device(device)) as profiler:
                told = {kind: profiler.measure(net).slim for kind, net in nets.items()}
            rows += [
                {
                    "net": title,
                    "device": device,
                    "weights": kind,
                    **_shares(figures, told["dense"]),
                }
                for kind, figures in told.items()
            ]
    print(render(pd.DataFrame(rows)), end="")


def _shares(figures: Mapping[str, float], whole: Mapping[str, float]) -> dict[str, str]:
    """Cycles and storage, and what they are of the dense net's."""
    cycles, flash = figures["cycles"], figures["flash_bytes"]
    return {
        "cycles": f"{cycles:,.0f}",
        "of dense": f"{cycles / whole['cycles']:.1%}",
        "flash, bytes": f"{flash:,.0f}",
        "flash of dense": f"{flash / whole['flash_bytes']:.1%}",
    }


if __name__ == "__main__":
    main()
