"""What helps to write a pipeline file: one to begin with, and the JSON Schema for editors."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tfprune.errors import UsageError, did_you_mean
from tfprune.files import write_text
from tfprune.model.reference import find_model
from tfprune.pipeline.inputs import check_data
from tfprune.pipeline.spec import ALL_FORMATS, DataSpec, ModelSpec, Pipeline
from tfprune.pipeline.steps import KINDS
from tfprune.pipeline.steps.training import TrainingStep
from tfprune.tasks.spec import KINDS as TASKS
from tfprune.validation import describe_error
from tfprune.vocabulary import DELIVERIES, DeliveryName

_TEMPLATE = """\
# A dense model, weight pruning, filter pruning.
name = {name}
seeds = [0]
formats = {formats}

# Of tensorflow-datasets, digits, a folder of images, a file of arrays, or FILE.py:FUNCTION.
[data]
name = {data}
validation = 0.1    # share held out of the train split; all choices look at it alone

# Of the zoo, of keras.applications, a .keras file, or FILE.py:FUNCTION.
[model]
name = {model}
{task}
# What all steps that train have in common; a step's own keys win.
[training]
batch_size = {batch}
optimizer = "{optimizer}"
weight_decay = {decay:g}

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


def new_pipeline(
    file: Path,
    *,
    data: str = "digits",
    model: str = "vgg",
    task: str | None = None,
    made_for: DeliveryName | None = None,
) -> Path:
    """Writes a pipeline file that runs as it is.

    Example:
        ```python
        new_pipeline(Path("photos.toml"), data="my_photos", model="resnet20", made_for="phone")
        ```

    Args:
        file: where; its stem becomes the name of the run.
        data: a data set; see `tfprune.data.load`.
        model: a model; see `tfprune.load`.
        task: one of the kinds of `tfprune.tasks.TaskSpec`; None for what the model is compiled for,
            or a classification.
        made_for: what the model is made for, which chooses the formats; None for the usual four.

    Returns:
        The path.

    Raises:
        UsageError: the file exists, its name does not end in .toml or cannot be that of a run, or
            the model, the data set, the task or what it is made for is unknown.
        TfpruneError: it cannot be written.
    """
    if file.suffix != ".toml":
        raise UsageError(f"{file} does not end in .toml: name the file {file.stem}.toml")
    if file.exists():
        raise UsageError(f"{file} exists already: choose another name, or delete it first")
    find_model(model)
    check_data(DataSpec(name=data))
    spec = ModelSpec(name=model)
    if task is not None and task not in TASKS:
        raise UsageError(f"task {task!r} is unknown: {did_you_mean(task, TASKS)}")
    if made_for is not None and made_for not in DELIVERIES:
        raise UsageError(f"made_for {made_for!r} is unknown: {did_you_mean(made_for, DELIVERIES)}")
    # The nets of papers are made for momentum and a high rate; of others nothing is known.
    classifies = spec.reference.is_net and task in (None, "classification")
    rate = (0.02 if spec.reference.pretrained else 0.05) if classifies else 1e-3
    text = _TEMPLATE.format(
        data=_quoted(DataSpec(name=data).name),
        model=_quoted(spec.name),
        name=_quoted(file.stem),
        formats=_quoted(list(DELIVERIES[made_for] if made_for else ALL_FORMATS)),
        task=f"\n[task]\nkind = {_quoted(task)}\n" if task else "",
        batch=128 if classifies else 32,
        optimizer="sgd" if classifies else "adam",
        decay=1e-3 if classifies else 0,
        rate=rate,
        half=rate / 2,
    )
    try:
        Pipeline.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise UsageError(f"{file}: {describe_error(error, Pipeline)}") from error
    return write_text(file, text)


def _quoted(value: Any) -> str:
    """A text or a list of texts in TOML, whose strings are those of JSON."""
    return json.dumps(value, ensure_ascii=False)


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
