"""Lottery tickets of a net as a pipeline; nothing here loads TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tfprune.errors import UsageError
from tfprune.pipeline.spec import Pipeline
from tfprune.validation import describe_error

# The last rate of a schedule that falls to a tenth twice, which Renda et al. 2020 fine-tune at.
_FINETUNE = 0.01


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

    As of Frankle & Carbin 2019, with the rewindings of Renda, Frankle & Carbin 2020.

    Args:
        name: of the run.
        model: the table `[model]`.
        data: the table `[data]`.
        training: the table `[training]`, for the dense net and every round.
        pruning: the table of a step `prune-once`, without its kind: what a round prunes.
        rounds: how often it is pruned.
        rewind: "init", "lr", "finetune", or the epoch to rewind to. Fine-tuning is at a hundredth
            of the learning rate, constant.
        one_shot: prunes once, to the density that all rounds would reach.
        controls: adds tickets with weights drawn anew, and those with masks drawn as well.
        seeds: of the runs.
        task: the table `[task]`, or None.

    Returns:
        A pipeline with the variants dense, ticket-K, and reinit-K and random-K.

    Raises:
        UsageError: it says something that a pipeline cannot.
    """
    if one_shot:
        layers = pruning.get("layers", {})
        pruning = {
            **pruning,
            "share": _after(pruning["share"], rounds),
            "layers": {layer: _after(own, rounds) for layer, own in layers.items()},
        }
    retrain = _retrain(rewind, training)
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


def _after(share: float, rounds: int) -> float:
    """What several rounds take together."""
    return float(1 - (1 - share) ** rounds)


def _retrain(rewind: str, training: Mapping[str, Any]) -> dict[str, Any]:
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
