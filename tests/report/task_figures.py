"""Figures that tasks are compared by, and finished runs whose records hold another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfprune.figures import ACCURACY, Figure, from_record, to_record


def _figure(name: str, title: str, better: str, unit: str = "", **more: Any) -> Figure:
    return from_record({"name": name, "title": title, "better": better, "unit": unit, **more})


MEAN_IOU = _figure("mean_iou", "mean IoU", "higher", "%", digits=2, meaning="mean of all classes")
MAE = _figure("mae", "MAE", "lower", "mm")
AUC = _figure("auc", "AUC", "higher", digits=4)
LOSS = _figure("loss", "loss", "lower")
TOP_5 = _figure("top_5", "top-5 share", "higher", "%", digits=2, proportion=True)
R2 = _figure("r2", "R²", "higher")
ERROR = _figure("error", "error", "lower", "%", digits=2, proportion=True, loss_unit="nats")

TASKS = {row.name: row for row in (MEAN_IOU, MAE, AUC, LOSS, TOP_5, R2, ERROR)}


def as_task(
    run: Path, to: Path, by: Figure, value: Callable[[float], float] = lambda share: share
) -> Path:
    """A copy of a run of classification whose records are those of another task.

    Args:
        run: its directory.
        to: the copy.
        by: what the copy is compared by.
        value: from an accuracy to the figure, wherever records have one.
    """
    shutil.copytree(run, to)

    def changed(table: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
        """The same keys, and the figure under its own name with its own values."""
        # Of a task that is compared by the loss there is one loss.
        kept = {key: content for key, content in table.items() if key not in (old, new)}
        return kept | {new: _mapped(table[old], value)} if old in table else dict(table)

    for path in to.rglob("record.json"):
        record = changed(
            json.loads(path.read_text()), "validation_accuracy", f"validation_{by.name}"
        )
        if "artifacts" in record:
            record["task"] = to_record(by)
            record["artifacts"] = [
                changed(artifact, "accuracy", by.name) for artifact in record["artifacts"]
            ]
        if record.get("history"):
            history = record["history"]
            if by.name == "loss":
                history = {key: each for key, each in history.items() if "loss" not in key}
            history = changed(history, "accuracy", by.name)
            record["history"] = changed(history, "val_accuracy", f"val_{by.name}")
        path.write_text(json.dumps(record))
    assert by == ACCURACY or '"accuracy"' not in "".join(
        path.read_text() for path in to.rglob("record.json")
    )
    return to


def _mapped(content: Any, value: Callable[[float], float]) -> Any:
    if isinstance(content, Mapping):
        return {key: _mapped(each, value) for key, each in content.items()}
    if isinstance(content, list):
        return [_mapped(each, value) for each in content]
    return None if content is None else value(content)
