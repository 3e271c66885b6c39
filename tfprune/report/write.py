"""The report of a run, as files beside its artifacts."""

from __future__ import annotations

from pathlib import Path

from tfprune.files import write_text
from tfprune.report.html import page, tickets_file
from tfprune.report.markdown import markdown
from tfprune.report.render import render
from tfprune.report.run import read_run
from tfprune.report.tables import layer_sparsity, planned
from tfprune.report.tickets import tickets


def write_report(run: Path) -> Path:
    """Writes `report.html` and `report.md`, and their tables as CSV and JSON with every digit.

    Where a run prunes in rounds, `tickets.csv` and `tickets.svg` are its levels.

    Args:
        run: the directory of a run with at least one finished variant.

    Returns:
        The path of `report.html`, which links to files of the run and loads nothing.

    Raises:
        TfpruneError: no variant is finished, or the directory cannot be written.
    """
    this = read_run(run)
    table, layers = planned(this), layer_sparsity(this)
    write_text(run / "comparison.csv", render(table, "csv"))
    write_text(run / "comparison.json", render(table, "json"))
    write_text(run / "layers.csv", render(layers, "csv"))
    levels = tickets(this)
    if len(levels):
        write_text(run / "tickets.csv", render(levels, "csv"))
        write_text(run / "tickets.svg", tickets_file(levels))
    write_text(run / "report.md", markdown(this, table, layers))
    # Last: whoever sees it finds all that it links to.
    return write_text(run / "report.html", page(this, table, layers))
