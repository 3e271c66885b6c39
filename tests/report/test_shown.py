"""No list leaves something out: what a step was given and what was measured is shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.report.fake import fake_run
from tfprune.figures import compared, judged
from tfprune.pipeline.steps import KINDS, describe
from tfprune.report import comparison, read_run
from tfprune.report.document import _step
from tfprune.report.html.comparison import main_columns, more_columns
from tfprune.report.run import Step
from tfprune.report.tables import NAMES

# The least that a step of each kind must be given.
LEAST: dict[str, dict[str, Any]] = {
    "train": {"epochs": 4},
    "prune": {"epochs": 4, "sparsity": 0.5},
    "prune-once": {"share": 0.2},
    "quantize-weights": {},
    "rewrite": {},
    "equalize": {},
    "correct-biases": {},
    "learn": {"epochs": 4, "strength": 0.001},
    "slim": {"filters": 0.75},
    "retrain": {"epochs": 4, "rewind": "lr"},
    "cluster": {"epochs": 4},
    "quantize-aware": {"epochs": 4},
}
# Another value than the default of a key, and what must go with it.
OTHER: dict[str, Any] = {
    "teacher": ("dense", {}),
    "groups": ("depth", {}),
    "epoch": (2, {}),
    "keep": ([2], {}),
    "layers": ({"logits": 0.1}, {}),
    "augment": (["flip"], {}),
    "exclude": (["stem"], {}),
    "include": (["stem"], {}),
    "pattern": ("2:4", {}),
    "policy": ("xnnpack", {}),
    "optimizer": ("adamw", {}),
    "schedule": ("constant", {}),
    "importance": ("taylor", {}),
    "scope": ("global", {}),
    "cluster scope": ("channel", {}),
    "correct-biases bits": (4, {}),
    "select": ("random", {}),
    "format": ("tflite-int8", {"filters": None, "latency": 0.6}),
    "threads": (3, {"filters": None, "latency": 0.6}),
    "tolerance": (0.25, {"filters": None, "dead": True}),
    "dead": (True, {"filters": None}),
    "macs": (0.35, {"filters": None, "strength": None}),
    "params": (0.35, {"filters": None, "strength": None}),
    **dict.fromkeys(
        ("latency", "milliseconds"),
        (0.35, {"filters": None, "strength": None, "device": "ethos-u55-128"}),
    ),
    "bytes": (4321, {"filters": None}),
    **dict.fromkeys(
        ("cycles", "sram", "flash"),
        (0.35, {"filters": None, "strength": None, "device": "ethos-u55-128"}),
    ),
    "device": ("ethos-u55-64", {"filters": None, "strength": None, "cycles": 0.6}),
    "device_options": (
        {"memory_mode": "Sram_Only"},
        {"filters": None, "strength": None, "cycles": 0.6, "device": "ethos-u55-128"},
    ),
    "start": ("density", {}),
    "weights": ("int4", {}),
    "activations": ("int16", {}),
    "ranges": ("learnt", {}),
    "range_momentum": (0.875, {}),
    "nesterov": (False, {}),
    "momentum": (0.5, {}),
    "filters": (0.85, {"strength": None}),
    "recalibrate": (99, {}),
    "rewind": ("reinit", {}),
    "warmup_epochs": (0.5, {}),
    "precision": ("mixed_bfloat16", {}),
    "trainable": ("head", {}),
    "clip_norm": (1.25, {}),
    "clip_value": (0.75, {}),
    "early_stopping": (3, {}),
    "early_stopping_on": ("loss", {"early_stopping": 3}),
    "distribution": ("data-parallel", {}),
    "begin": (0.125, {}),
    "end": (0.875, {}),
    "frequency": (7, {}),
}
# What sentences say in words instead of in the key's own.
SAID = {
    "importance": "taylor",
    "optimizer": "adamw",
    "schedule": "constant schedule",
    "select": "by chance",
    "scope": "all layers together",
    "cluster scope": "weights of each channel",
    "values": "17 values",
    "sram": "35% of the on-chip memory",
    "flash": "35% of the storage",
    "device": "as estimated for ethos-u55-64",
    "rewind": "anew",
    "groups": "over residual branches",
    "dead": "contribute nothing",
    "teacher": "taught by dense",
    "augment": "augmented by flip",
    "layers": "10% in logits",
    "bits": "63 values",
    "correct-biases bits": "weights of 4 bits",
    "epochs": "5 epochs",
    "sparsity": "60%",
    "share": "30%",
    "epoch": "epoch 2",
    "warmup_epochs": "first 0.5",
    "begin": "12%",
    "end": "88%",
    "bytes": "4,321 bytes",
    "milliseconds": "0.35 ms",
    "latency": "35% of the measured latency",
    "macs": "35% of the MACs",
    "params": "35% of the parameters",
    "filters": "85% of the filters",
    "strength": "strength 0.101",
    "learning_rate": "learning rate 0.2",
    "batch_size": "batches of 129",
    "weight_decay": "weight decay 0.1",
    "round_to": "multiples of 2",
    "teacher_weight": "60%",
    "precision": "computed in mixed_bfloat16",
    "trainable": "the head alone",
    "clip_norm": "gradients clipped to a norm of 1.25",
    "clip_value": "gradients clipped to entries of 0.75",
    "early_stopping": "has not improved for 3 epochs",
    "early_stopping_on": "validation loss has not improved",
    "distribution": "each batch shared among the GPUs",
}

FIELDS = [
    (kind, field)
    for kind, table in KINDS.items()
    if kind in LEAST
    for field in table.model_fields
    if field != "kind"
]


def _given(kind: str, field: str) -> Step:
    """A step that was given a key, as its record tells it."""
    table = KINDS[kind]
    said = {"kind": kind, **LEAST[kind]}
    if field in OTHER or f"{kind} {field}" in OTHER:
        value, beside = OTHER.get(f"{kind} {field}") or OTHER[field]
        said |= beside
    else:
        value = said.get(field, table.model_fields[field].default)
        value = value + (0.1 if isinstance(value, float) else 1)
    said = {
        key: each
        for key, each in (said | {field: value}).items()
        if each is not None and key in table.model_fields
    }
    if field == "teacher_weight" or field == "temperature":
        said["teacher"] = "dense"
    if kind == "slim" and field == "scope":
        said |= {"importance": "l1"}
    step = table.model_validate(said)
    return Step(
        None,  # type: ignore[arg-type]
        {
            "step": "it",
            "specification": step.model_dump(mode="json"),
            "set": sorted(step.model_dump(exclude_defaults=True)),
        },
    )


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_markdown_shows_every_key_that_a_step_was_given(kind, field):
    step = _given(kind, field)
    assert f"{field} " in _step(step, {})
    # An older record does not say which keys were given: then it is every one that says something.
    if field != "nesterov":
        older = Step(step.folder, {**step.record, "set": None})
        assert f"{field} " in _step(older, {})


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_the_page_tells_every_key_that_a_step_was_given(kind, field):
    step = _given(kind, field)
    told = describe(step.specification, step.given)
    assert f"{field} " in told or SAID.get(f"{kind} {field}", SAID.get(field, "?")) in told, told


def test_every_figure_of_the_comparison_has_a_column_and_a_unit(tmp_path):
    figures = [each for each in comparison(read_run(fake_run(tmp_path))) if each not in NAMES]
    assert figures == [each.name for each in compared()]
    assert set(figures) <= {column.name for column in main_columns() + more_columns()}
    # What a budget judges is what is compared.
    assert {each.name for each in judged()} <= set(figures)
