"""The schema that editors use says what `load_pipeline` takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tfprune.pipeline import json_schema

jsonschema = pytest.importorskip("jsonschema")
PIPELINES = Path(__file__).parents[2] / "pipelines"


def _mistakes(document: dict) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_the_committed_schema_is_that_of_the_code():
    text = (PIPELINES / "schema.json").read_text()
    assert json.loads(text) == json_schema(), (
        "run `tfprune pipeline schema > pipelines/schema.json`"
    )


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_pipelines_agree_and_name_it(path):
    text = path.read_text()
    assert text.startswith("#:schema schema.json\n")
    assert _mistakes(tomllib.loads(text)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "train"', 'kind = "trian"'),
        ("sparsity = 0.8", "sparsity = 1.8"),
        ("sparsity = 0.8", "sparsty = 0.8"),
        ("batch_size = 64", "batch_size = 0"),
        ("batch_size = 64", "batchsize = 64"),
        ('name = "digits"', "name = 3"),
        ("seeds = [0]", "seeds = []"),
        ('"tflite"', '"tflight"'),
    ],
)
def test_a_mistake_is_marked(old, new):
    text = (PIPELINES / "digits.toml").read_text()
    assert old in text
    assert _mistakes(tomllib.loads(text.replace(old, new, 1))) != []
