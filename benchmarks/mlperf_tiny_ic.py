"""What a finished run of `pipelines/mlperf_tiny_ic.toml` reached, beside its goals.

Each pruned variant is compared with the first one, the reference net that was fine-tuned and
quantized, in int8 and with the same seed: accuracy in points, cycles and flash of the NPU as
shares. A file that TFLite Micro alone runs is compared with the reference's int8 file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pandas as pd

from benchmarks import runs
from tfprune.report import comparison, read_run
from tfprune.report.devices import device_table

NPU = "ethos-u55-128"
MICRO = "tflm"
INT8 = "tflite-int8"
# Points lost, shares of the reference's, and bytes.
GOALS = {"points": -0.5, "cycles": 0.5, "flash": 0.25, "lut_bytes": 64 * 1024}


def rows(directory: Path) -> pd.DataFrame:
    """One row a variant, seed and quantized file."""
    run = read_run(directory)
    told = device_table(run).set_index(["device", "variant", "seed", "artifact"])
    table = comparison(run).set_index(["variant", "seed", "artifact"])
    first = run.deliveries[0].variant

    def figure(device: str, variant: str, seed: int, artifact: str, name: str) -> float | None:
        place = device, variant, seed, artifact
        return float(told.loc[place, name]) if place in told.index else None

    found: list[dict[str, Any]] = []
    for (variant, seed, artifact), row in table.iterrows():
        if artifact == "tflite":
            continue
        base = table.loc[(first, seed, INT8)]
        cycles, flash = (
            figure(NPU, variant, seed, artifact, name) for name in ("cycles", "flash_bytes")
        )
        whole, stored = (figure(NPU, first, seed, INT8, name) for name in ("cycles", "flash_bytes"))
        found.append(
            {
                "variant": variant,
                "artifact": artifact,
                "seed": seed,
                "accuracy": row["accuracy"],
                "points": 100 * (row["accuracy"] - base["accuracy"]),
                "epochs": row["epochs"],
                "cycles": cycles,
                "cycles_share": cycles / whole if cycles and whole else None,
                "flash": flash,
                "flash_share": flash / stored if flash and stored else None,
                "micro_flash": figure(MICRO, variant, seed, artifact, "flash_bytes"),
                "micro_arena": figure(MICRO, variant, seed, artifact, "arena_bytes"),
            }
        )
    return pd.DataFrame(found)


def verdicts(table: pd.DataFrame, first: str) -> list[str]:
    """One line a goal and variant: what was reached, and whether that is enough."""
    lines = []
    for variant, group in table[table["variant"] != first].groupby("variant", sort=False):
        int8, lut = (group[group["artifact"] == name] for name in (INT8, "c-array-lut"))
        if int8["cycles"].isna().all() and lut.empty:
            continue
        reached = {
            f"at most {-GOALS['points']:g} points below": (
                int8["points"].mean(),
                int8["points"].mean() >= GOALS["points"],
                "{:+.2f} points",
            ),
            "at most half of the cycles": (
                int8["cycles_share"].mean(),
                int8["cycles_share"].mean() <= GOALS["cycles"],
                "{:.3f}",
            ),
            "at most a quarter of the NPU's flash": (
                int8["flash_share"].mean(),
                int8["flash_share"].mean() <= GOALS["flash"],
                "{:.3f}",
            ),
        }
        if len(lut):
            size = lut["micro_flash"].mean()
            reached["c-array-lut of at most 64 KiB"] = (
                size / 1024,
                size <= GOALS["lut_bytes"],
                "{:.1f} KiB",
            )
        for goal, (value, kept, text) in reached.items():
            lines.append(f"{variant}, {goal}: {text.format(value)}, {'met' if kept else 'MISSED'}")
    return lines


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a variant and file, in words."""

    def share(group: pd.DataFrame, name: str, digits: int = 0) -> str:
        if group[name].isna().all():
            return ""
        text = f"{group[name].mean():,.{digits}f}"
        part = f"{name}_share"
        return f"{text} ({group[part].mean():.1%})" if part in group else text

    def told(group: pd.DataFrame) -> pd.Series:
        kib = group.assign(
            flash=group["flash"] / 1024,
            micro_flash=group["micro_flash"] / 1024,
            micro_arena=group["micro_arena"] / 1024,
        )
        return pd.Series(
            {
                "seeds": len(group),
                "test accuracy": runs.spread(100 * group["accuracy"]),
                "points": runs.spread(group["points"]),
                "epochs": f"{group['epochs'].mean():.0f}",
                f"{NPU}, cycles": share(kib, "cycles"),
                f"{NPU}, flash, KiB": share(kib, "flash", 1),
                "tflm, flash, KiB": share(kib, "micro_flash", 1),
                "tflm, arena, KiB": share(kib, "micro_arena", 1),
            }
        )

    groups = table.groupby(["variant", "artifact"], sort=False)
    return groups.apply(told, include_groups=False).reset_index()


@runs.command
def main(run: Path, output: Path) -> None:
    """Tell what RUN, the directory of a finished run, reached."""
    table = rows(run)
    record = read_run(run).record
    lines = "\n".join(f"- {line}" for line in verdicts(table, str(table["variant"].iloc[0])))
    note = (
        "Mean ± sample deviation over seeds; each file's accuracy is its own on the whole test "
        "set, points are those above the reference's int8 file. Cycles and flash of the NPU are "
        f"Vela's estimates.\n\nGoals of MLPerf Tiny here, mean of the seeds:\n\n{lines}"
    )
    tables = table, summary(table)
    click.echo(runs.write(output, record, "benchmarks.mlperf_tiny_ic", note, tables))


if __name__ == "__main__":
    main()
