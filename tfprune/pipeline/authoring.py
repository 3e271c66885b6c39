"""Pipelines that tfprune writes: one to begin with, lottery tickets, TOML, and the JSON Schema.

Nothing here loads TensorFlow.
"""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
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
# The last rate of a schedule that falls to a tenth twice, which Renda et al. 2020 fine-tune at.
_FINETUNE = 0.01
_WIDTH = 98


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
        data=_value(DataSpec(name=data).name),
        model=_value(spec.name),
        name=_value(file.stem),
        formats=_value(list(DELIVERIES[made_for] if made_for else ALL_FORMATS)),
        task=f"\n[task]\nkind = {_value(task)}\n" if task else "",
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
    """A schema without null, which TOML does not have: a key without a value is left out."""
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


def lottery_study(
    name: str,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    rounds: int,
    pruning: Mapping[str, Any],
    rewind: str = "init",
    one_shot: bool = False,
    controls: bool = False,
    seeds: Sequence[int] = (0,),
    task: Any = None,
) -> Pipeline:
    """The pipeline that draws lottery tickets, level by level, beside the dense net.

    The method is that of Frankle & Carbin 2019, with the rewindings of Renda et al. 2020.

    Args:
        name: the name of the run.
        model: the table `[model]`.
        data: the table `[data]`.
        training: the table `[training]`, for the dense net and every round.
        pruning: the table of a step `prune-once`, without its kind: what a round prunes.
        rounds: how often the net is pruned.
        rewind: "init", "lr", "finetune", or the epoch to rewind to. Fine-tuning has a constant
            learning rate, a hundredth of the one in `training`.
        one_shot: prunes once, to the density that all rounds would reach.
        controls: adds tickets with weights drawn anew, and those with masks drawn as well.
        seeds: the seeds of the run.
        task: the table `[task]`, or None.

    Returns:
        A pipeline with the variants dense, ticket-K, and reinit-K and random-K.

    Raises:
        UsageError: a pipeline with these values is not valid.
    """
    if one_shot:
        layers = pruning.get("layers", {})
        pruning = {
            **pruning,
            "share": _share_after(pruning["share"], rounds),
            "layers": {layer: _share_after(own, rounds) for layer, own in layers.items()},
        }
    retrain = _retraining(rewind, training)
    chain = {
        "start": ["dense"],
        "repeat": ["cut", "retrain"],
        "times": 1 if one_shot else rounds,
    }
    steps: dict[str, Any] = {
        "dense": {"kind": "train", "keep": [retrain["epoch"]] if retrain.get("epoch") else []},
        "cut": {"kind": "prune-once", **pruning},
        "retrain": {"kind": "retrain", **retrain},
    }
    variants = {"ticket": chain}
    for control in ("reinit", "random") if controls else ():
        steps[control] = {"kind": "retrain", "rewind": control}
        variants[control] = {**chain, "end": [control]}
    raw = {
        "name": name,
        "seeds": list(seeds),
        "formats": ["keras"],
        "data": dict(data),
        "model": dict(model),
        "training": dict(training),
        "steps": steps,
        "variants": {"dense": ["dense"]},
        "rounds": variants,
    }
    if task is not None:
        raw["task"] = task
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        raise UsageError(describe_error(error, Pipeline)) from error


def _share_after(share: float, rounds: int) -> float:
    """The share of the weights that several rounds prune together."""
    return float(1 - (1 - share) ** rounds)


def _retraining(rewind: str, training: Mapping[str, Any]) -> dict[str, Any]:
    if rewind in ("init", "0"):
        return {"rewind": "weights"}
    if rewind.isdecimal():
        return {"rewind": "weights", "epoch": int(rewind)}
    if rewind == "finetune":
        rate = training.get("learning_rate", 0.1) * _FINETUNE
        return {"rewind": "finetune", "schedule": "constant", "learning_rate": rate}
    if rewind != "lr":
        raise UsageError(
            f"rewind is {rewind!r}; choose init, lr, finetune, or the epoch to rewind to"
        )
    return {"rewind": "lr"}


def to_toml(document: Mapping[str, Any], heading: str = "") -> str:
    """A document as TOML: first what has no keys, then one table after the other.

    Example:
        >>> print(to_toml({"name": "a", "steps": {"x-0.5": {"macs": 0.5}}}))
        name = "a"
        <BLANKLINE>
        [steps."x-0.5"]
        macs = 0.5

    Args:
        document: texts, numbers, booleans, lists and dicts of them; None is left out.
        heading: a comment at the top.
    """
    lines = [f"# {line}" for line in textwrap.wrap(heading, _WIDTH - 2)]
    _table(document, (), lines)
    return "\n".join(lines).strip() + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in table.items() if not _is_table(value, path)}
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items() if value is not None]
    for key, value in table.items():
        if key not in plain:
            _table(value, (*path, key), lines)


def _is_table(value: Any, path: tuple[str, ...]) -> bool:
    # Deeper ones, such as the options of a net, stand in one line.
    return isinstance(value, Mapping) and (not path or path == ("steps",))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # TOML's strings are those of JSON, but for the one control character that JSON lets pass.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
