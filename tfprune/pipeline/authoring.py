"""What helps to write a pipeline file: one to begin with, and the JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfprune.errors import UsageError
from tfprune.files import write_text
from tfprune.model.reference import find_model
from tfprune.pipeline.inputs import check_data
from tfprune.pipeline.spec import DataSpec, ModelSpec, Pipeline
from tfprune.pipeline.steps import KINDS
from tfprune.pipeline.steps.training import TrainingStep

_TEMPLATE = """\
# {data}: a dense {model}, weight pruning, filter pruning.
name = "{name}"
seeds = [0]
formats = ["keras", "savedmodel", "tflite", "tflite-int8"]

[data]
name = "{data}"     # of tensorflow-datasets, or digits, which is built in
validation = 0.1    # share held out of the train split; all choices look at it alone

[model]
name = "{model}"    # of the zoo, of keras.applications, a .keras file, or FILE.py:FUNCTION

# What all steps that train have in common; a step's own keys win.
[training]
batch_size = 128
weight_decay = 1e-3

[steps.dense]
kind = "train"
epochs = 20
learning_rate = {rate}
warmup_epochs = 1

# 80 % of the weights become zero during the first half of this training.
[steps.sparse]
kind = "prune"
sparsity = 0.8
scope = "global"
epochs = 20
learning_rate = {rate}
warmup_epochs = 1

# Group lasso shows which channels can go; then half of the multiply-accumulates are removed.
[steps.lasso]
kind = "learn"
strength = 5e-3
epochs = 6
learning_rate = {half}
weight_decay = 0.0

[steps.slim]
kind = "slim"
macs = 0.5
importance = "lasso"

[steps.finetune]
kind = "train"
epochs = 20
learning_rate = {rate}
warmup_epochs = 1

[variants]
dense = ["dense"]
weights-80 = ["dense", "sparse"]
filters-50 = ["dense", "lasso", "slim", "finetune"]
"""


def new_pipeline(file: Path, *, data: str = "digits", model: str = "vgg") -> Path:
    """Writes a pipeline file that runs as it is.

    Args:
        file: where; its stem becomes the name of the run.
        data: a data set.
        model: a model.

    Returns:
        The path.

    Raises:
        UsageError: the file exists, its name does not end in .toml, or the model or the data
            set is unknown.
        TfpruneError: it cannot be written.
    """
    if file.suffix != ".toml":
        raise UsageError(f"{file} does not end in .toml: name the file {file.stem}.toml")
    if file.exists():
        raise UsageError(f"{file} exists already: choose another name, or delete it first")
    find_model(model)
    check_data(DataSpec(name=data))
    spec = ModelSpec(name=model)
    rate = 0.02 if spec.reference.pretrained else 0.05
    text = _TEMPLATE.format(
        data=DataSpec(name=data).name,
        model=spec.name,
        name=file.stem,
        rate=rate,
        half=rate / 2,
    )
    return write_text(file, text)


def json_schema() -> dict[str, Any]:
    """What a pipeline file may hold, as JSON Schema (draft 2020-12).

    It is looser than `load_pipeline` where one table speaks of another: names of steps in chains,
    and keys that `[training]` provides for all steps.
    """
    schema = Pipeline.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for table in KINDS.values():
        if issubclass(table, TrainingStep) and (found := definitions.get(table.__name__)):
            # `[training]` may hold it for all.
            found["required"] = [key for key in found["required"] if key != "epochs"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of tfprune",
        **{key: _without_null(value) for key, value in schema.items() if key != "title"},
    }


def _without_null(node: Any) -> Any:
    """A schema without null, which TOML does not have: what is not said is left out."""
    if isinstance(node, list):
        return [_without_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: _without_null(value)
        for key, value in node.items()
        if not (key == "default" and value is None)
    }
    some = [each for each in node.get("anyOf", []) if each != {"type": "null"}]
    if len(some) == 1:
        del node["anyOf"]
        return {**some[0], **node}
    return {**node, "anyOf": some} if some else node
