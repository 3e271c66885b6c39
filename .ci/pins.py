"""Writes .ci/newest.txt from what pip would install: `make constraints` runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEAD = """\
# The newest versions that pip found together: constraints of the jobs in CI.
# Made by `make constraints`, on the oldest Python that is supported.
"""


def pins(report: dict) -> list[str]:
    """The lines `name==version` of pip's installation report.

    Args:
        report: of `pip install --dry-run --ignore-installed --report`.

    Returns:
        Sorted, without what is installed from a folder, which is tfprune itself.
    """
    found = []
    for each in report["install"]:
        if "dir_info" not in each["download_info"]:
            found.append("{name}=={version}".format(**each["metadata"]).lower())
    return sorted(found)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    lines = pins(json.loads(source.read_text("utf-8")))
    target.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")
