"""What each kind of step does to a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfprune import data, filters, graph, training, weights, zoo
from tfprune.measure import evaluate, load, parameters
from tfprune.pipeline.spec import LearnStep, ModelSpec, PruneStep, SlimStep, TrainStep


@dataclass(frozen=True)
class Bench:
    """What a step works with.

    Attributes:
        dataset: the images; a step looks at training and validation only.
        seed: the seed of the run.
        scratch: a directory of the step's own, which survives a kill.
        label: what progress bars call the step; None for silence.
    """

    dataset: data.Dataset
    seed: int
    scratch: Path
    label: str | None


Result = tuple[keras.Model, dict[str, Any]]


def build(spec: ModelSpec, dataset: data.Dataset, seed: int) -> keras.Model:
    """The untrained model of a pipeline, its normalisation taken from the training images."""
    mean, std = data.statistics(dataset.train)
    return zoo.build(
        spec.name,
        dataset.image_shape,
        len(dataset.classes),
        mean=mean.tolist(),
        std=std.tolist(),
        seed=seed,
        **spec.options,
    )


def perform(step: Any, model: keras.Model, bench: Bench) -> Result:
    """Does one step.

    Args:
        step: a step of `tfprune.pipeline.spec`.
        model: what the step before left; may be changed.
        bench: data, seed and scratch space.

    Returns:
        The model after the step, and what to record of it.
    """
    return _KINDS[type(step)](step, model, bench)


def _train(step: TrainStep, model: keras.Model, bench: Bench) -> Result:
    return _fitted(step, model, bench, [])


def _prune(step: PruneStep, model: keras.Model, bench: Bench) -> Result:
    total = step.epochs * math.ceil(len(bench.dataset.train) / step.batch_size)
    schedule = weights.polynomial_decay(
        step.initial,
        step.sparsity,
        begin=round(step.begin * total),
        end=round(step.end * total),
        frequency=step.frequency,
    )
    return _fitted(step, model, bench, [weights.PruneWeights(schedule, scope=step.scope)])


def _learn(step: LearnStep, model: keras.Model, bench: Bench) -> Result:
    return _fitted(step, model, bench, [filters.LearnStructure(step.strength)])


def _slim(step: SlimStep, model: keras.Model, bench: Bench) -> Result:
    targets = step.model_dump(include={"filters", "macs", "params", "dead"})
    plan = filters.plan(model, **targets, importance=step.importance, round_to=step.round_to)
    slim = filters.rebuild(plan)
    removed = _validation(slim, bench)
    if step.recalibrate:
        slim = filters.recalibrated(slim, bench.dataset.train.images[: step.recalibrate])
    return slim, {
        "removed": {layer: len(indices) for layer, indices in plan.removed.items()},
        "dead_units": int(plan.groups.dead().sum()),
        "inexact": plan.inexact,
        "validation_accuracy": {
            "before": _validation(model, bench),
            "removed": removed,
            "recalibrated": _validation(slim, bench),
        },
    }


_KINDS: dict[type, Callable[[Any, keras.Model, Bench], Result]] = {
    TrainStep: _train,
    PruneStep: _prune,
    LearnStep: _learn,
    SlimStep: _slim,
}


def _fitted(
    step: Any, model: keras.Model, bench: Bench, callbacks: list[keras.callbacks.Callback]
) -> Result:
    fit = training.fit(
        model,
        bench.dataset,
        step,
        seed=bench.seed,
        callbacks=callbacks,
        backup_dir=bench.scratch,
        progress=bench.label,
    )
    return model, {
        "epochs": step.epochs,
        "seconds_per_epoch": fit.seconds_per_epoch,
        "history": fit.history.to_dict("list"),
    }


def _validation(model: keras.Model, bench: Bench) -> float:
    validation = bench.dataset.validation
    return evaluate(load(model), validation.images, validation.labels).accuracy


def described(model: keras.Model) -> dict[str, Any]:
    """What every step records of the model it leaves."""
    counted = parameters(model)
    return {
        "macs": graph.macs(model),
        "parameters": counted.total,
        "nonzero_parameters": counted.nonzero,
    }
