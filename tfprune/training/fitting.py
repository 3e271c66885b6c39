"""One fit: what it is asked for, how the model is compiled, and its history."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import pydantic

from tfprune.errors import UsageError

if TYPE_CHECKING:
    import keras

    from tfprune.data import Dataset
    from tfprune.training.distillation import Teacher

# Keras and TensorFlow load with the first fit: a pipeline's spec is checked without them.

_NOT_DECAYED = frozenset({"bias", "gamma", "beta"})


class Training(pydantic.BaseModel):
    """What one fit is asked for.

    The defaults are those of He et al. 2016 for CIFAR-10, with a cosine for the steps (Loshchilov
    & Hutter 2017) and without weight decay.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Images in one step.
        optimizer: "sgd", "adam" (Kingma & Ba 2015) or "adamw" (Loshchilov & Hutter 2019).
        learning_rate: The highest rate of the schedule.
        schedule: "cosine" falls to 0 at the end, "step" to a tenth after half and again after three
            quarters of the steps, "constant" stays.
        warmup_epochs: Epochs in which the rate first rises from 0; not with "step".
        momentum: Of "sgd".
        nesterov: Of "sgd" (Nesterov's momentum).
        weight_decay: Share of each kernel subtracted in a step, times the learning rate: decoupled
            from the gradient, for every optimizer. With momentum m, an L2 penalty of d (the "weight
            decay" of papers on SGD) corresponds to about d / (1 - m) here. Biases, BatchNorm's
            gamma and beta, and weights that carry a regularizer are left out.
        augment: Any of "crop" and "flip".
        steps_per_execution: Steps in one call of the compiled function; lowered to the next
            divisor of the steps in an epoch, so that epochs keep their data.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = pydantic.Field(ge=1)
    batch_size: int = pydantic.Field(128, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = pydantic.Field(0.1, gt=0)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    warmup_epochs: float = pydantic.Field(0.0, ge=0)
    momentum: float = pydantic.Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = pydantic.Field(0.0, ge=0)
    augment: tuple[Literal["crop", "flip"], ...] = ()
    steps_per_execution: int = pydantic.Field(1, ge=1)

    @pydantic.model_validator(mode="after")
    def _warmup_fits(self) -> Training:
        if self.warmup_epochs and self.schedule == "step":
            raise ValueError(
                'warmup_epochs needs schedule = "cosine" or "constant": "step" has no warm-up'
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must be fewer than epochs ({self.epochs})"
            )
        return self


@dataclass(frozen=True)
class Fit:
    """What one fit leaves besides the trained model.

    Attributes:
        history: One row an epoch: epoch (from 1), accuracy and loss on the train batches as they
            came, val_accuracy and val_loss after it, whatever callbacks logged (such as sparsity),
            learning_rate at the epoch's end, and seconds with its validation.
        seconds_per_epoch: The median of those seconds.
    """

    history: pd.DataFrame
    seconds_per_epoch: float


def compile(
    model: keras.Model, training: Training, steps_per_epoch: int, *, first_epoch: int = 0
) -> None:
    """Gives a model a fresh optimizer, the loss and the metric; all former state is dropped.

    Args:
        model: A classifier with one output, which may be logits or a softmax; changed in place.
        training: What is asked for.
        steps_per_epoch: Batches in an epoch, which the schedule is stretched over.
        first_epoch: Where in the schedule the optimizer's first step lies, counted from 0.
    """
    import keras

    from tfprune.model.graph import ends_in_softmax

    per_execution = min(training.steps_per_execution, steps_per_epoch)
    # Keras runs past the end of an epoch that it cannot divide, into the next one's data.
    while steps_per_epoch % per_execution:
        per_execution -= 1
    optimizer = _optimizer(training, steps_per_epoch, first_epoch)
    optimizer.exclude_from_weight_decay(
        [
            weight
            for weight in model.trainable_weights
            if weight.name in _NOT_DECAYED or weight.regularizer is not None
        ]
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=not ends_in_softmax(model)),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        steps_per_execution=per_execution,
        # Measured on CPU: XLA is slower than TensorFlow's own kernels.
        jit_compile=False,
    )


def fit(
    model: keras.Model,
    dataset: Dataset,
    training: Training,
    *,
    seed: int,
    first_epoch: int = 0,
    teacher: Teacher | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    backup_dir: str | os.PathLike[str] | None = None,
    progress: str | None = None,
    after: Callable[[float], float] | None = None,
) -> Fit:
    """Trains a model in place on the train split, and looks at the validation split each epoch.

    The same model, data, settings and seed give the same weights on the same CPU.

    Args:
        model: From float32 pixels, 0 to 255, to one logit or probability a class. It is compiled
            anew.
        dataset: What to learn; its test split is not touched.
        training: What is asked for.
        seed: Fixes the order of the data and its augmentation, and sets the global random states.
        first_epoch: Where in the epochs to begin, counted from 0: the schedule of the learning
            rate and the order of the data are those of a training that has got so far.
        teacher: A model whose outputs are learnt as well; None for the labels alone.
        callbacks: Run before each epoch is logged and saved. On resuming they start anew, with the
            model's weights and the optimizer's iterations restored.
        backup_dir: A directory of this training's own. Each epoch is saved there, and a training
            that was killed continues after its last finished epoch, to the same weights and
            history. The caller deletes it when the result is safe.
        progress: What to call the training in a progress bar on stderr; None for silence.
        after: From the seconds that an epoch takes here to the seconds of work that come after
            this training, for the progress bar; None where nothing does.

    Returns:
        The history of all epochs, those before a kill included.

    Raises:
        UsageError: If the model does not fit the data.
        TfpruneError: If the loss stops being a number, or the backup is another training's.
    """
    import keras

    from tfprune import data
    from tfprune.training.checkpoint import EpochLog, restore
    from tfprune.training.distillation import taught
    from tfprune.training.progress import Progress

    check(model, dataset, training.batch_size)
    if teacher is not None:
        try:
            _check_ends(teacher.model, dataset, training.batch_size)
        except UsageError as error:
            raise UsageError(f"the teacher does not fit: {error}") from error
    keras.utils.set_random_seed(seed)
    steps = data.steps_per_epoch(dataset.train, training.batch_size)
    compile(model, training, steps, first_epoch=first_epoch)
    model.optimizer.build(model.trainable_variables)
    directory = None if backup_dir is None else Path(backup_dir)
    settings = f"{dataset.note} {training.model_dump_json()} seed {seed} from {first_epoch}"
    if teacher is not None:
        settings += f" taught by {teacher.model.name} {teacher.weight:g} {teacher.temperature:g}"
    history = restore(model, directory, settings) if directory else pd.DataFrame()
    log = EpochLog(history, directory, settings)
    done = first_epoch + len(history)
    shown = Progress(progress, first_epoch=done, after=after) if progress else nullcontext()
    with shown as bar, taught(model, teacher):
        model.fit(
            data.batches(
                dataset.train,
                training.batch_size,
                seed=seed,
                epochs=training.epochs,
                # Keras wants data even when no epoch is left.
                first_epoch=min(done, training.epochs - 1),
                augment=training.augment,
            ),
            epochs=training.epochs,
            initial_epoch=done,
            steps_per_epoch=steps,
            validation_data=data.plain_batches(dataset.validation, training.batch_size),
            callbacks=[*callbacks, log, *([bar] if bar else [])],
            shuffle=False,
            verbose=0,
        )
    return Fit(log.history, float(log.history["seconds"].median()))


def _optimizer(training: Training, steps_per_epoch: int, first_epoch: int) -> keras.Optimizer:
    import keras

    rate = _schedule(training, steps_per_epoch)
    if first_epoch and not isinstance(rate, float):
        from tfprune.training.learning_rate import RewoundSchedule

        # The optimizer itself begins at 0: Adam, with fresh moments, corrects them by its steps.
        rate = RewoundSchedule(rate, first_epoch * steps_per_epoch)
    # None spares a pass over the weights; AdamW insists on a number.
    decay = training.weight_decay or None
    match training.optimizer:
        case "sgd":
            return keras.optimizers.SGD(
                rate, training.momentum, training.nesterov, weight_decay=decay
            )
        case "adam":
            return keras.optimizers.Adam(rate, weight_decay=decay)
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay)


def _schedule(
    training: Training, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    from keras.optimizers import schedules

    rate = training.learning_rate
    steps = training.epochs * steps_per_epoch
    if training.schedule == "step":
        # Keras holds a value up to and including its boundary, and counts steps from 0.
        boundaries = [steps // 2 - 1, steps * 3 // 4 - 1]
        return schedules.PiecewiseConstantDecay(boundaries, [rate, rate / 10, rate / 100])
    warmup = round(training.warmup_epochs * steps_per_epoch)
    if training.schedule == "constant" and not warmup:
        return rate
    # A cosine that falls to all of its start is a constant: this is how Keras warms one up.
    alpha = 1.0 if training.schedule == "constant" else 0.0
    if not warmup:
        return schedules.CosineDecay(rate, steps, alpha)
    return schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha, warmup_target=rate, warmup_steps=warmup
    )


def check(model: keras.Model, dataset: Dataset, batch_size: int) -> None:
    """Makes sure that a model can learn a data set, before the first epoch.

    Args:
        model: what is to be trained.
        dataset: the images and their labels.
        batch_size: images in one step.

    Raises:
        UsageError: it cannot; the message says which part of either is in the way.
    """
    _check_ends(model, dataset, batch_size)
    name = f"model {model.name!r}"
    if any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
        raise UsageError(f"{name} is quantized, and integers do not train: give the float model")
    if not model.trainable_weights:
        raise UsageError(
            f"{name} has no weights that train: set `trainable` of some layers, or give another"
        )
    labels = dataset.train.labels
    if len(labels) and not 0 <= labels.min() <= labels.max() < model.output_shape[1]:
        raise UsageError(
            f"{dataset.name} has labels from {labels.min()} to {labels.max()}, and {name} has "
            f"{model.output_shape[1]} outputs: give data whose labels are 0 to "
            f"{model.output_shape[1] - 1}"
        )


def _check_ends(model: keras.Model, dataset: Dataset, batch_size: int) -> None:
    name = f"model {model.name!r}"
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"{name} has no input: give a functional model, or a Sequential one that was built "
            "with its input shape"
        )
    ends = {"input": len(model.inputs), "output": len(model.outputs)}
    for end, count in ends.items():
        if count != 1:
            raise UsageError(
                f"{name} has {count} {end}s, and a classifier of images has one: "
                f"make keras.Model(inputs, outputs) with one {end}, or train it with your own "
                "model.fit and tfprune's callbacks"
            )
    wanted = (None, *dataset.image_shape)
    taken = tuple(model.inputs[0].shape)
    if len(taken) != 4 or any(
        a not in (None, b) for a, b in zip(taken[1:], wanted[1:], strict=True)
    ):
        raise UsageError(f"{model.name} takes {taken}, and {dataset.name} has images of {wanted}")
    if taken[0] is not None:
        raise UsageError(
            f"{name} takes batches of {taken[0]} alone, and a data set ends in a smaller one: "
            "build it with an open batch size"
        )
    if model.inputs[0].dtype in ("string", "bool"):
        raise UsageError(f"{name} takes {model.inputs[0].dtype}, and pixels are numbers")
    given = tuple(model.outputs[0].shape)
    if len(given) != 2 or given[1] is None or given[1] < len(dataset.classes):
        raise UsageError(
            f"{model.name} gives {given}, and {dataset.name} has {len(dataset.classes)} classes: "
            "it needs one output with one logit a class"
        )
