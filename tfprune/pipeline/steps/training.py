"""Steps that train: `train` and `retrain`, and what every step that trains does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tfprune.errors import did_you_mean
from tfprune.pipeline.steps.base import SCRATCH, Context, Result, Step, save
from tfprune.training import Training

if TYPE_CHECKING:
    import keras

    from tfprune.training.distillation import Teacher


class TrainingStep(Training, Step):
    """A step that trains, and can have a teacher (Hinton et al. 2015)."""

    trains_new = True
    # Whether weights that share a value go on sharing it while it trains.
    holds_values: ClassVar[bool] = False

    teacher: Annotated[
        str | None, Field(description="an earlier step of the chain, whose model teaches")
    ] = None
    teacher_weight: Annotated[
        float, Field(ge=0, le=1, description="the teacher's part in the loss")
    ] = 0.5
    temperature: Annotated[
        float, Field(gt=0, description="divides the logits of teacher and model")
    ] = 4.0

    @property
    def needs_images(self) -> str | None:
        """A training needs images."""
        return "a training"

    @property
    def epochs_to_train(self) -> int:
        """How many epochs it trains."""
        return self.epochs

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """A teacher is an earlier step of the chain, and weights that share values go on so."""
        for _, step in before:
            if step.shares_values and not self.holds_values:
                return (
                    f"trains after a {step.kind} step, so weights would no longer share their "
                    "values: train before it"
                )
        names = [earlier for earlier, _ in before]
        if self.teacher is None or self.teacher in names:
            return None
        hint = did_you_mean(self.teacher, names, "its chain has none")
        return f"is taught by {self.teacher!r}, which is not a step before {name!r}: {hint}"


class TrainStep(TrainingStep):
    """Trains: from scratch as the first step of a chain, further as a later one."""

    kind: Literal["train"]
    keep: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(description="epochs whose weights are kept, for a later step to rewind to"),
    ] = ()
    trainable: Annotated[
        Literal["all", "head"] | None,
        Field(
            description="which layers train from here on: all, or the head, the last one with "
            "weights; as the model has it if not given"
        ),
    ] = None

    @model_validator(mode="after")
    def _kept_are_trained(self) -> TrainStep:
        if any(epoch > self.epochs for epoch in self.keep):
            raise ValueError(f"keep={list(self.keep)} goes beyond the last epoch, {self.epochs}")
        # The first epoch may be the best one.
        if self.early_stopping is not None and max(self.keep, default=0) > self.early_stopping + 1:
            raise ValueError(
                f"keep={list(self.keep)} may go beyond the last epoch, since early_stopping = "
                f"{self.early_stopping} may stop after epoch {self.early_stopping + 1}"
            )
        return self

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Trains, and keeps the weights of some epochs."""
        _set_trainable(model, self.trainable)
        return fit(self, model, context, [_keep(self, context)] if self.keep else [])

    def describe(self) -> str:
        """Tells the training."""
        said = describe_training(self)
        if self.trainable is None:
            return said
        return f"{said}, {'all layers' if self.trainable == 'all' else 'the head alone'}"


def _set_trainable(model: keras.Model, which: str | None) -> None:
    """Freezes all but the head, or sets all layers free."""
    if which is None:
        return
    # It reaches the layers of nested models.
    model.trainable = True
    if which == "head":
        with_weights = [layer for layer in model.layers if layer.weights]
        for layer in with_weights[:-1]:
            layer.trainable = False


