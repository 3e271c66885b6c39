"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfprune.pipeline.steps import describe
from tfprune.report.budgets import figures, judge, recorded_budget, verdicts
from tfprune.report.html import cells, density, plots, words
from tfprune.report.html import tickets as levels
from tfprune.report.html.chains import Chain, chain
from tfprune.report.html.chance import interval, standard_error
from tfprune.report.html.curves import curves, limits
from tfprune.report.html.pareto import pareto_front
from tfprune.report.html.provenance import provenance
from tfprune.report.run import Delivery, Run
from tfprune.report.summary import Spread, spread
from tfprune.report.tables import is_measured
from tfprune.report.tickets import tickets, tickets_in_words, tickets_over_seeds

# So many variants are shown at once; the others are folded, so that a sweep can be read.
_OPEN = 8
_COLUMNS = 8


def page(run: Run, table: pd.DataFrame, layers: pd.DataFrame) -> str:
    """The report.

    Args:
        run: what `read_run` read.
        table: its table of `planned`.
        layers: its `layer_sparsity`.

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
    this = spread(table[is_measured(table)])
    template = environment.get_template("report.html.j2")
    return template.render(
        name=run.record.get("name") or run.directory.name,
        intro=_intro(run, this),
        lacking=_lacking(run, this),
        result=_result(run, this),
        columns={"main": cells.MAIN, "more": cells.MORE},
        groups=cells.groups(run, this),
        seeds=int(this.seeds.max()),
        plots=_plots(this),
        tickets=_tickets(run),
        layers=_layers(layers),
        training=_training(run),
        open=_OPEN,
        made=[_made(run, deliveries) for deliveries in _by_variant(run).values()],
        pipeline=json.dumps(run.record.get("pipeline", {}), indent=2, ensure_ascii=False),
        provenance=provenance(run),
        budget=_budget(run),
    )


def _lacking(run: Run, this: Spread) -> list[str]:
    """What the run plans and does not have, and what that does to the comparison."""
    lines = run.notes()
    planned = next(iter(run.record["pipeline"]["variants"]), None)
    first = str(this.means["variant"].iloc[0])
    if lines and planned is not None and planned not in set(this.means["variant"]):
        lines.append(f"changes and ratios are against {first}, because {planned} is missing")
    return lines


def _by_variant(run: Run) -> dict[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = {}
    for delivery in run.deliveries:
        found.setdefault(delivery.variant, []).append(delivery)
    return found


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _intro(run: Run, this: Spread) -> str:
    pipeline = run.record.get("pipeline", {})
    model, data = pipeline.get("model", {}), pipeline.get("data", {})
    of = f" of {model['name']} on {data['name']}" if "name" in model and "name" in data else ""
    variants, seeds = this.means["variant"].nunique(), int(this.seeds.max())
    return (
        f"{_count(variants, 'variant')}{of}, {_count(seeds, 'seed')}. Every figure was measured on "
        "the exported file it stands beside."
    )


def _result(run: Run, this: Spread) -> dict[str, Any]:
    """The first variant's accuracy, and what each other one changes, in one format."""
    form = cells.headline(this.means)
    first = str(this.means["variant"].iloc[0])
    # A variant that is delivered in other formats only is told in the first of them.
    ranked = this.means.assign(other=this.means["artifact"] != form)
    rows = ranked.sort_values("other", kind="stable").drop_duplicates("variant").sort_index()
    base = rows.to_dict("records")[0]
    images = cells.test_images(run).get((first, form))
    others = rows[rows["variant"] != first]
    chosen = others
    if len(others) > _OPEN:
        # Of a sweep, the variants that none beats: smallest first, the most accurate of them kept.
        front = pareto_front(others["bytes_gzip"], others["accuracy"])
        chosen = others[front].sort_values("bytes_gzip").tail(_OPEN)
    result: dict[str, Any] = {
        "first": first,
        "form": form,
        "accuracy": words.percent_exact(base["accuracy"]),
        "seeds": int(this.seeds[rows.index].iloc[0]),
        "alike": not rows["other"].any(),
        "images": images,
        "changes": [
            (
                str(row["variant"]),
                (f"as {row['artifact']}: " if row["other"] else "") + words.against(row, base),
            )
            for row in chosen.to_dict("records")
        ],
        "others": len(others),
    }
    if images:
        low, high = interval(base["accuracy"], images)
        result |= {
            "low": f"{low:.1%}",
            "high": f"{high:.1%}",
            "error": f"{100 * standard_error(base['accuracy'], images):.2f}",
        }
    return result


def _budget(run: Run) -> dict[str, Any] | None:
    """What became of the pipeline's own budget."""
    budget = recorded_budget(run)
    if budget is None:
        return None
    judged = judge(budget, figures(run))
    return {
        "verdicts": judged,
        "line": verdicts.count_line(judged),
        "missing": verdicts.missing_lines(judged),
    }


