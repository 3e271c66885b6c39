"""What each kind of step does to a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from tfprune import data, devices, filters, slimming, training, weights, zoo
from tfprune.artifacts import export
from tfprune.formats import load
from tfprune.measure import evaluate, parameters
from tfprune.model import counting, graph
from tfprune.model.loading import load as load_model
from tfprune.pipeline.kinds import (
    LearnStep,
    PruneOnceStep,
    PruneStep,
    RetrainStep,
    RoundStep,
    SlimStep,
    Taught,
    TrainStep,
)
from tfprune.pipeline.spec import ModelSpec
from tfprune.pipeline.store import SCRATCH
from tfprune.training.distillation import Teacher
from tfprune.training.schedule import polynomial_decay

# Labelled images that an importance may look at, and images for BatchNorm's statistics.
_RANKED_BY, _RECALIBRATED_BY = 512, 2048


@dataclass(frozen=True)
class Bench:
    """What a step works with.

    Attributes:
        dataset: the images; a step looks at training and validation only.
        seed: the seed of the run.
        folder: a directory of the step's own, which survives a kill and becomes its result.
        label: what progress bars call the step; None for silence.
        after: seconds of work after this step, from the seconds an epoch takes; for the bars.
        origin: the model of the chain as it was after an epoch of its first training, drawn with
            a seed; epoch 0 is its initialisation.
        earlier: the model as an earlier step of the chain left it, by the step's name.
    """

    dataset: data.Dataset
    seed: int
    folder: Path
    label: str | None = None
    after: Callable[[float], float] | None = None
    origin: Callable[[int, int], keras.Model] | None = None
    earlier: Callable[[str], keras.Model] | None = None


Result = tuple[keras.Model, dict[str, Any]]


def build(spec: ModelSpec, dataset: data.Dataset, seed: int) -> keras.Model:
    """The model that a pipeline starts from.

    Args:
        spec: a name of the zoo, whose normalisation is taken from the training images, or a file.
        dataset: the images.
        seed: of the initial weights.

    Raises:
        UsageError: an option is unknown or impossible.
        TfpruneError: the file cannot be read, or pretrained weights cannot be fetched.
    """
    if spec.path is not None:
        return load_model(spec.path)
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


def kept(folder: Path, epoch: int) -> Path:
    """Where a training keeps what it was after an epoch, counted from 1."""
    return folder / f"epoch-{epoch}.keras"


def perform(step: Any, model: keras.Model, bench: Bench) -> Result:
    """Does one step.

    Args:
        step: a step of `tfprune.pipeline.kinds` that changes a model.
        model: what the step before left; may be changed.
        bench: data, seed and a folder.

    Returns:
        The model after the step, and what to record of it.
    """
    return _KINDS[type(step)](step, model, bench)


def _train(step: TrainStep, model: keras.Model, bench: Bench) -> Result:
    return _fitted(step, model, bench, [_Keep(step.keep, bench.folder)] if step.keep else [])


def _prune(step: PruneStep, model: keras.Model, bench: Bench) -> Result:
    total = step.epochs * math.ceil(len(bench.dataset.train) / step.batch_size)
    schedule = polynomial_decay(
        step.initial,
        step.sparsity,
        begin=round(step.begin * total),
        end=round(step.end * total),
        frequency=step.frequency,
    )
    return _fitted(step, model, bench, [weights.PruneWeights(schedule, scope=step.scope)])


def _prune_once(step: PruneOnceStep, model: keras.Model, bench: Bench) -> Result:
    pruned = weights.prune_once(
        model,
        step.share,
        scope=step.scope,
        select=step.select,
        layers=step.layers,
        seed=bench.seed,
    )
    return pruned, _lost(model, pruned, "pruned", bench)


def _round(step: RoundStep, model: keras.Model, bench: Bench) -> Result:
    rounded = weights.round_weights(model, step.bits)
    return rounded, _lost(model, rounded, "rounded", bench)


def _lost(before: keras.Model, after: keras.Model, name: str, bench: Bench) -> dict[str, Any]:
    return {
        "validation_accuracy": {
            "before": _validation(before, bench),
            name: _validation(after, bench),
        }
    }


def _learn(step: LearnStep, model: keras.Model, bench: Bench) -> Result:
    said = step.model_dump(
        include={"filters", "macs", "params", "importance", "round_to", "begin", "end", "frequency"}
    )
    penalty = filters.GroupLasso(step.strength or 0.0, step.groups)
    return _fitted(step, model, bench, [filters.LearnStructure(penalty, **said)])


def _slim(step: SlimStep, model: keras.Model, bench: Bench) -> Result:
    train = bench.dataset.train
    start, folds = model, tuple[filters.Fold, ...]()
    if step.dead:
        start, report = filters.simplified(model, tolerance=step.tolerance)
        folds = report.folds
    plan = slimming.plan(
        start,
        **step.model_dump(
            exclude={"kind", "recalibrate", "augment", "tolerance"}, exclude_defaults=True
        ),
        data=(train.images[:_RANKED_BY], train.labels[:_RANKED_BY]),
    )
    slim = filters.rebuild(plan)
    removed = _validation(slim, bench)
    count = step.recalibrate
    if count is None:
        # What is dead takes no part in any statistics.
        count = 0 if step.dead else _RECALIBRATED_BY
    if count:
        seen = data.seen(train, count, seed=bench.seed, augment=step.augment)
        slim = filters.recalibrate(slim, seen)
    return slim, {
        "removed": {layer: len(indices) for layer, indices in plan.removed.items()},
        "folds": [asdict(fold) for fold in folds],
        "removed_layers": filters.removed_layers(model, slim),
        "dead_units": int(plan.groups.dead().sum()),
        "inexact": plan.inexact,
        "measured": asdict(plan.measured) if isinstance(plan, devices.MeasuredPlan) else None,
        "validation_accuracy": {
            "before": _validation(model, bench),
            "removed": removed,
            "recalibrated": _validation(slim, bench),
        },
    }


def _retrain(step: RetrainStep, model: keras.Model, bench: Bench) -> Result:
    """Trains a pruned model on, from where it is rewound to.

    It rewinds to an epoch, where `tfprune.lottery` rewinds to a step: a pipeline resumes its
    trainings at epochs, from which the order of the data and the learning rate follow; see
    `tfprune.weights.lottery`.
    """
    if step.rewind == "weights" and bench.origin is not None:
        model = weights.rewind(model, bench.origin(step.epoch, bench.seed))
    if step.rewind in ("reinit", "random"):
        model = weights.untrained_control(model, step.rewind, bench.seed)
    return _fitted(step, model, bench, [weights.KeepZeros()], first_epoch=step.epoch)


_KINDS: dict[type, Callable[[Any, keras.Model, Bench], Result]] = {
    TrainStep: _train,
    PruneStep: _prune,
    PruneOnceStep: _prune_once,
    RoundStep: _round,
    LearnStep: _learn,
    SlimStep: _slim,
    RetrainStep: _retrain,
}


class _Keep(keras.callbacks.Callback):
    """Keeps the model as it is after some epochs."""

    def __init__(self, epochs: tuple[int, ...], folder: Path) -> None:
        super().__init__()
        self._epochs = epochs
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 in self._epochs:
            path = kept(self._folder, epoch + 1)
            export(self.model, self._folder, ["keras"], name=path.stem)


def _fitted(
    step: Taught,
    model: keras.Model,
    bench: Bench,
    callbacks: list[keras.callbacks.Callback],
    first_epoch: int = 0,
) -> Result:
    fit = training.fit(
        model,
        bench.dataset,
        step,
        seed=bench.seed,
        first_epoch=first_epoch,
        teacher=_teacher(step, bench),
        callbacks=[*callbacks, _tensorboard(bench.folder)],
        backup_dir=bench.folder / SCRATCH,
        progress=bench.label,
        after=bench.after,
    )
    return model, {
        "epochs": len(fit.history),
        "seconds_per_epoch": fit.seconds_per_epoch,
        "history": fit.history.to_dict("list"),
    }


def _teacher(step: Taught, bench: Bench) -> Teacher | None:
    if step.teacher is None or bench.earlier is None:
        return None
    model = bench.earlier(step.teacher)
    return Teacher(model, step.teacher_weight, step.temperature, graph.ends_in_softmax(model))


def _tensorboard(folder: Path) -> keras.callbacks.Callback:
    # Figures an epoch only: graphs and histograms would cost more than small nets do.
    return keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)


def _validation(model: keras.Model, bench: Bench) -> float:
    validation = bench.dataset.validation
    return evaluate(load(model), validation.images, validation.labels).accuracy


def described(model: keras.Model) -> dict[str, Any]:
    """What every step records of the model it leaves."""
    counted = parameters(model)
    return {
        "macs": counting.count_macs(model).whole_macs,
        "parameters": counted.total,
        "nonzero_parameters": counted.nonzero,
    }