class RetrainStep(TrainingStep):
    """Trains a pruned model on, its zeros held, in one of the ways of Renda et al. 2020.

    `finetune` trains on from the weights as they are. `lr` also keeps the weights, and replays the
    schedule of the learning rate from `epoch` on. `weights` puts the living weights back to what
    they were after `epoch` of the chain's first training (0: at initialisation), and replays from
    there. `reinit` draws them anew under the same masks: the control of Frankle & Carbin 2019.
    `random` draws the masks as well, as many living weights in each tensor.
    """

    trains_new = False

    kind: Literal["retrain"]
    rewind: Literal["finetune", "lr", "weights", "reinit", "random"] = "finetune"
    epoch: Annotated[int, Field(ge=0, description="to rewind to")] = 0

    @model_validator(mode="after")
    def _epoch_is_used(self) -> RetrainStep:
        if self.epoch and self.rewind not in ("lr", "weights"):
            raise ValueError(f'epoch={self.epoch} has no meaning with rewind = "{self.rewind}"')
        if self.epoch >= self.epochs:
            raise ValueError(f"epoch={self.epoch} leaves nothing of {self.epochs} epochs to train")
        return self

    @property
    def epochs_to_train(self) -> int:
        """How many epochs it trains."""
        return self.epochs - self.epoch

    def mistake(self, name: str, before: Sequence[tuple[str, Step]], from_file: bool) -> str | None:
        """Weights are rewound to what is known, in the shapes that they have."""
        if self.rewind == "weights":
            if from_file:
                return 'rewinds a .keras file, whose start is not known: use rewind = "lr"'
            for _, step in before:
                if step.reshapes:
                    return (
                        f"rewinds weights after a {step.kind} step, whose shapes are others: "
                        'use rewind = "lr"'
                    )
            first = before[0][1] if before else None
            if self.epoch and not (isinstance(first, TrainStep) and self.epoch in first.keep):
                return (
                    f"rewinds to epoch {self.epoch}, which its first step does not keep: "
                    f"give that step keep = [{self.epoch}]"
                )
        return super().mistake(name, before, from_file)

    def perform(self, model: keras.Model, context: Context) -> Result:
        """Rewinds the weights, and trains with the zeros held.

        It rewinds to an epoch, where `tfprune.lottery` rewinds to a step: a pipeline resumes its
        trainings at epochs, from which the order of the data and the learning rate follow; see
        `tfprune.weights.lottery`.
        """
        from tfprune import weights

        if self.rewind == "weights" and context.origin is not None:
            model = weights.rewind(model, context.origin(self.epoch, context.seed))
        if self.rewind in ("reinit", "random"):
            model = weights.untrained_control(model, self.rewind, context.seed)
        return fit(self, model, context, [weights.KeepZeros()], first_epoch=self.epoch)

    def describe(self) -> str:
        """Tells where the weights start, and the training."""
        start = {
            "finetune": "goes on from the weights as they are",
            "lr": f"keeps the weights and replays the learning rate from epoch {self.epoch}",
            "weights": f"puts the living weights back to epoch {self.epoch} and replays from there",
            "reinit": "draws the living weights anew",
            "random": "draws anew which weights of each tensor live, and the weights",
        }[self.rewind]
        return f"{start}, its zeros held; {describe_training(self)}"


def describe_training(step: TrainingStep) -> str:
    """The training of a step in words."""
    parts = [
        f"trains {step.epochs} epochs at learning rate {step.learning_rate:g}",
        f"{step.optimizer}, {step.schedule} schedule, batches of {step.batch_size}",
    ]
    if step.warmup_epochs:
        parts.append(f"the first {step.warmup_epochs:g} to warm up")
    if step.weight_decay:
        parts.append(f"weight decay {step.weight_decay:g}")
    if step.augment:
        parts.append(f"augmented by {' and '.join(step.augment)}")
    if step.precision != "float32":
        parts.append(f"computed in {step.precision}")
    if step.clip_norm is not None:
        parts.append(f"gradients clipped to a norm of {step.clip_norm:g}")
    if step.clip_value is not None:
        parts.append(f"gradients clipped to entries of {step.clip_value:g}")
    if step.early_stopping is not None:
        what = "loss" if step.early_stopping_on == "loss" else "figure"
        parts.append(
            f"stopped when the validation {what} has not improved for {step.early_stopping} epochs"
        )
    if step.distribution is not None:
        parts.append("each batch shared among the GPUs")
    if step.teacher:
        parts.append(f"taught by {step.teacher} for {step.teacher_weight:.0%} of the loss")
    return ", ".join(parts)


def kept_model(folder: Path, epoch: int) -> Path:
    """Where a training keeps the model as it was after an epoch, counted from 1."""
    return folder / f"epoch-{epoch}.keras"


def fit(
    step: TrainingStep,
    model: keras.Model,
    context: Context,
    callbacks: list[keras.callbacks.Callback],
    first_epoch: int = 0,
) -> Result:
    """Trains a model as a step says, and records the history.

    Args:
        step: the training and its teacher.
        model: what to train; it is changed.
        context: data, seed and a folder.
        callbacks: what prunes or holds weights.
        first_epoch: where the schedule of the learning rate begins.
    """
    import keras

    from tfprune import training

    # Scalars of an epoch only: graphs and histograms would cost more than small nets do.
    board = keras.callbacks.TensorBoard(str(context.folder / "tensorboard"), write_graph=False)
    fitted = training.fit(
        model,
        context.images,
        step,
        seed=context.seed,
        task=context.task(model),
        first_epoch=first_epoch,
        teacher=_teacher(step, context),
        callbacks=[*callbacks, board],
        backup_dir=context.folder / SCRATCH,
        progress=context.label,
        after=context.after,
    )
    return model, {
        "epochs": len(fitted.history),
        "seconds_per_epoch": fitted.seconds_per_epoch,
        # Without early stopping, the last one, which needs no record.
        **({} if step.early_stopping is None else {"best_epoch": fitted.best_epoch}),
        "history": fitted.history.to_dict("list"),
    }


def _teacher(step: TrainingStep, context: Context) -> Teacher | None:
    from tfprune.training.distillation import Teacher

    if step.teacher is None or context.earlier is None:
        return None
    return Teacher(context.earlier(step.teacher), step.teacher_weight, step.temperature)


def _keep(step: TrainStep, context: Context) -> keras.callbacks.Callback:
    """A callback that keeps the model as it is after some epochs."""
    import keras

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            if epoch + 1 in step.keep:
                path = kept_model(context.folder, epoch + 1)
                # It may be a copy that trains, on several devices.
                save(self.model, path.parent, path.stem)

    return Keep()
