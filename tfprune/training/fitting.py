"""One fit: its settings, how the model is compiled, and its history."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pydantic

from tfprune.errors import UsageError

if TYPE_CHECKING:
    import keras

    from tfprune.data import Dataset
    from tfprune.tasks import Task
    from tfprune.training.distillation import Teacher

# Keras and TensorFlow are imported by the first fit, so that pipelines are checked without them.

# low and high are learnt ranges of `tfprune.quantize`.
_NOT_DECAYED = frozenset({"bias", "gamma", "beta", "low", "high"})


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
        precision: what layers compute a training step in. Under "mixed_bfloat16" and
            "mixed_float16" it is 16 bits, but float32 in layers that give outputs or scale inputs;
            the weights and each evaluation are float32, and the trained model is a float32 model.
            The loss is scaled for "mixed_float16". See `tfprune.training.precision`.
        clip_norm: the most that the norm of all gradients together may be; a larger one is scaled
            down to it. It is the argument `global_clipnorm` of Keras' optimizers (Pascanu et al.
            2013). None does not clip.
        clip_value: the most that each entry of a gradient may be, up and down. It is the argument
            `clipvalue` of Keras' optimizers. None does not clip; not together with `clip_norm`.
        early_stopping: epochs without an improvement on the validation split after which the
            training stops. The model gets the weights of its best epoch, also if all epochs were
            trained. Only epochs count at whose end the schedule of a pruning has arrived. None
            trains all epochs and keeps the last weights.
        early_stopping_on: what improves: "figure", the compared figure of the task, in its
            direction; or "loss".
        distribution: "data-parallel" shares each batch among all GPUs of the machine, with
            `tf.distribute.MirroredStrategy`; None trains on one device.
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
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = pydantic.Field(
        "float32", description="what layers compute a step in; weights stay float32"
    )
    clip_norm: float | None = pydantic.Field(
        None, gt=0, description="largest norm of all gradients together (global_clipnorm)"
    )
    clip_value: float | None = pydantic.Field(
        None, gt=0, description="largest entry of a gradient, up and down (clipvalue)"
    )
    early_stopping: int | None = pydantic.Field(
        None,
        ge=1,
        description="epochs without a better validation figure after which the training stops; "
        "the best weights stay",
    )
    early_stopping_on: Literal["figure", "loss"] = pydantic.Field(
        "figure", description="what early stopping looks at: the task's figure, or the loss"
    )
    distribution: Literal["data-parallel"] | None = pydantic.Field(
        None, description="shares each batch among all GPUs"
    )

    @pydantic.model_validator(mode="after")
    def _settings_agree(self) -> Training:
        if self.warmup_epochs and self.schedule == "step":
            raise ValueError(
                'warmup_epochs needs schedule = "cosine" or "constant": "step" has no warm-up'
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must be fewer than epochs ({self.epochs})"
            )
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("give clip_norm or clip_value: Keras clips in one way only")
        if self.early_stopping_on != "figure" and self.early_stopping is None:
            raise ValueError(
                f'early_stopping_on = "{self.early_stopping_on}" has no meaning without '
                "early_stopping, the epochs to wait"
            )
        return self


@dataclass(frozen=True)
class Fit:
    """The result of one fit, besides the trained model.

    Attributes:
        history: one row for each epoch, with the columns
            `epoch`, from 1;
            `loss`, and each metric of the task by its name, such as `accuracy` or
            `mean_absolute_error`: on the train batches during the epoch, with augmentation and
            dropout, and with the teacher in the loss;
            `val_loss` and `val_` with each metric: on the validation split after the epoch;
            what callbacks log, such as `sparsity`;
            `learning_rate`, at the end of the epoch;
            `seconds`, with validation.
            A model with several outputs also has columns for each, which Keras names
            OUTPUT_METRIC and OUTPUT_loss.
        seconds_per_epoch: the median of `seconds`.
        best_epoch: the epoch whose weights the model has, from 1: the best one if early stopping
            was asked for and an epoch counted, else the last one.
    """

    history: pd.DataFrame
    seconds_per_epoch: float
    best_epoch: int


def compile(
    model: keras.Model,
    training: Training,
    steps_per_epoch: int,
    *,
    task: Task | None = None,
    first_epoch: int = 0,
) -> None:
    """Compiles a model with a new optimizer and the losses and metrics of its task.

    Example:
        ```python
        compile(model, Training(epochs=30), steps_per_epoch=391)
        ```

    Args:
        model: the model, with any inputs and outputs; changed in place. Any former optimizer state
            is dropped.
        training: the settings.
        steps_per_epoch: batches in an epoch.
        task: the losses and metrics; None means those that the model was compiled with, else those
            of classification.
        first_epoch: the epoch of the schedule at which the optimizer starts, counted from 0.
    """
    import keras

    from tfprune.tasks import find_task

    task = task or find_task(model)
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
    if training.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    arguments = task.compile_arguments()
    if not arguments.keys() & {"metrics", "weighted_metrics"}:
        # Without any, Keras would keep those of a former compilation.
        arguments["metrics"] = []
    model.compile(
        optimizer,
        **arguments,
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
    task: Task | None = None,
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
        model: any functional or built Sequential model. Inputs and targets of the data are bound
            to its inputs and outputs by name where they are a dict, else by order. It is compiled
            anew.
        dataset: the data; its test split is not used.
        training: the settings.
        seed: fixes the order of the data and the augmentation, and sets the global random states.
        task: what the model is trained for; None means the task that it was compiled for, else
            classification.
        first_epoch: the epoch to begin at, counted from 0. The learning rate and the order of the
            data are those of a training that has finished the epochs before.
        teacher: a model whose outputs are learnt too; None for the targets alone.
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
        UsageError: the model does not fit the data or the task, or there are no devices to share
            batches among.
        TfpruneError: the loss is not finite, or the backup belongs to another training.
    """
    import keras

    from tfprune import data
    from tfprune.tasks import find_task
    from tfprune.training.binding import Binding
    from tfprune.training.checkpoint import EpochLog, restore
    from tfprune.training.distillation import distilling
    from tfprune.training.distribution import check_devices, replicated
    from tfprune.training.early_stopping import BestEpoch
    from tfprune.training.precision import mixed_precision
    from tfprune.training.progress import Progress

    binding = Binding(model, dataset)
    task = task or find_task(model, None, dataset)
    check(model, dataset, training.batch_size, task)
    if teacher is not None:
        try:
            Binding(teacher.model, dataset, ends=("inputs",))
        except UsageError as error:
            raise UsageError(f"the teacher does not fit: {error}") from error
    parallel = training.distribution is not None
    if parallel:
        sizes = {"train": len(dataset.train), "validation": len(dataset.validation)}
        check_devices(training.batch_size, sizes)
    keras.utils.set_random_seed(seed)
    steps = data.steps_per_epoch(dataset.train, training.batch_size)
    directory = None if backup_dir is None else Path(backup_dir)
    settings = (
        f"{dataset.note} {dataset.fingerprint} {_described(task)} {training.model_dump_json()} "
        f"seed {seed} from {first_epoch}"
    )
    if teacher is not None:
        settings += f" taught by {teacher.model.name} {teacher.weight:g} {teacher.temperature:g}"
    best = None
    if training.early_stopping is not None:
        figure, better = task.figure.name, task.figure.better
        if training.early_stopping_on == "loss":
            figure, better = "loss", "lower"
        if better is None:
            raise UsageError(
                f"early_stopping needs to know which way {figure} is better: give the task better "
                '= "higher" or "lower", or early_stopping_on = "loss"'
            )
        best = BestEpoch(f"val_{figure}", better, training.early_stopping, callbacks)
    with replicated(model, parallel) as trained:
        compile(trained, training, steps, task=task, first_epoch=first_epoch)
        trained.optimizer.build(trained.trainable_variables)
        history = restore(trained, directory, settings, best) if directory else pd.DataFrame()
        log = EpochLog(history, directory, settings, best)
        done = first_epoch + len(history)
        if best is not None and best.over(done):
            # It had stopped before it was killed.
            done = training.epochs
        # Keras needs data even if no epoch is left.
        first = min(done, training.epochs - 1)
        batches = data.batches(
            dataset.train,
            training.batch_size,
            seed=seed,
            epochs=training.epochs,
            first_epoch=first,
            augment=training.augment,
        )
        bar = Progress(progress or "", first_epoch=done, after=after, figure=task.figure.name)
        with (
            bar if progress else nullcontext(),
            distilling(trained, teacher),
            mixed_precision(trained, training.precision),
        ):
            trained.fit(
                binding.bound(task.weigh_classes(batches, dataset.train)),
                epochs=training.epochs,
                initial_epoch=done,
                steps_per_epoch=steps,
                validation_data=binding.bound(
                    data.plain_batches(dataset.validation, training.batch_size)
                ),
                callbacks=[
                    *callbacks,
                    *([best] if best else []),
                    log,
                    *([bar] if progress else []),
                ],
                shuffle=False,
                verbose=0,
            )
    last = first_epoch + len(log.history)
    return Fit(
        log.history,
        float(log.history["seconds"].median()),
        best.epoch if best is not None and best.epoch is not None else last,
    )


