"""What tables of a finished run have in common: spreads over seeds, and how it was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pandas as pd

from tfprune.files import write_json, write_text


def command(function: Callable[..., None]) -> click.Command:
    """A command that is given a finished run, and the directory where its tables go.

    Args:
        function: Takes `run` and `output`.
    """
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    results = click.Path(path_type=Path)
    with_output = click.option("--output", type=results, default=Path("benchmarks/results"))
    return click.command()(click.argument("run", type=folder)(with_output(function)))


def spread(values: pd.Series) -> str:
    """Mean and sample deviation, two digits each."""
    deviation = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def write(
    output: Path, record: dict[str, Any], module: str, note: str, tables: Any, part: str = ""
) -> str:
    """Writes `NAME.md` and `NAME.json` of a run, and returns the Markdown.

    Args:
        output: The directory.
        record: The run's `run.json`.
        module: What makes the tables, such as `"benchmarks.filters"`.
        note: How to read them.
        tables: All rows, and what is shown of them.
        part: What the names of the files gain, where a run has several results.
    """
    rows, shown = tables
    name = record["name"]
    made = {
        "command": f"python -m {module} saved_models/{name}",
        "pipeline": record["pipeline"],
        "sessions": record["sessions"],
        "versions": record["sessions"][-1]["versions"],
        "machine": record["sessions"][-1]["machine"],
    }
    sessions = "\n".join(
        f"- `{each['command']}` at {each['commit']}, seeds {each['seeds']}, {each['begun']}"
        for each in made["sessions"]
    )
    versions = ", ".join(f"{key} {value}" for key, value in made["versions"].items())
    text = (
        f"# {name}{part}\n\n{record['data']}. {note}\n\n{shown.to_markdown(index=False)}\n\n"
        f"## How this was made\n\n`{made['command']}`, from\n\n{sessions}\n\n"
        f"{versions}; {made['machine']}\n"
    )
    write_text(output / f"{name}{part}.md", text)
    write_json(output / f"{name}{part}.json", {**made, "rows": rows.to_dict("records")})
    return text
