"""Tables in documents that are quoted from result files, and written anew by one command.

A document marks the place by a comment; what stands between the two marks is generated:

    <!-- quote RESULT: COLUMN | COLUMN | ... [where GLOB] -->
    <!-- end -->

RESULT is a file `benchmarks/results/RESULT.md`; the columns are those of its first table, and GLOB
keeps the rows whose first column matches it. `tests/test_site.py` fails when a document differs.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
_QUOTE = re.compile(
    r"(<!-- quote (?P<result>\S+): (?P<columns>.*?)(?: where (?P<glob>\S+))? -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def first_table(markdown: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the first table of a Markdown document."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    if not lines:
        raise click.ClickException("the result has no table")
    # A document may have several, each with a line of dashes below its header.
    rule = [number for number, line in enumerate(lines) if set(line) <= set("|-: ")]
    end = rule[1] - 1 if len(rule) > 1 else len(lines)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]
    return cells[0], cells[2:]


def quoted(markdown: str, results: Path) -> str:
    """A document with its quotations as the result files have them now.

    Args:
        markdown: the document.
        results: the directory of result files.

    Raises:
        click.ClickException: a quotation names a result, a column or rows that there are not.
    """

    def table(found: re.Match[str]) -> str:
        result, wanted = found["result"], found["columns"].split(" | ")
        path = results / f"{result}.md"
        if not path.is_file():
            raise click.ClickException(f"{path} is not there: a document quotes it")
        header, rows = first_table(path.read_text())
        if unknown := [name for name in wanted if name not in header]:
            raise click.ClickException(f"{path} has no column {unknown[0]!r}: {', '.join(header)}")
        rows = [row for row in rows if fnmatchcase(row[0], found["glob"] or "*")]
        if not rows:
            raise click.ClickException(f"{path} has no row {found['glob']!r}")
        places = [header.index(name) for name in wanted]
        lines = [
            "| " + " | ".join(wanted) + " |",
            "|:--|" + "--:|" * (len(wanted) - 1),
            *("| " + " | ".join(row[place] for place in places) + " |" for row in rows),
        ]
        return found[1] + "\n" + "\n".join(lines) + "\n\n" + found["end"]

    return _QUOTE.sub(table, markdown)


@click.command()
@click.option("--root", type=click.Path(path_type=Path), default=ROOT)
def quotes(root: Path) -> None:
    """Write the quoted tables of README and of all documents anew."""
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        before = path.read_text()
        after = quoted(before, root / "benchmarks" / "results")
        if after != before:
            path.write_text(after)
            click.echo(path.relative_to(root))


if __name__ == "__main__":
    quotes()
