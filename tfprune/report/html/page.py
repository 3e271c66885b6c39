"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfprune.files import RECORD
from tfprune.pipeline.steps import describe
from tfprune.report.budgets import judge, judged_table, recorded_budget
from tfprune.report.budgets.verdict import count_line, missing_lines
from tfprune.report.devices import section as devices
from tfprune.report.html import comparison, curves, layers, tradeoff
from tfprune.report.run import Delivery, Run
from tfprune.report.sentences import (
    describe_removal,
    duration,
    provenance,
)
from tfprune.report.tables import Spread, is_measured, spread
from tfprune.report.tickets import section as levels

# So many variants are shown at once; the others are folded, so that a sweep can be read.
_OPEN = 8


def page(run: Run, table: pd.DataFrame, sparsity: pd.DataFrame) -> str:
    """The report as an HTML document.

    Example:
        >>> run = read_run(Path("saved_models/digits"))
        >>> markup = page(run, planned(run), layer_sparsity(run))

    Args:
        run: what `read_run` read.
        table: its table of `planned`.
        sparsity: its `layer_sparsity`.

    Returns:
        An HTML document that loads nothing; its links lead to files in the folder of the run. The
        same run gives the same text.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfprune.report.html"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    summary = spread(table[is_measured(table)])
    by_variant = _by_variant(run)
    template = environment.get_template("report.html.j2")
    return template.render(
        name=run.record.get("name") or run.directory.name,
        intro=_intro(run, summary),
        lacking=_lacking(run, summary),
        result=comparison.result(run, summary),
        columns={
            "main": comparison.main_columns(run.figure),
            "more": comparison.more_columns(run.figure),
        },
        groups=comparison.groups(run, summary),
        seeds=int(summary.seeds.max()),
        plots=tradeoff.section(summary, run.figure),
        devices=devices(run),
        tickets=levels(run),
        layers=layers.section(sparsity),
        training=curves.section(list(by_variant.values()), run.figure),
        open=_OPEN,
        made=[_made(run, deliveries) for deliveries in by_variant.values()],
        pipeline=json.dumps(run.record.get("pipeline", {}), indent=2, ensure_ascii=False),
        provenance=provenance(run),
        budget=_budget(run),
    )


def _lacking(run: Run, summary: Spread) -> list[str]:
    """What is missing of the run, and what that means for the comparison."""
    lines = run.notes()
    planned = next(iter(run.record["pipeline"]["variants"]), None)
    first = str(summary.means["variant"].iloc[0])
    if lines and planned is not None and planned not in set(summary.means["variant"]):
        lines.append(f"changes and ratios are against {first}, because {planned} is missing")
    return lines


def _by_variant(run: Run) -> dict[str, list[Delivery]]:
    variants: dict[str, list[Delivery]] = {}
    for delivery in run.deliveries:
        variants.setdefault(delivery.variant, []).append(delivery)
    return variants


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _intro(run: Run, summary: Spread) -> str:
    pipeline = run.record.get("pipeline", {})
    model, data = pipeline.get("model", {}), pipeline.get("data", {})
    of = f" of {model['name']} on {data['name']}" if "name" in model and "name" in data else ""
    variants, seeds = summary.means["variant"].nunique(), int(summary.seeds.max())
    return (
        f"{_count(variants, 'variant')}{of}, {_count(seeds, 'seed')}. Every figure was measured on "
        "the exported file it stands beside."
    )


def _budget(run: Run) -> dict[str, Any] | None:
    """The verdicts on the pipeline's own budget."""
    budget = recorded_budget(run)
    if budget is None:
        return None
    verdicts = judge(budget, judged_table(run), by=run.figure)
    return {
        "verdicts": verdicts,
        "line": count_line(verdicts),
        "missing": missing_lines(verdicts),
    }


def _made(run: Run, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """A sentence for each step of a variant, with links to the records of its seeds."""
    steps = []
    first = deliveries[0]
    for place, step in enumerate(first.steps):
        same = [(one.seed, one.steps[place]) for one in deliveries if place < len(one.steps)]
        steps.append(
            {
                "name": step.record["step"],
                "does": describe(step.specification, step.given),
                # Seeds differ in what they remove; the first one's stands for them.
                "found": (f"Seed {first.seed}: " if len(same) > 1 else "")
                + describe_removal(step.record, run.figure)
                if step.record.get("removed")
                else "",
                "seconds": duration(
                    float(np.mean([each.record.get("seconds", np.nan) for _, each in same]))
                ),
                "records": [
                    (seed, comparison.link(run, each.folder / RECORD)) for seed, each in same
                ],
            }
        )
    epochs = sum(step.record.get("epochs", 0) for step in first.steps)
    total = [sum(step.record.get("seconds", 0.0) for step in each.steps) for each in deliveries]
    return {
        "variant": first.variant,
        "steps": steps,
        "sum": f"{_count(epochs, 'epoch')} in all, {duration(float(np.mean(total)))}"
        if steps
        else "no steps: the model as it was given",
    }
