"""Slims every classifier of `keras.applications`, and checks what is promised of the result.

Each model gets random weights, statistics of random images, and logits in place of a softmax, which
would hide differences. It is slimmed to half of its filters and to half of its MACs. Each slim
model is run, saved, loaded and run again, and compared with the original whose readers of the
removed channels are zero. A process of its own does each model, and its row is kept as soon as it
is there: started again, only models without a row are done.

    python -m benchmarks.applications
"""

from __future__ import annotations

import inspect
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pandas as pd

from tfprune.files import read_json, write_json, write_text
from tfprune.pipeline import provenance

TOLERANCE = 1e-4
MACS = 0.52
EXPLAINED = f"""\
Random weights, {{size}} x {{size}} x 3 inputs, 1,000 classes. Half of the filters:
`slim(filters=0.5)`; half of the MACs: `slim(macs=0.5)`, which has to end at {MACS} or less.
Difference: of the logits of the slim model and of the original with the removed channels' readers
zeroed, the larger of both targets, relative to the largest logit, at most {TOLERANCE:g}; where a
layer does not allow that, the plan says so beforehand and the difference is not asked for. Frozen:
layers of which no channel can go, the last one counted. Seconds: of the processor, for planning
and rebuilding to half of the filters, beside what `from_config` of the whole model takes; the clock
would also measure what else the machine does.
"""


def classifiers() -> dict[str, Any]:
    """Every classifier of `keras.applications`, by name."""
    import keras

    return dict(inspect.getmembers(keras.applications, inspect.isfunction))


def built(name: str, size: int) -> Any:
    """A classifier with weights and statistics that matter."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    model = classifiers()[name](
        weights=None, input_shape=(size, size, 3), classes=1000, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("bias", "beta"):
            variable.assign(rng.normal(scale=0.1, size=shape))
        elif variable.name == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, shape))
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images(size, 8), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def images(size: int, count: int) -> Any:
    """Random pictures of 0 to 255, float32 (count, size, size, 3)."""
    import numpy as np

    shape = (count, size, size, 3)
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def slimmed(model: Any, x: Any, **target: float) -> dict[str, Any]:
    """What becomes of a model with one target, and whether it keeps what is promised."""
    import keras
    import numpy as np

    import tfprune
    from tests.filters.harness import silenced

    begun = time.process_time()
    plan = tfprune.plan(model, **target)
    planned = time.process_time()
    slim = tfprune.filters.rebuild(plan)
    rebuilt = time.process_time()
    answer = np.asarray(slim(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slim.keras")
        slim.save(path)
        again = np.asarray(keras.saving.load_model(path)(x, training=False))
    row = {
        "params": slim.count_params(),
        "macs": tfprune.macs(slim),
        "plan_seconds": planned - begun,
        "rebuild_seconds": rebuilt - planned,
        "finite": bool(np.isfinite(answer).all()),
        "reloads": bool((answer == again).all()),
        "inexact": plan.inexact,
        "difference": None,
    }
    del slim
    if not plan.inexact:
        with silenced(plan.groups, plan.alive, {"input"}):
            masked = np.asarray(model(x, training=False))
        row["difference"] = float(np.abs(answer - masked).max() / np.abs(masked).max())
    return row


def measured(name: str, size: int) -> dict[str, Any]:
    """The row of one classifier."""
    import tfprune

    begun = time.perf_counter()
    model = built(name, size)
    x = images(size, 2)
    groups = tfprune.channel_groups(model)
    config = model.get_config()
    before = time.process_time()
    twin = type(model).from_config(config)
    from_config = time.process_time() - before
    del twin, config
    row: dict[str, Any] = {
        "size": size,
        "params": model.count_params(),
        "macs": tfprune.macs(model),
        "groups": len(groups),
        "removable_groups": sum(bool(group.removable.any()) for group in groups),
        "frozen": {
            path: reason
            for path, reason in groups.frozen.items()
            if groups.fixed[groups.producers[path]].all()
        },
        "makers": len(groups.producers),
        "from_config_seconds": from_config,
        "filters": slimmed(model, x, filters=0.5),
    }
    row["macs_target"] = slimmed(model, x, macs=0.5)
    row["seconds"] = time.perf_counter() - begun
    row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def problems(row: dict[str, Any]) -> list[str]:
    """What a row breaks of what is promised."""
    if "error" in row:
        return [row["error"]]
    found = []
    if row["macs_target"]["macs"] > MACS * row["macs"]:
        found.append(f"{row['macs_target']['macs'] / row['macs']:.3f} of the MACs are left")
    for target in ("filters", "macs_target"):
        part = row[target]
        if not part["finite"]:
            found.append(f"{target}: not finite")
        if not part["reloads"]:
            found.append(f"{target}: another answer after saving and loading")
        if part["difference"] is not None and not part["difference"] <= TOLERANCE:
            found.append(f"{target}: differs by {part['difference']:.1e}")
    return found


def table(rows: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The rows as people read them."""

    def line(name: str, row: dict[str, Any]) -> dict[str, str]:
        if "error" in row:
            return {"model": name, "holds": row["error"]}
        half, macs = row["filters"], row["macs_target"]
        differences = [each["difference"] for each in (half, macs)]
        known = [each for each in differences if each is not None]
        return {
            "model": name,
            "params": f"{row['params'] / 1e6:.2f} M",
            "MACs": f"{row['macs'] / 1e6:,.0f} M",
            "half of filters: params": f"{half['params'] / row['params']:.3f}",
            "MACs ": f"{half['macs'] / row['macs']:.3f}",
            "half of MACs: params": f"{macs['params'] / row['params']:.3f}",
            "MACs  ": f"{macs['macs'] / row['macs']:.3f}",
            "groups": f"{row['removable_groups']} of {row['groups']}",
            "frozen": f"{len(row['frozen'])} of {row['makers']}",
            "difference": f"{max(known):.1e}" if known else "inexact",
            "plan s": f"{half['plan_seconds']:.2f}",
            "rebuild s": f"{half['rebuild_seconds']:.2f}",
            "from_config s": f"{row['from_config_seconds']:.2f}",
            "holds": "; ".join(problems(row)) or "yes",
        }

    return pd.DataFrame([line(name, rows[name]) for name in sorted(rows)]).fillna("")


