"""What the site takes from outside of docs/: results of benchmarks, CONTRIBUTING, CHANGELOG.

Pages link to these files as they lie in the repository, so that the links work there too; here
they become links within the site. Rows of results are also written as CSV.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
# Where a file of the repository lies on the site.
PLACES = {
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    ".github/workflows/prune-and-check.yml": "files/prune-and-check.yml",
}
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Adds files from elsewhere in the repository."""
    for source, place in PLACES.items():
        files.append(_file(config, place, (ROOT / source).read_bytes()))
    for path in sorted((ROOT / RESULTS).iterdir()):
        files.append(_file(config, f"{RESULTS}/{path.name}", path.read_bytes()))
        rows = json.loads(path.read_text()).get("rows") if path.suffix == ".json" else None
        if isinstance(rows, list) and not path.with_suffix(".csv").exists():
            table = as_csv(rows).encode()
            files.append(_file(config, f"{RESULTS}/{path.stem}.csv", table))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links that leave docs/ into links within the site."""
    place = page.file.src_uri
    origin = next((source for source, to in PLACES.items() if to == place), f"docs/{place}")
    if place.startswith(RESULTS):
        origin = place
        # A report names its page, which is not kept.
        markdown = markdown.replace("[report.html](report.html)", "report.html")
    if place == "results.md":
        markdown = f"{markdown}\n{all_results()}"
    return _LINK.sub(lambda found: found[1] + moved(found[2], origin, place) + found[3], markdown)


def all_results() -> str:
    """A section that lists each committed result, the command that made it, and its table."""
    lines = ["## All results", "", "| result | made by | rows |", "|:--|:--|:--|"]
    for path in sorted((ROOT / RESULTS).glob("*.json")):
        told = json.loads(path.read_text())
        page = path.with_suffix(".md")
        name = f"[{path.stem}](../{RESULTS}/{(page if page.exists() else path).name})"
        csvs = isinstance(told.get("rows"), list) or path.with_suffix(".csv").exists()
        table = f"[{path.stem}.csv](../{RESULTS}/{path.stem}.csv)" if csvs else ""
        lines.append(f"| {name} | `{told['command'].replace('|', '')}` | {table} |")
    return "\n".join(lines) + "\n"


def moved(link: str, origin: str, place: str) -> str:
    """A link of a file of the repository, as it is on the site.

    Args:
        link: a relative path.
        origin: the file with the link, in the repository.
        place: the same file, on the site.
    """
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    on_site = PLACES.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(on_site, posixpath.dirname(place) or ".")


def as_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as a table; a cell that is a list or a table of its own is JSON."""
    rows = list(rows)
    into = io.StringIO()
    writer = csv.DictWriter(into, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: json.dumps(value) if isinstance(value, list | dict) else value
                for key, value in row.items()
            }
        )
    return into.getvalue()


def _file(config: Any, place: str, content: bytes) -> File:
    from mkdocs.structure.files import File

    return File.generated(config, place, content=content)
