"""What is true of every kind of step, and of a kind that is added."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests.report.fake import PRUNE, SLIM, TRAIN
from tfprune.pipeline import Pipeline
from tfprune.pipeline.steps import KINDS, Step, describe


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        (
            TRAIN,
            "trains 4 epochs at learning rate 0.05, sgd, cosine schedule, batches of 64, "
            "the first 1 to warm up, weight decay 0.001, augmented by flip",
        ),
        (
            PRUNE,
            "sets 80% of the weights of every layer to zero, from 0% to 50% of its training; "
            "trains 4 epochs at learning rate 0.05, sgd, cosine schedule, batches of 64, "
            "weight decay 0.001, augmented by flip",
        ),
        (SLIM, "removes channels until 50% of the MACs are left, the least important by l2 first"),
        (
            SLIM | {"macs": None, "dead": True, "round_to": 8},
            "removes all channels that contribute nothing, the least important by l2 first, "
            "in multiples of 8",
        ),
        (
            {
                "kind": "prune-once",
                "share": 0.2,
                "scope": "layer",
                "select": "magnitude",
                "layers": {"logits": 0.1},
            },
            "sets 20% of the living weights of every layer to zero, the smallest; 10% in logits",
        ),
        (
            {"kind": "quantize-weights", "bits": 5},
            "rounds the weights of each output channel to 31 values",
        ),
        (
            TRAIN | {"kind": "retrain", "rewind": "weights", "epoch": 2, "warmup_epochs": 0},
            "puts the living weights back to epoch 2 and replays from there, its zeros held; "
            "trains 4 epochs at learning rate 0.05, sgd, cosine schedule, batches of 64, "
            "weight decay 0.001, augmented by flip",
        ),
        (
            TRAIN | {"kind": "retrain", "rewind": "random", "epoch": 0},
            "draws anew which weights of each tensor live, and the weights, its zeros held; "
            "trains 4 epochs at learning rate 0.05, sgd, cosine schedule, batches of 64, "
            "the first 1 to warm up, weight decay 0.001, augmented by flip",
        ),
        ({"kind": "rewind", "to": 3, "masks": None}, "rewind: to 3"),
        ({"kind": "slim", "quite": "other"}, "slim: quite other"),
        ({}, "step"),
    ],
)
def test_a_step_is_told_with_its_parameters(specification, said):
    assert describe(specification) == said


def test_a_former_name_of_a_kind_is_told_as_the_kind():
    assert describe({"kind": "round", "bits": 3}) == (
        "rounds the weights of each output channel to 7 values"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sentence_of_its_own(kind):
    assert KINDS[kind].describe is not Step.describe
    assert KINDS[kind].perform is not Step.perform
    assert (KINDS[kind].__doc__ or "").rstrip().endswith(".")


def test_a_kind_that_comes_after_the_tables_is_refused():
    assert Pipeline.model_fields
    with pytest.raises(TypeError, match="the step kind 'late' comes too late: import tests"):

        class LateStep(Step):
            kind: Literal["late"]

    assert "late" not in KINDS


HALVE = '''
"""Everything about a kind of step."""

from typing import Annotated, Literal

from pydantic import Field

from tfprune.pipeline.steps import Step


class ScaleStep(Step):
    """Multiplies all weights of the layers whose name begins with a word."""

    kind: Literal["multiply"]
    factor: Annotated[float, Field(gt=0, le=1, description="of each weight")] = 0.5
    where: str = ""

    def perform(self, model, context):
        chosen = [layer for layer in model.layers if layer.name.startswith(self.where)]
        for layer in chosen:
            layer.set_weights([self.factor * weight for weight in layer.get_weights()])
        return model, {"scaled": len(chosen), **context.validated(scaled=model)}

    def describe(self):
        return f"multiplies all weights by {self.factor:g}"
'''
PIPELINE = """
name = "toy"
formats = ["keras"]
[data]
name = "digits"
limit = 64
[model]
name = "vgg"
options = { width = 4, blocks = [1] }
[steps.dense]
kind = "train"
epochs = 1
[steps.half]
kind = "multiply"
where = "logits"
[variants]
dense = ["dense"]
half = ["dense", "half"]
"""


@pytest.mark.slow
def test_a_kind_is_added_by_one_file(tmp_path):
    """The schema, the check, the forecast, the run and the report know it from its class alone."""
    (tmp_path / "halve.py").write_text(HALVE)
    (tmp_path / "toy.toml").write_text(PIPELINE)

    def tfprune(*words: str) -> str:
        code = "from tfprune.cli import main; main()"
        command = [sys.executable, "-c", code, *words, "--import", "halve.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    schema = json.loads(tfprune("pipeline", "schema"))
    assert schema["$defs"]["ScaleStep"]["properties"]["factor"]["description"] == "of each weight"
    assert "2 variants (dense, half)" in tfprune("pipeline", "check", "toy.toml")
    assert "half (multiply)" in tfprune("run", "toy.toml", "--dry-run")
    tfprune("run", "toy.toml")
    (record,) = (tmp_path / "saved_models" / "toy").glob("steps/half-*/record.json")
    found = json.loads(record.read_text())
    assert found["scaled"] == 1
    assert found["specification"] == {"kind": "multiply", "factor": 0.5, "where": "logits"}
    page = Path(record.parents[2] / "report.html").read_text()
    assert "multiplies all weights by 0.5 (where logits)" in page
    plain = [sys.executable, "-c", "from tfprune.cli import main; main()", "run", "toy.toml"]
    done = subprocess.run(plain, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "steps.half.kind = 'multiply' is unknown: choose one of train, " in done.stderr
