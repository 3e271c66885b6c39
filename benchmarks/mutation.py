"""How many small mistakes the tests find: mutation testing of some packages by cosmic-ray.

Of all mutants that cosmic-ray can make of a package a random sample is tried, each in a copy of the
last commit: the test modules that mirror the mutated one first, then the whole package's. A mutant
is killed when a test fails or the tests hang. Mutants inside type annotations are left out, since
annotations are not evaluated.

    python -m benchmarks.mutation weights filters report/budgets pipeline --sample 40

A run that was stopped goes on when the same command is given at the same commit. It
needs cosmic-ray (the extra `bench`), and takes half a minute or more for each mutant.
"""

from __future__ import annotations

import ast
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pandas as pd

from tfprune.files import read_json, write_json, write_text
from tfprune.pipeline import provenance

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 900
_MUTANTS = "benchmarks.mutation"


def tests_of(module: Path) -> list[str]:
    """The tests to run for a module, the most likely to fail first.

    Args:
        module: such as `tfprune/weights/masks.py`.
    """
    package = Path("tests", *module.parent.parts[1:])
    stem = module.stem.strip("_")
    own = sorted((ROOT / package).glob(f"**/test_{stem}*.py"))
    return [str(path.relative_to(ROOT)) for path in own] + [str(package)]


def annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the annotations of a module begin and end, as (line, column)."""
    for node in ast.walk(ast.parse(source)):
        for field in ("annotation", "returns"):
            found = getattr(node, field, None)
            if found is not None:
                yield (
                    (found.lineno, found.col_offset),
                    (found.end_lineno, found.end_col_offset),
                )


def _sampled(database: Path, clone: Path, sample: int, rng: random.Random) -> tuple[int, int]:
    """Leaves a random sample of the mutants to be tried.

    Returns:
        How many mutants there are, annotations aside, and how many of them are tried.
    """
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(database, WorkDB.Mode.open) as db:
        real, spans = [], {}
        for item in db.pending_work_items:
            (mutation,) = item.mutations
            path = clone / mutation.module_path
            known = spans.setdefault(path, list(annotations(path.read_text(encoding="utf-8"))))
            if not any(first <= mutation.start_pos < last for first, last in known):
                real.append(item)
        # The numbers of cosmic-ray's jobs are random: draw by what they mutate.
        real.sort(key=lambda item: str(item.mutations[0]))
        tried = {item.job_id for item in rng.sample(real, min(sample, len(real)))}
        skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED, output="not in the sample")
        for item in list(db.pending_work_items):
            if item.job_id not in tried:
                db.set_result(item.job_id, skipped)
    return len(real), len(tried)


def _tried(package: str, sample: int, seed: int, folder: Path) -> dict[str, Any]:
    """Tries a sample of the mutants of one package, or goes on where that was stopped."""
    from cosmic_ray.work_db import WorkDB, use_db

    commit = provenance.commit()
    name = f"{package.replace('/', '-')}-{sample}-{seed}-{commit}"
    place = (folder / name).absolute()
    clone, database, config = place / "clone", place / "session.sqlite", place / "config.toml"
    counts = place / "counts.json"
    environment = os.environ | {"PYTHONPATH": str(clone), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(*command: str) -> None:
        tool = [sys.executable, "-m", "cosmic_ray.cli", *command, str(config), str(database)]
        subprocess.run(tool, check=True, cwd=clone, env=environment, stdout=subprocess.DEVNULL)

    if not counts.exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        judge = shlex.join([sys.executable, "-m", _MUTANTS, "--judge"])
        config.write_text(
            f'[cosmic-ray]\nmodule-path = "tfprune/{package}"\n'
            f"timeout = {TIMEOUT_SECONDS}\nexcluded-modules = []\n"
            f"test-command = {json.dumps(judge)}\n"
            '[cosmic-ray.distributor]\nname = "local"\n',
            encoding="utf-8",
        )
        # Otherwise every mutant would count as killed.
        untouched = [sys.executable, "-m", "pytest", "-x", "-q", f"tests/{package}"]
        done = subprocess.run(untouched, cwd=clone, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise click.ClickException(f"the tests of {package} fail without a mutant")
        run("init")
        total, tried = _sampled(database, clone, sample, random.Random(seed))
        write_json(counts, {"mutants": total, "tried": tried})
    # A run that was stopped may have left its mutant behind.
    subprocess.run(["git", "checkout", "--quiet", "--", "."], check=True, cwd=clone)
    run("exec")
    with use_db(database, WorkDB.Mode.open) as db:
        outcomes = [
            _told(mutation, result)
            for item, result in db.completed_work_items
            for mutation in item.mutations
            if result.test_outcome is not None
        ]
    return {"package": f"tfprune/{package}", **read_json(counts), "tests": outcomes}


def _told(mutation: Any, result: Any) -> dict[str, Any]:
    changed = [
        line
        for line in (result.diff or "").splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]
    return {
        "module": str(mutation.module_path),
        "line": mutation.start_pos[0],
        "operator": mutation.operator_name.removeprefix("core/"),
        "outcome": str(result.test_outcome.value),
        "change": changed,
    }


def judge() -> int:
    """Runs the tests of the mutated module in the current folder; 0 where the mutant survives."""
    done = subprocess.run(
        ["git", "diff", "--name-only"], check=True, capture_output=True, encoding="utf-8"
    )
    modules = [Path(name) for name in done.stdout.split() if name.startswith("tfprune/")]
    wanted = [name for module in modules for name in tests_of(module)]
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return subprocess.run([*pytest, *dict.fromkeys(wanted)], stdout=subprocess.DEVNULL).returncode


@click.command()
@click.argument("packages", nargs=-1)
@click.option("--sample", default=40, show_default=True, help="Mutants to try of each package.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--workers", default=2, show_default=True, help="Packages tried at a time.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("saved_models/mutation"),
    show_default=True,
    help="Where clones and outcomes are kept until the end.",
)
@click.option("--judge", "judging", is_flag=True, hidden=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/mutation")
)
def main(
    packages: tuple[str, ...],
    sample: int,
    seed: int,
    workers: int,
    folder: Path,
    judging: bool,
    output: Path,
) -> None:
    """Try random mutants of packages, such as `weights` or `report/budgets`."""
    if judging:
        raise SystemExit(judge())
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda package: _tried(package, sample, seed, folder), packages))
    rows, survivors = [], []
    for each in found:
        counted = Counter(test["outcome"] for test in each["tests"])
        alive = counted["survived"]
        tried = sum(counted.values())
        rows.append(
            {
                "package": each["package"],
                "mutants": each["mutants"],
                "tried": tried,
                "killed": tried - alive,
                "survived": alive,
                "score": f"{(tried - alive) / tried:.0%}" if tried else "",
            }
        )
        survivors += [test for test in each["tests"] if test["outcome"] == "survived"]
    command = shlex.join(["python", "-m", _MUTANTS, *sys.argv[1:]])
    document = {
        "command": command,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "seed": seed,
        "packages": found,
    }
    write_json(output.with_suffix(".json"), document)
    listed = "".join(
        f"- `{each['module']}:{each['line']}` ({each['operator']})\n\n"
        + "".join(f"      {line}\n" for line in each["change"])
        + "\n"
        for each in survivors
    )
    write_text(
        output.with_suffix(".md"),
        "# Mutation testing\n\nOne small mistake at a time, made by cosmic-ray in a random sample "
        f"of places (seed {seed}); killed where a test fails.\n\n"
        f"{pd.DataFrame(rows).to_markdown(index=False)}\n\n## Survivors\n\n{listed}"
        f"`{command}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
