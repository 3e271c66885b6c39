"""TOML of any shape is a pipeline that can be planned, or one line that says what is wrong."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfprune.errors import TfpruneError
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.forecast import Forecast, Probe
from tfprune.pipeline.inputs import check_requirements
from tfprune.pipeline.jobs import plan_jobs
from tfprune.report.budgets import load_budget

BASE: dict[str, Any] = {
    "name": "tiny",
    "formats": ["keras", "tflite"],
    "seeds": [0, 1],
    "data": {"name": "digits", "validation": 0.2, "image_size": [8, 8], "limit": 64},
    "model": {"name": "vgg", "options": {"width": 4, "blocks": [1, 1]}},
    "training": {"batch_size": 32, "learning_rate": 0.05},
    "steps": {
        "dense": {"kind": "train", "epochs": 2, "keep": [1]},
        "sparse": {"kind": "prune", "epochs": 2, "sparsity": 0.75},
        "cut": {"kind": "prune-once", "share": 0.2, "layers": {"logits": 0.1}},
        "learn": {"kind": "learn", "epochs": 1, "strength": 1e-3, "teacher": "dense"},
        "aware": {"kind": "quantize-aware", "epochs": 1, "weights": "int4", "teacher": "dense"},
        "slim": {"kind": "slim", "macs": 0.5, "exclude": ["logits"]},
        "again": {"kind": "retrain", "rewind": "weights", "epoch": 1, "epochs": 2},
        "round": {"kind": "quantize-weights", "bits": 4},
        "int8": {"kind": "quantize", "to": "int8", "images": 20},
        "phone": {"kind": "export", "formats": ["tflite"]},
    },
    "variants": {
        "dense": ["dense"],
        "sparse": ["dense", "sparse", "round", "int8"],
        "aware": ["dense", "aware"],
        "slim": ["dense", "learn", "slim", "phone"],
    },
    "rounds": {"ticket": {"start": ["dense"], "repeat": ["cut", "again"], "times": 2}},
    "sweep": {"sparse": {"sparsity": [0.5, 0.9]}},
    "budget": {
        "rules": [
            {
                "variant": "slim",
                "artifact": "tflite",
                "against": "dense",
                "accuracy": {"max_drop": 0.1},
                "bytes": {"max": "30 KiB"},
            }
        ]
    },
}


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every table, list and value."""
    if not isinstance(node, dict | list):
        return
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*above, key)
        yield from places(value, (*above, key))


PLACES = list(places(BASE))
NAMES = sorted({key for place in PLACES for key in place if isinstance(key, str)})


@dataclasses.dataclass(frozen=True)
class Written:
    """A value as it stands in the file."""

    toml: str = dataclasses.field(repr=False)


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([*NAMES, "", ".", "..", "/", "a/b", "a" * 300, "模型", "x\0.keras", "{x}"]),
    st.sampled_from(["keras", "lasso", "net.keras", "MobileNetV2", "layer", "1e400 GiB", "\r\n"]),
)
scalars = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**32 - 1, 2**32, 10**12, 10**18, -(10**18), 10**400]),
    # Python writes no number of so many digits, so it stands as text.
    st.just(Written("0x" + "f" * 5000)),
    st.floats(),
    st.sampled_from([0.0, -1.0, 1.0, 1.5, 1e300]),
    texts,
    st.datetimes(),
    st.dates(),
    st.times(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """A value as TOML, on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case Written():
            return value.toml
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
    return repr(value)


def changed(place: tuple[Any, ...], value: Any, key: str | None = None) -> str:
    """The good pipeline with another value at a place, or a further key there."""
    document = copy.deepcopy(BASE)
    table: Any = document
    for part in place[:-1]:
        table = table[part]
    if key is not None and isinstance(table[place[-1]], dict):
        table[place[-1]][key] = value
    else:
        table[place[-1]] = value
    return "\n".join(f"{toml(key)} = {toml(value)}" for key, value in document.items())


def _planned_or_one_line(file: Path) -> None:
    try:
        pipeline = load_pipeline(file)
        check_requirements(pipeline, str(file.parent))
    except TfpruneError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 2000
        return
    directory = file.parent / pipeline.name
    tasks = plan_jobs(pipeline, directory, "images")
    assert (Forecast(pipeline, directory, Probe(1.0, 1000)).table(tasks)["state"] == "to do").all()
    for task in tasks:
        assert max(len(part.encode()) for part in task.folder.parts) <= 200


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("toml") / "p.toml"


def test_the_pipeline_that_is_changed_is_good(file):
    file.write_text(changed(("name",), "tiny"))
    pipeline = load_pipeline(file)
    assert "ticket-2" in pipeline.variants
    assert len(plan_jobs(pipeline, file.parent / "x", "images")) > 20


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PLACES), values, st.none() | texts)
@example(("rounds", "ticket", "times"), 1_000_000, None)
@example(("variants", "dense"), [["dense"]], None)
@example(("steps", "sparse", "kind"), ["prune"], None)
@example(("sweep", "sparse", "sparsity"), [], None)
@example(("sweep", "sparse"), {"sparsity": [0.1] * 2}, None)
@example(("model", "options"), {"width": "a"}, None)
@example(("seeds",), [2**32], None)
def test_any_value_anywhere(file, place, value, key):
    file.write_text(changed(place, value, key), encoding="utf-8")
    _planned_or_one_line(file)


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(list(BASE)) | texts, values, max_size=5))
def test_any_table_at_all(file, document):
    lines = [f"{toml(key)} = {toml(value)}" for key, value in document.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    _planned_or_one_line(file)


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([place[1:] for place in PLACES if place[0] == "budget" and place[1:]]), values
)
def test_any_value_in_a_budget(file, place, value):
    text = changed(("budget", *place), value)
    file.write_text(next(line for line in text.splitlines() if line.startswith('"budget"')))
    try:
        load_budget(file)
    except TfpruneError as error:
        assert str(error).isprintable()


@pytest.mark.reliability("pipeline and budget files in any shape", "refused")
@settings(deadline=None, max_examples=80)
@given(st.sampled_from(PLACES), values | st.sampled_from(["[" * 5000, "{a=" * 5000]))
def test_any_setting(file, place, value):
    file.write_text(changed(("name",), "tiny"))
    key = ".".join(str(part) for part in place)
    text = value if isinstance(value, str) else toml(value)
    try:
        load_pipeline(file, [f"{key}={text}"])
    except TfpruneError as error:
        assert len(str(error)) < 2000
