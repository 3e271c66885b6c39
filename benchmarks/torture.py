"""Kills the demo run at random moments, runs it again, and compares what comes out.

`make torture` starts this. Processes that run the pipeline are killed with SIGKILL after a random
time, until as many kills have been made as asked for; each kill is followed by another start in the
same directory. When a run finishes, it must hold the same tables and the same model files as one
that ran without a kill, and no finished result may have been made twice; then the next one begins.
"""

from __future__ import annotations

import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import pandas as pd

from tfprune.files import RECORD, read_json, sha256, write_json
from tfprune.pipeline import provenance

# Measured times differ from run to run; all else is the same.
TIMED = ["latency_ms", "epoch_seconds", "test_seconds"]


def start(pipeline: Path, out: Path) -> subprocess.Popen[bytes]:
    """Starts a run of the pipeline, as a user would."""
    command = [sys.executable, "-c", "from tfprune.cli import main; main()", "run", str(pipeline)]
    return subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def tables(run: Path) -> pd.DataFrame:
    """The final table of a run, without what is timed."""
    return pd.read_csv(run / "comparison.csv").drop(columns=TIMED)


def models(run: Path) -> dict[str, str]:
    """The hash of every model file of a run, by its place."""
    files = sorted([*run.glob("steps/*/model.keras"), *run.glob("*/seed-*/model*")])
    return {path.relative_to(run).as_posix(): sha256(path) for path in files}


def results(run: Path) -> dict[str, tuple[int, int]]:
    """Every finished result, by its place: the inode and the time of its record."""
    found = {}
    for path in sorted([*run.glob(f"steps/*/{RECORD}"), *run.glob(f"*/seed-*/{RECORD}")]):
        stat = path.stat()
        found[path.relative_to(run).as_posix()] = (stat.st_ino, stat.st_mtime_ns)
    return found


def half_written(run: Path) -> list[str]:
    """Results under a final name that are not whole: no record, or no model."""
    bad = []
    for folder in [*run.glob("steps/[!.]*"), *run.glob("*/seed-*")]:
        record = folder / RECORD
        if not record.is_file():
            bad.append(f"{folder} has no record")
        elif "latency" not in read_json(record) and not list(folder.glob("model*")):
            bad.append(f"{folder} has no model")
    return bad


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path), default=Path("pipelines/digits.toml"))
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the random moments.")
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def torture(pipeline: Path, kills: int, seed: int, output: Path | None) -> None:
    """Kill PIPELINE's run at random moments; exit 1 where a result differs or is made twice."""
    chance = random.Random(seed)
    problems: list[str] = []
    moments: list[float] = []
    finished = 0
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory, "whole")
        begun = time.monotonic()
        undisturbed = start(pipeline, whole)
        said = undisturbed.communicate()[1]
        seconds = time.monotonic() - begun
        if undisturbed.returncode:
            raise click.ClickException(f"the run fails undisturbed: {said.decode()[-300:]}")
        (reference,) = whole.iterdir()
        click.echo(f"undisturbed: {seconds:.0f} s", err=True)
        while len(moments) < kills:
            out = Path(directory, f"run-{finished}")
            run = out / reference.name
            while True:
                before = results(run)
                process = start(pipeline, out)
                moment = chance.uniform(0, seconds) if len(moments) < kills else None
                try:
                    said = process.communicate(timeout=moment)[1]
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    moments.append(moment or 0.0)
                after = results(run)
                problems += [
                    f"kill {len(moments)}: {name} was made again"
                    for name, stat in before.items()
                    if after.get(name) != stat
                ]
                problems += [f"kill {len(moments)}: {each}" for each in half_written(run)]
                if process.returncode == 0:
                    break
                if process.returncode != -signal.SIGKILL:
                    problems.append(
                        f"after kill {len(moments)} the run fails: {said.decode()[-300:]}"
                    )
                    break
            finished += 1
            if process.returncode == 0:
                if not tables(run).equals(tables(reference)):
                    problems.append(f"run {finished} has another table")
                if models(run) != models(reference):
                    problems.append(f"run {finished} has other models")
            click.echo(f"{len(moments)} kills, {finished} runs, {len(problems)} problems", err=True)
    result = {
        "command": f"python benchmarks/torture.py {pipeline} --kills {kills} --seed {seed}",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": {**provenance.machine(), "node": platform.machine()},
        "pipeline": str(pipeline),
        "seed": seed,
        "undisturbed_seconds": seconds,
        "kills": len(moments),
        "runs": finished,
        "killed_after_seconds": moments,
        "problems": problems,
    }
    if output is not None:
        write_json(output, result)
    click.echo(json.dumps({key: result[key] for key in ("kills", "runs", "problems")}, indent=2))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    torture()