def _described(task: Task) -> str:
    """What a task computes, in a text that is the same in another process."""
    import keras

    try:
        return str(keras.saving.serialize_keras_object(task.compile_arguments()))
    # A user's get_config may raise anything.
    except Exception:
        return task.figure.name


def _optimizer(training: Training, steps_per_epoch: int, first_epoch: int) -> keras.Optimizer:
    import keras

    rate = _schedule(training, steps_per_epoch)
    if first_epoch and not isinstance(rate, float):
        from tfprune.training.learning_rate import RewoundSchedule

        # The iterations of the optimizer begin at 0: Adam corrects its new moments by them.
        rate = RewoundSchedule(rate, first_epoch * steps_per_epoch)
    # With None, Keras skips weight decay and clipping; AdamW needs a number.
    decay = training.weight_decay or None
    clipping: Any = {"global_clipnorm": training.clip_norm, "clipvalue": training.clip_value}
    match training.optimizer:
        case "sgd":
            return keras.optimizers.SGD(
                rate, training.momentum, training.nesterov, weight_decay=decay, **clipping
            )
        case "adam":
            return keras.optimizers.Adam(rate, weight_decay=decay, **clipping)
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay, **clipping)


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


def check(model: keras.Model, dataset: Dataset, batch_size: int, task: Task | None = None) -> None:
    """Checks that a model can be trained on a data set.

    Example:
        ```python
        model = zoo.build("conv2", (8, 8, 1), 10)
        check(model, data.load("digits"), batch_size=128)
        ```

    Args:
        model: the model to train.
        dataset: the data.
        batch_size: examples in one step.
        task: as for `fit`.

    Raises:
        UsageError: the model cannot be trained on the data; the message says why.
    """
    from tfprune.tasks import find_task
    from tfprune.training.binding import Binding

    binding = Binding(model, dataset)
    name = f"model {model.name!r}"
    if any(layer.dtype_policy.quantization_mode for layer in model._flatten_layers()):
        raise UsageError(
            f"{name} is quantized, and integers cannot be trained: give the float model"
        )
    if not model.trainable_weights:
        raise UsageError(
            f"{name} has no trainable weights: set `trainable` of some layers, or give another"
        )
    (task or find_task(model, None, dataset)).check(model, dataset)
    binding.check_values(dataset)
