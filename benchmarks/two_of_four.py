"""What 2:4 zeros gain on Arm's NPUs: `python -m benchmarks.two_of_four`.

Untrained nets are pruned to half of their weights, by 2:4 and without a pattern, exported in int8
and compiled by Vela. Cycles and storage do not depend on what a net has learnt, beyond the spread
of its weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import tfprune
from tfprune import zoo
from tfprune.devices import find_device
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
        images = np.random.default_rng(0).uniform(0, 255, (32, *shape)).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            files = [
                tfprune.export(
                    net, folder, ["tflite-int8"], images, name=f"net{place}", comparison_data=images
                )[0].path
                for place, net in enumerate(nets.values())
            ]
            for device in DEVICES:
                told = find_device(device).measure([Path(file) for file in files])
                whole = told[0].figures
                for kind, each in zip(nets, told, strict=True):
                    rows.append(
                        {
                            "net": title,
                            "device": device,
                            "weights": kind,
                            "cycles": f"{each.figures['cycles']:,.0f}",
                            "of dense": f"{each.figures['cycles'] / whole['cycles']:.1%}",
                            "flash": f"{each.figures['flash_bytes']:,.0f}",
                            "flash of dense": f"{each.figures['flash_bytes'] / whole['flash_bytes']:.1%}",
                        }
                    )
    print(render(pd.DataFrame(rows)), end="")


if __name__ == "__main__":
    main()