def _plots(this: Spread) -> dict[str, Any]:
    looks = plots.formats(this.means)
    drawn = [each for cost in plots.COSTS if (each := plots.tradeoff(this, cost))]
    shown = {each.cost.column for each in drawn}
    return {
        "looks": [(name, *plots.key(place)) for place, name in enumerate(looks)],
        "drawn": drawn,
        "missing": [cost.title for cost in plots.COSTS if cost.column not in shown],
    }


def _tickets(run: Run) -> dict[str, Any] | None:
    """The levels of a run that prunes in rounds."""
    table = tickets(run)
    if not len(table):
        return None
    over = tickets_over_seeds(table)
    shown = tickets_in_words(over)
    return {
        "looks": levels.looks(over),
        "drawn": levels.drawn(over),
        "seeds": int(over["seeds"].max()),
        "dense": bool((over["level"] == 0).any()),
        "columns": list(shown.columns[2:]),
        "methods": [
            (method, [(row[1], row[2:]) for row in rows.itertuples(index=False)])
            for method, rows in shown.groupby("method", sort=False)
        ],
    }


def _layers(layers: pd.DataFrame) -> dict[str, Any]:
    table = density.densities(layers)
    variants = [str(each) for each in table["variant"].unique()]
    by_place = {
        (row["variant"], row["layer"], row["weight"]): row for row in table.to_dict("records")
    }
    rows = []
    for layer, weight in table[["layer", "weight"]].drop_duplicates().itertuples(index=False):
        found = [by_place.get((variant, layer, weight)) for variant in variants]
        rows.append(
            {
                "name": density.name(layer, weight),
                "total": layer == "total" and not weight,
                "size": f"{found[0]['size']:,.0f}" if found[0] else "",
                "cells": [_density(row) for row in found],
            }
        )
    return {
        "variants": variants,
        "slimmer": bool((table["kept"] < 1).any()),
        # A table side by side with all variants of a sweep fits neither a screen nor a sheet.
        "tables": [
            range(begin, min(begin + _COLUMNS, len(variants)))
            for begin in range(0, len(variants), _COLUMNS)
        ],
        "rows": sorted(rows, key=lambda row: bool(row["total"])),
        "figures": [
            (variant, density.bars(table, variant, f"density-{place}"))
            for place, variant in enumerate(variants)
            if place
        ],
    }


def _density(row: Any) -> dict[str, Any]:
    if row is None:
        return {"text": "\N{EN DASH}", "kept": "", "left": None}
    kept = "" if pd.isna(row["kept"]) or row["kept"] == 1 else f"{row['kept']:.0%} kept"
    left = None if pd.isna(row["left"]) else round(min(1.0, row["left"]), 3)
    return {"text": words.percent(row["density"]), "kept": kept, "left": left}


def _training(run: Run) -> dict[str, Any]:
    chains = [chain(deliveries) for deliveries in _by_variant(run).values()]
    trained = [each for each in chains if each.epochs]
    shared = limits(trained) if trained else None
    return {
        "figures": [
            (each, _steps_line(each), curves(each, shared, f"training-{place}"))
            for place, each in enumerate(trained)
            if shared
        ],
        "untrained": [each.variant for each in chains if not each.epochs],
        "removals": any(each.removals for each in trained),
        "zeros": bool(shared and shared.sparsity),
    }


def _steps_line(each: Chain) -> str:
    return ", ".join(
        f"{number} {stretch.step}" for number, stretch in enumerate(each.stretches, start=1)
    )


def _made(run: Run, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """A variant's chain in words, its seeds' records beside each step."""
    steps = []
    first = deliveries[0]
    for place, step in enumerate(first.steps):
        same = [(each.seed, each.steps[place]) for each in deliveries if place < len(each.steps)]
        steps.append(
            {
                "name": step.record["step"],
                "does": describe(step.specification, step.given),
                # Seeds differ in what they remove; the first one's stands for them.
                "found": (f"Seed {first.seed}: " if len(same) > 1 else "")
                + words.removed(step.record)
                if step.record.get("removed")
                else "",
                "seconds": words.seconds(
                    float(np.mean([each.record.get("seconds", np.nan) for _, each in same]))
                ),
                "records": [
                    (seed, cells.link(run, each.folder / "record.json")) for seed, each in same
                ],
            }
        )
    epochs = sum(step.record.get("epochs", 0) for step in first.steps)
    total = [sum(step.record.get("seconds", 0.0) for step in each.steps) for each in deliveries]
    return {
        "variant": first.variant,
        "steps": steps,
        "sum": f"{_count(epochs, 'epoch')} in all, {words.seconds(float(np.mean(total)))}"
        if steps
        else "no steps: the model as it was given",
    }