def reasons(rows: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Why layers are frozen: each kind of reason, how often, and in which models."""
    counts: Counter[str] = Counter()
    models: dict[str, list[str]] = {}
    for name, row in sorted(rows.items()):
        for reason in row.get("frozen", {}).values():
            # Reasons begin with the name of a layer, of which there are many.
            first, _, rest = reason.partition(" ")
            kind = reason if first in ("it", "the") else f"... {rest}"
            counts[kind] += 1
            models[kind] = [*dict.fromkeys([*models.get(kind, []), name])]
    lines = [
        {
            "layers": count,
            "reason": kind,
            "models": len(models[kind]) if len(models[kind]) > 6 else ", ".join(models[kind]),
        }
        for kind, count in counts.most_common()
    ]
    return pd.DataFrame(lines)


def report(document: dict[str, Any]) -> str:
    """The page of the results."""
    rows = document["rows"]
    bad = {name: found for name, row in sorted(rows.items()) if (found := problems(row))}
    size = " or ".join(str(each) for each in sorted({row.get("size", 0) for row in rows.values()}))
    inexact = [
        name for name, row in rows.items() if "error" not in row and row["filters"]["inexact"]
    ]
    facts = {key: document[key] for key in ("command", "commit", "versions", "machine")}
    parts = [
        "# Every classifier of keras.applications, slimmed",
        EXPLAINED.format(size=size).strip(),
        f"{len(rows)} models, {len(rows) - len(bad)} keep what is promised; "
        f"{len(inexact)} declared inexact: {', '.join(sorted(inexact)) or 'none'}.",
        table(rows).to_markdown(index=False),
        "## Why layers are frozen",
        reasons(rows).to_markdown(index=False),
        "## How this was made",
        f"```json\n{json.dumps(facts, indent=2)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--size", default=96, show_default=True, help="Height and width of the pictures.")
@click.option("--again", is_flag=True, help="Do models that have a row already, too.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/applications")
)
@click.option("--row", type=click.Path(path_type=Path), hidden=True)
def applications(
    names: tuple[str, ...], size: int, again: bool, output: Path, row: Path | None
) -> None:
    """Slim the models NAMES, or all; exit 1 where one breaks what is promised."""
    if row is not None:
        write_json(row, measured(names[0], size))
        return
    results = output.with_suffix(".json")
    document = read_json(results) if results.exists() else {"rows": {}}
    rows = document["rows"]
    for name in names or classifiers():
        if name in rows and "error" not in rows[name] and not again:
            continue
        click.echo(f"{name} ...", err=True)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "row.json")
            worker = [sys.executable, "-m", "benchmarks.applications", name]
            done = subprocess.run(
                [*worker, "--size", str(size), "--row", str(place)],
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode == 0:
                # Of this process, which asked before it wrote: a worker would see its results.
                rows[name] = {"commit": provenance.commit(), **read_json(place)}
            else:
                said = [line for line in done.stderr.splitlines() if line.strip()]
                rows[name] = {"error": said[-1] if said else f"exit {done.returncode}"}
        click.echo(f"{name}: {'; '.join(problems(rows[name])) or 'yes'}", err=True)
        document = {
            "command": "python -m benchmarks.applications",
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "rows": rows,
        }
        write_json(results, document)
        write_text(output.with_suffix(".md"), report(document))
    sys.exit(any(problems(each) for each in rows.values()))


if __name__ == "__main__":
    applications()
