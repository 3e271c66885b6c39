"""What each stage of a finished stack brought: one row a variant and file, over all seeds.

Everything is compared with the float TFLite file of the first variant, compressed by gzip -9.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import click
import pandas as pd

from benchmarks import runs
from tfprune.formats import load
from tfprune.measure.size import floor
from tfprune.report import comparison, read_run

FORMATS = ("tflite", "tflite-int8")


def rows(directory: Path) -> pd.DataFrame:
    """One row a variant, seed and TFLite file."""
    run = read_run(directory)
    table = comparison(run).set_index(["variant", "seed", "artifact"])
    found: list[dict[str, Any]] = []
    for delivery in run.deliveries:
        for artifact in delivery.record["artifacts"]:
            form = artifact["format"]
            if form not in FORMATS:
                continue
            row = table.loc[(delivery.variant, delivery.seed, form)]
            dense = table.loc[(run.deliveries[0].variant, delivery.seed, FORMATS[0])]
            path = delivery.folder / artifact["path"]
            least = floor(load(path).weights())
            # Its range coder spends less than a bit on a zero, which gzip and zstd cannot.
            xz = len(lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
            found.append(
                {
                    "variant": delivery.variant,
                    "artifact": form,
                    "seed": delivery.seed,
                    "accuracy": row["accuracy"],
                    "points": 100 * (row["accuracy"] - dense["accuracy"]),
                    "bytes": row["bytes"],
                    "bytes_gzip": row["bytes_gzip"],
                    "bytes_zstd": artifact["bytes_zstd"],
                    "bytes_xz": xz,
                    "smaller": dense["bytes_gzip"] / row["bytes_gzip"],
                    "smaller_zstd": dense["bytes_gzip"] / artifact["bytes_zstd"],
                    "speedup": dense["latency_ms"] / row["latency_ms"],
                    "floor_mask_bytes": least.mask_bytes,
                    "floor_entropy_bytes": least.entropy_bytes,
                    "zstd_to_mask": artifact["bytes_zstd"] / least.mask_bytes,
                    "zstd_to_entropy": artifact["bytes_zstd"] / least.entropy_bytes,
                    "xz_to_mask": xz / least.mask_bytes,
                    "xz_to_entropy": xz / least.entropy_bytes,
                    "epochs": row["epochs"],
                }
            )
    return pd.DataFrame(found)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant and file, in words."""

    def told(group: pd.DataFrame) -> pd.Series:
        return pd.Series(
            {
                "seeds": len(group),
                "test accuracy": runs.spread(100 * group["accuracy"]),
                "against dense": runs.spread(group["points"]),
                "KiB": f"{group['bytes'].mean() / 1024:.1f}",
                "gzip": f"{group['bytes_gzip'].mean() / 1024:.1f}",
                "zstd": f"{group['bytes_zstd'].mean() / 1024:.1f}",
                "xz": f"{group['bytes_xz'].mean() / 1024:.1f}",
                "smaller, gzip": f"{group['smaller'].mean():.1f}x",
                "smaller, zstd": f"{group['smaller_zstd'].mean():.1f}x",
                "speed-up": f"{group['speedup'].mean():.2f}x",
                "zstd / mask floor": f"{group['zstd_to_mask'].mean():.2f}",
                "xz / mask floor": f"{group['xz_to_mask'].mean():.2f}",
                "zstd / entropy floor": f"{group['zstd_to_entropy'].mean():.2f}",
                "xz / entropy floor": f"{group['xz_to_entropy'].mean():.2f}",
                "epochs": f"{group['epochs'].mean():.0f}",
            }
        )

    groups = table.groupby(["variant", "artifact"], sort=False)
    return groups.apply(told, include_groups=False).reset_index()


@runs.command
def stack(run: Path, output: Path) -> None:
    """Tell what each stage brought in RUN, the directory of a finished run."""
    table = rows(run)
    note = (
        "Percent and percentage points; mean ± sample deviation over seeds. Each file's accuracy "
        "is its own on the whole test set. Smaller and faster than dense float TFLite, that "
        "one by gzip -9; one image, one thread, all files of a seed timed in turn. For the floors "
        "see `tfprune.measure.floor`."
    )
    tables = table, summary(table)
    click.echo(runs.write(output, read_run(run).record, "benchmarks.stack", note, tables))


if __name__ == "__main__":
    stack()
