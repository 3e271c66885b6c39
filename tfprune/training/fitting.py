"""One fit: its settings, how the model is compiled, and its history."""

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

# Keras and TensorFlow are imported by the first fit, so that pipelines are checked without them.

_NOT_DECAYED = frozenset({"bias", "gamma", "beta"})


class Training(pydantic.BaseModel):
    """The settings of one fit.

    Example:
        ```python
        settings = Training(epochs=30, optimizer="adam", learning_rate=1e-3)
        ```

    The defaults are those of He et al. 2016 for CIFAR-10, with a cosine instead of steps
    (Loshchilov & Hutter 2017) and without weight decay.

    Attributes:
        epochs: passes over the train split.
        batch_size: images in one step.
        optimizer: "sgd", "adam" (Kingma & Ba 2015) or "adamw" (Loshchilov & Hutter 2019).
        learning_rate: the highest learning rate of the schedule.
        schedule: "cosine" falls to 0 at the end; "step" falls to a tenth after half of the steps
            and to a hundredth after three quarters; "constant" stays.
        warmup_epochs: epochs in which the learning rate first rises from 0; not with "step".
        momentum: the momentum of "sgd".
        nesterov: whether "sgd" uses Nesterov's momentum.
        weight_decay: the share of each kernel that a step subtracts, times the learning rate. It is
            decoupled from the gradient for every optimizer. With momentum m, an L2 penalty of d
            (the "weight decay" of papers on SGD) corresponds to about d / (1 - m) here. Biases,
            BatchNorm's gamma and beta, and weights with a regularizer do not decay.
        augment: any of "crop" and "flip".
        steps_per_execution: steps in one call of the compiled function; reduced to a divisor of the
            steps in an epoch, since Keras would continue into the data of the next epoch.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = pydantic.Field(ge=1, description="passes over the train split")
    batch_size: int = pydantic.Field(128, ge=1, description="images in one step")
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = pydantic.Field(0.1, gt=0, description="the highest of the schedule")
    schedule: Literal["cosine", "constant", "step"] = pydantic.Field(
        "cosine", description="of the learning rate"
    )
    warmup_epochs: float = pydantic.Field(
        0.0, ge=0, description="epochs in which the rate first rises from 0"
    )
    momentum: float = pydantic.Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = pydantic.Field(True, description="Nesterov's momentum, of sgd")
    weight_decay: float = pydantic.Field(
        0.0, ge=0, description="of kernels, decoupled from the gradient"
    )
    augment: tuple[Literal["crop", "flip"], ...] = pydantic.Field(
        (), description="random changes of the training images"
    )
    steps_per_execution: int = pydantic.Field(
        1, ge=1, description="steps in one call of the compiled function"
    )

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
    """The result of one fit, besides the trained model.

    Attributes:
        history: one row for each epoch: epoch (from 1); accuracy and loss on the train batches
            during the epoch; val_accuracy and val_loss after it; the figures that callbacks log,
            such as sparsity; learning_rate at its end; seconds, with validation.
        seconds_per_epoch: the median of `seconds`.
    """

    history: pd.DataFrame
    seconds_per_epoch: float


def compile(
    model: keras.Model, training: Training, steps_per_epoch: int, *, first_epoch: int = 0
) -> None:
    """Compiles a model with a new optimizer, the loss and the metric; drops any former state.

    Example:
        ```python
        compile(model, Training(epochs=30), steps_per_epoch=391)
        ```

    Args:
        model: a classifier with one output, either logits or a softmax; changed in place.
        training: the settings.
        steps_per_epoch: batches in an epoch.
        first_epoch: the epoch of the schedule at which the optimizer starts, counted from 0.
    """
    import keras

    from tfprune.model.graph import ends_in_softmax

    per_execution = min(training.steps_per_execution, steps_per_epoch)
    # With another number, Keras would continue into the data of the next epoch.
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
    """Trains a model in place on the train split, and evaluates the validation split each epoch.

    Example:
        ```python
        dataset = data.load("digits")
        model = zoo.build("conv2", dataset.image_shape, len(dataset.classes))
        fit(model, dataset, Training(epochs=10), seed=0).history
        ```

    The same model, data, settings and seed give the same weights on the same CPU.

    Args:
        model: a classifier that maps float32 pixels (n, height, width, channels), 0 to 255, to
            (n, classes) logits or probabilities. It is compiled anew.
        dataset: the data; its test split is not used.
        training: the settings.
        seed: fixes the order of the data and the augmentation, and sets the global random states.
        first_epoch: the epoch to begin at, counted from 0. The learning rate and the order of the
            data are those of a training that has finished the epochs before.
        teacher: a model whose outputs are learnt too; None for the labels alone.
        callbacks: they run before each epoch is logged and saved. If a training resumes, they start
            anew, with the restored weights and optimizer iterations.
        backup_dir: a directory for this training alone. Each epoch is saved there, and a training
            that was killed continues after its last finished epoch, with the same result. The
            caller deletes the directory.
        progress: the name of the training in a progress bar on stderr; None for no bar.
        after: maps the seconds of an epoch to the seconds of work that follow this training, for
            the progress bar; None if no work follows.

    Returns:
        The history of all epochs, including those before a kill.

    Raises:
        UsageError: the model does not fit the data.
        TfpruneError: the loss is not finite, or the backup belongs to another training.
    """
    import keras

    from tfprune import data
    from tfprune.training.checkpoint import EpochLog, restore
    from tfprune.training.distillation import distilling
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
    with shown as bar, distilling(model, teacher):
        model.fit(
            data.batches(
                dataset.train,
                training.batch_size,
                seed=seed,
                epochs=training.epochs,
                # Keras needs data even if no epoch is left.
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

        # The iterations of the optimizer begin at 0: Adam corrects its new moments by them.
        rate = RewoundSchedule(rate, first_epoch * steps_per_epoch)
    # With None, Keras skips weight decay; AdamW needs a number.
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
        # Keras counts steps from 0, and a value holds up to and including its boundary.
        boundaries = [steps // 2 - 1, steps * 3 // 4 - 1]
        return schedules.PiecewiseConstantDecay(boundaries, [rate, rate / 10, rate / 100])
    warmup = round(training.warmup_epochs * steps_per_epoch)
    if training.schedule == "constant" and not warmup:
        return rate
    # With alpha = 1 a cosine is constant; Keras has no constant schedule with a warm-up.
    alpha = 1.0 if training.schedule == "constant" else 0.0
    if not warmup:
        return schedules.CosineDecay(rate, steps, alpha)
    return schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha, warmup_target=rate, warmup_steps=warmup
    )


def check(model: keras.Model, dataset: Dataset, batch_size: int) -> None:
    """Checks that a model can be trained on a data set.

    Example:
        ```python
        model = zoo.build("conv2", (8, 8, 1), 10)
        check(model, data.load("digits"), batch_size=128)
        ```

    Args:
        model: the model to train.
        dataset: the images and their labels.
        batch_size: images in one step.

    Raises:
        UsageError: the model cannot be trained on the data; the message says why.
    """
    _check_ends(model, dataset, batch_size)
    name = f"model {model.name!r}"
    if any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
        raise UsageError(
            f"{name} is quantized, and integers cannot be trained: give the float model"
        )
    if not model.trainable_weights:
        raise UsageError(
            f"{name} has no trainable weights: set `trainable` of some layers, or give another"
        )
    labels = dataset.train.labels
    if (
        labels is not None
        and len(labels)
        and not 0 <= labels.min() <= labels.max() < model.output_shape[1]
    ):
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
    images = (None, *dataset.image_shape)
    inputs = tuple(model.inputs[0].shape)
    if len(inputs) != 4 or any(
        a not in (None, b) for a, b in zip(inputs[1:], images[1:], strict=True)
    ):
        raise UsageError(
            f"{name} takes {inputs}, and {dataset.name} has images of {images}: "
            "build it with this input shape"
        )
    if inputs[0] is not None:
        raise UsageError(
            f"{name} takes only batches of {inputs[0]}, and the last batch of a data set may be "
            "smaller: build it with an open batch size"
        )
    if model.inputs[0].dtype in ("string", "bool"):
        raise UsageError(
            f"{name} takes {model.inputs[0].dtype}, and pixels are numbers: "
            "build it with a float32 input"
        )
    outputs = tuple(model.outputs[0].shape)
    if len(outputs) != 2 or outputs[1] is None or outputs[1] < len(dataset.classes):
        raise UsageError(
            f"{name} gives {outputs}, and {dataset.name} has {len(dataset.classes)} classes: "
            "build it with one output and one logit for each class"
        )
