"""A step that delivers says in which precision, and what it needs for that."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.jobs import plan_jobs
from tfprune.pipeline.steps.files import ExportStep

KEPT = {"formats": ["tflite-int8"], "keep": {"logits": "float32"}}


def export(**given: Any) -> ExportStep:
    return ExportStep(kind="export", **given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": ["tflite"], "keep": {"a": "int16"}}, "keep is for tflite-int8 and c-array"),
        ({"formats": ["tflite-int8"], "keep": {"a": "int4"}}, "'float32' or 'int16'"),
        ({"formats": ["tflite-recipe"]}, "recipe and the format tflite-recipe go together"),
        ({"formats": ["tflite"], "recipe": "static_wi8_ai8"}, "go together: give both, or neith"),
    ],
)
def test_options_have_their_formats(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        export(**options)


def test_it_says_what_it_delivers() -> None:
    assert export(**KEPT).describe() == "exports tflite-int8, logits in float32"
    by_recipe = export(formats=["tflite-recipe"], recipe="dynamic_wi4_afp32")
    assert by_recipe.describe() == "exports tflite-recipe by dynamic_wi4_afp32"
    assert export(formats=["tflite"]).delivery_options == {}
    assert export(**KEPT).delivery_options == {"keep": {"logits": "float32"}}


def test_what_it_needs_is_checked_before_any_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TfpruneError, match=r"nowhere\.json"):
        export(formats=["tflite-recipe"], recipe="nowhere.json").check_installed()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[quantizer\]'"):
        export(**KEPT).check_installed()


def delivery(tmp_path: Path, **given: Any) -> str:
    """The identity of the delivery of a pipeline."""
    pipeline = Pipeline.model_validate(
        {
            "name": "kept",
            "data": {"name": "digits"},
            "model": {"name": "conv2"},
            "steps": {
                "dense": {"kind": "train", "epochs": 1},
                "out": {"kind": "export", "formats": ["tflite-int8", "tflite-recipe"], **given},
            },
            "variants": {"dense": ["dense", "out"]},
        }
    )
    jobs = plan_jobs(pipeline, tmp_path, "data")
    (found,) = [job.identity for job in jobs if job.kind == "delivery"]
    return found


def test_a_delivery_is_another_one_by_its_precision_and_by_what_its_recipe_says(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([]))
    plain = delivery(tmp_path, recipe=str(path))
    assert plain == delivery(tmp_path, recipe=str(path))
    assert plain != delivery(tmp_path, recipe=str(path), keep={"logits": "int16"})
    path.write_text("[ ]")
    assert plain != delivery(tmp_path, recipe=str(path))


def test_a_recipe_needs_a_step_of_its_own() -> None:
    with pytest.raises(ValidationError, match="formats has tflite-recipe, which needs a recipe"):
        Pipeline.model_validate(
            {
                "name": "kept",
                "formats": ["tflite-recipe"],
                "data": {"name": "digits"},
                "model": {"name": "conv2"},
                "steps": {"dense": {"kind": "train", "epochs": 1}},
                "variants": {"dense": ["dense"]},
            }
        )
