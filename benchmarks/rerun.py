"""Times `tfprune run` on a run that is finished, and shows that it does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from tfprune.files import write_json
from tfprune.pipeline import load_pipeline, provenance


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("saved_models"))
@click.option("--times", default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="A JSON file for the result.")
def rerun(pipeline: Path, out: Path, times: int, output: Path | None) -> None:
    """Run PIPELINE, which is finished in OUT, again; exit 1 where that changes a file."""
    run = out / load_pipeline(pipeline).name

    def state() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(run.rglob("*"))
            if path.is_file() and ".locks" not in path.parts
        }

    before, seconds = state(), []
    command = [sys.executable, "-c", "from tfprune.cli import main; main()"]
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(
            [*command, "run", str(pipeline), "--out", str(out)], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - begun)
    unchanged = state() == before
    result = {
        "command": f"python benchmarks/rerun.py {pipeline}",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "files": len(before),
        "unchanged": unchanged,
        "seconds": seconds,
        "median_seconds": statistics.median(seconds),
    }
    if output is not None:
        write_json(output, result)
    click.echo(
        f"{statistics.median(seconds):.2f} s (of {times}), at most {max(seconds):.2f} s; "
        f"{len(before)} files {'unchanged' if unchanged else 'CHANGED'}"
    )
    sys.exit(0 if unchanged else 1)


if __name__ == "__main__":
    rerun()
