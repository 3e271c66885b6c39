"""The task of a model: from a specification, from how it was compiled, or from its targets."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfprune import figures
from tfprune.data.splits import Examples, Split
from tfprune.errors import UsageError, did_you_mean
from tfprune.figures import Figure, Number
from tfprune.tasks import metrics
from tfprune.tasks.checks import some_of
from tfprune.tasks.ends import Ends, Output, ends_of
from tfprune.tasks.heads import (
    ONE_HOT,
    SPARSE,
    Head,
    Labels,
    NamedMetric,
    OutputTarget,
    given,
    is_bare,
    is_plain_crossentropy,
    kind_metrics,
    loss_kind,
    named_metric,
)
from tfprune.tasks.spec import LOSS, Kind, TaskSpec, is_identifier
from tfprune.tasks.task import Task

if TYPE_CHECKING:
    from tfprune.data import Dataset


_ASK = 'give a task, such as kind = "regression" or --task regression'


def find_task(
    model: keras.Model,
    spec: TaskSpec | None = None,
    dataset: Dataset | None = None,
    *,
    like: keras.Model | None = None,
) -> Task:
    """The task of a model: as specified, else as the model was compiled, else classification.

    Example:
        ```python
        find_task(model).figure.name  # "accuracy" for a classifier
        find_task(model, TaskSpec(kind="regression", unit="mm"), dataset).figure.name  # "mae"
        ```

    Without a specification and a compiled model, a classification is recognised: class numbers or
    one-hot targets, one sigmoid for two classes, several sigmoids for several labels.

    Args:
        model: a functional or built Sequential model.
        spec: the `[task]` table, or `--task`.
        dataset: the data, which tell how targets are written.
        like: the model that this one was made from: its compilation counts where this one has
            none.

    Raises:
        UsageError: the task is not clear, or does not fit the model or the data.
    """
    found = None if dataset is None else dataset.train
    classes = () if dataset is None else dataset.classes
    name = "the data" if dataset is None else dataset.name
    compiled = compiled_with(model) or (None if like is None else compiled_with(like))
    return resolve(ends_of(model), spec, compiled, found, classes, name)


@dataclass(frozen=True, eq=False)
class Compiled:
    """What a model was compiled with, by outputs."""

    losses: list[Any]
    metrics: list[list[Any]]
    weights: list[float | None]


def resolve(
    ends: Ends,
    spec: TaskSpec | None,
    compiled: Compiled | None,
    examples: Split | Examples | None,
    classes: tuple[str, ...] = (),
    data_name: str = "the data",
) -> Task:
    """The task of what has these ends; see `find_task`."""
    spec = spec or TaskSpec()
    targets = _targets(ends, examples)
    if any(target.kind not in "iubf" for target in targets or ()):
        raise UsageError(f"{data_name} has targets that are not numbers: give numbers")
    count = len(ends.outputs)
    kinds = _by_outputs(spec.kind, ends, "kind")
    losses = _by_outputs(spec.loss, ends, "loss")
    listed: list[list[Any] | None] = _metric_lists(spec.metrics, ends)
    weights = _by_outputs(spec.loss_weights, ends, "loss_weights")
    from_model = compiled is not None and spec.kind is None and spec.loss is None
    if compiled is not None and from_model:
        losses = compiled.losses
        listed = [*compiled.metrics] if spec.metrics is None else listed
        weights = compiled.weights if spec.loss_weights is None else weights
    if count > 1 and not from_model and spec.kind is None and spec.loss is None:
        raise UsageError(
            f"{ends.where} has {count} outputs: give a task with a kind or a loss for each of "
            f"{', '.join(ends.names)}, and the figure that is compared"
        )
    if spec.from_logits and any(each.activation == "softmax" for each in ends.outputs):
        raise UsageError(
            f"from_logits = true, but {ends.where} ends in a softmax: leave from_logits out"
        )
    weighted = examples is not None and _weights_given(examples)
    heads = []
    for place, output in enumerate(ends.outputs):
        where = ends.where if count == 1 else f"output {output.name!r} of {ends.where}"
        kind, loss = kinds[place], losses[place]
        if kind is None and loss is None and not from_model and count > 1:
            raise UsageError(f"{where} has neither a kind nor a loss: give the task one for it")
        head = _head(
            output,
            targets[place] if targets else None,
            where,
            spec,
            kind,
            loss,
            weights[place],
            compiled=from_model,
            trained=not from_model or loss is not None,
            weighted=weighted,
            data_name=data_name,
        )
        own = listed[place]
        if own is None:
            found = kind_metrics(head, spec.top)
        else:
            found = [named_metric(_usual(each, head) if from_model else each, head) for each in own]
            if spec.top is not None and head.kind == "classification":
                found += kind_metrics(head, spec.top)[1:]
        heads.append(head.with_metrics(_distinct(found, where)))
    heads, compared, figure = _figure(heads, spec, from_model, ends)
    task = Task(figure, tuple(heads), ends, weighted, compared, spec.class_weights, classes)
    if spec.class_weights is not None:
        task._weighted_place()
    return task


def _head(
    output: Output,
    target: OutputTarget | None,
    where: str,
    spec: TaskSpec,
    kind: Kind | None,
    loss: Any,
    weight: float | None,
    *,
    compiled: bool,
    trained: bool,
    weighted: bool,
    data_name: str,
) -> Head:
    labels = SPARSE
    if kind is None and loss is not None:
        kind, labels = loss_kind(loss, output)
        if kind == "binary" and output.activation == "softmax":
            kind = "classification"
    elif kind is None and trained:
        kind = _recognised(output, target, where, data_name)
    if target is not None and kind in ("classification", "segmentation"):
        labels = _label_form(output, target)
    elif loss is None and kind == "classification":
        labels = SPARSE
    plain = loss is not None and kind in ("classification", "segmentation")
    named, compiled_for, ignored = loss, given(loss, "from_logits"), given(loss, "ignore_class")
    if plain and (output.channels or 0) > 1 and is_plain_crossentropy(loss):
        loss = None
    logits = {"softmax": False, "sigmoid": False, "none": True}.get(output.activation or "")
    if compiled_for is None and compiled and named is not None and is_bare(named):
        # A name, and a function of Keras, stand for a loss of probabilities.
        compiled_for = False
    if spec.from_logits is not None:
        logits = spec.from_logits
    elif logits is None:
        logits = compiled_for
    elif compiled_for is not None and compiled_for != logits:
        is_given = "logits" if compiled_for else "probabilities"
        ends_in = output.activation if not logits else "neither softmax nor sigmoid"
        warnings.warn(
            f"{where}: its loss was compiled for {is_given}, and the model ends in {ends_in}: the "
            f"loss is computed from {'logits' if logits else 'probabilities'}",
            stacklevel=2,
        )
    head = Head(
        output,
        where,
        kind,
        labels,
        logits,
        ignored if spec.ignore_class is None else spec.ignore_class,
        loss,
        weight,
        trained=trained,
        weighted=weighted,
    )
    _check_kind(head)
    if target is not None:
        _check_shapes(head, target, data_name, weighted or spec.class_weights is not None)
    return head


def _recognised(output: Output, target: OutputTarget | None, where: str, data_name: str) -> Kind:
    """The kind that outputs and targets show; one line that asks where they do not."""
    many = (output.channels or 2) > 1
    if len(output.shape) > 1:
        raise UsageError(
            f"{where} gives outputs of shape {output.shape} an example, which may be a "
            'segmentation or a regression: give a task, kind = "segmentation" or "regression"'
        )
    single = target is None or target.shape in ((), (1,))
    if not many:
        if output.activation == "sigmoid" and (
            target is None or (single and _zeros_and_ones(target))
        ):
            return "binary"
        raise UsageError(
            f"{where} gives one number an example, which may be a regression or one class of two: "
            'give a task, such as kind = "regression" or kind = "binary"'
        )
    if target is None:
        return "multi-label" if output.activation == "sigmoid" else "classification"
    if single and target.whole:
        return "classification"
    if len(target.shape) == 1 and target.shape[0] == output.channels and _zeros_and_ones(target):
        ones = target.sample().sum(axis=1)
        if output.activation == "sigmoid":
            return "multi-label"
        if (ones == 1).all():
            return "classification"
        raise UsageError(
            f"{data_name} has targets with several ones, and {where} is not known to end in "
            'sigmoids: give a task, such as kind = "multi-label"'
        )
    numbers = "integers" if target.whole else "floats"
    if single and (target.sample() == np.round(target.sample())).all():
        raise UsageError(
            f"{data_name} has targets that are whole numbers written as floats, which may be "
            'classes: give a task, kind = "classification" or kind = "regression"'
        )
    raise UsageError(
        f"{data_name} has targets of shape {target.shape}, {numbers}, which are not class numbers: "
        f"{_ASK}"
    )


def _label_form(output: Output, target: OutputTarget) -> Labels:
    rank = len(output.shape)
    same = len(target.shape) == rank and target.shape[-1] == output.channels
    return ONE_HOT if same and (output.channels or 0) > 1 else SPARSE


def _check_kind(head: Head) -> None:
    """Whether the kind fits the output alone."""
    channels, rank = head.output.channels, len(head.output.shape)
    wrong = ""
    if head.kind == "classification" and channels == 1:
        wrong = 'a classification needs one output a class: give kind = "binary"'
    elif head.kind == "binary" and (channels != 1 or rank > 1):
        wrong = 'kind "binary" needs one output: give kind = "classification" or "multi-label"'
    elif head.kind == "multi-label" and rank != 1:
        wrong = 'kind "multi-label" needs one output a label: give another kind'
    elif head.kind == "segmentation" and rank < 2:
        wrong = 'a segmentation needs outputs for each pixel: give kind = "classification"'
    elif head.kind in ("binary", "multi-label") and head.output.activation == "softmax":
        wrong = f'kind "{head.kind}" needs sigmoids or logits, and a softmax sums to 1'
    elif head.kind == "segmentation" and channels == 1 and head.output.activation == "softmax":
        wrong = "the softmax of one channel is always 1: end the model in a sigmoid"
    if wrong:
        raise UsageError(f"{head.where} gives outputs of shape {head.output.shape}, and {wrong}")


def _check_shapes(head: Head, target: OutputTarget, data_name: str, weighed: bool) -> None:
    """Whether outputs and targets of these shapes belong together."""
    output, shape = head.output.shape, target.shape
    if head.kind is None:
        return
    if head.has_classes and head.labels == SPARSE:
        wanted = output if head.output.channels == 1 else (*output[:-1], 1)
        what = "one class number"
        what += " a pixel" if len(output) > 1 else " an example"
    else:
        wanted = output
        what = {"multi-label": "one 0 or 1 a label"}.get(head.kind, "one number an output")
    if not (_same(shape, wanted) or (wanted and wanted[-1] == 1 and _same(shape, wanted[:-1]))):
        raise UsageError(
            f"{data_name} has targets of shape {shape} an example, and {head.where} gives outputs "
            f"of shape {output}: {head.kind} needs {what}"
        )
    flat = head.kind == "segmentation" and wanted[-1] == 1 and len(shape) < len(output)
    if flat and output[-1] == 1 and weighed:
        # Keras' binary cross-entropy would average over the last axis of the image.
        raise UsageError(
            f"{data_name} has targets of shape {shape} an example: to weigh pixels of one channel, "
            "give targets with a last axis of 1"
        )
    if head.has_classes and head.labels == SPARSE and not target.whole:
        values = target.sample()
        if (values != np.round(values)).any():
            raise UsageError(
                f"{data_name} has targets that are not whole numbers, and {head.kind} needs class "
                f"numbers: {_ASK}"
            )


def _same(shape: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        None in (a, b) or a == b for a, b in zip(shape, wanted, strict=True)
    )


def _zeros_and_ones(target: OutputTarget) -> bool:
    return bool(np.isin(target.sample(), (0, 1)).all())


def _usual(identifier: Any, head: Head) -> Any:
    """A compiled metric of class numbers or thresholds in the form that fits the head's targets."""
    kinds = keras.metrics
    if type(identifier) in (kinds.SparseCategoricalAccuracy, kinds.CategoricalAccuracy):
        named = identifier.name
        if head.kind in ("classification", "segmentation"):
            usual = named.endswith("categorical_accuracy") or named in ("accuracy", "acc")
            return "accuracy" if usual else {"class_name": "accuracy", "config": {"name": named}}
    if type(identifier) in (kinds.SparseTopKCategoricalAccuracy, kinds.TopKCategoricalAccuracy):
        return f"top_{identifier.get_config()['k']}_accuracy"
    half = type(identifier) is kinds.BinaryAccuracy and identifier.threshold == 0.5
    if half and head.kind in ("binary", "multi-label"):
        return "accuracy" if head.kind == "binary" else "binary_accuracy"
    if isinstance(identifier, str) and metrics.plain(identifier) in (
        "sparsecategoricalaccuracy",
        "categoricalaccuracy",
    ):
        return "accuracy"
    return identifier


def _distinct(found: Sequence[NamedMetric], where: str) -> list[NamedMetric]:
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{where} has two metrics called {name!r}: give one another name, as in "
                '{ class_name = "…", config = { name = "…" } }'
            )
        if name == LOSS:
            raise UsageError(f"{where} has a metric called 'loss', as the loss is: rename it")
    return list(found)


def _figure(
    heads: list[Head], spec: TaskSpec, from_model: bool, ends: Ends
) -> tuple[list[Head], int | None, Figure]:
    """The compared figure; its metric is added where the figure alone names it."""
    alone = len(heads) == 1
    if spec.figure is None:
        known = [
            (place, each)
            for place, head in enumerate(heads)
            for each in head.metrics
            if each.figure.better is not None
        ]
        if not alone and not from_model:
            raise UsageError(
                f"{ends.where} has {len(heads)} outputs, and one figure is compared: give figure, "
                f"one of {', '.join([*_choices(heads), LOSS])}"
            )
        if not known:
            if any(head.metrics for head in heads) and not from_model:
                name = next(head.metrics[0].name for head in heads if head.metrics)
                raise UsageError(
                    f"it is not known whether a higher or a lower {name} is better: give figure = "
                    f'"{name}" and better = "higher" or "lower"'
                )
            return heads, None, _loss_figure(heads, spec)
        place, metric = known[0]
    elif spec.figure == LOSS:
        return heads, None, _loss_figure(heads, spec)
    else:
        heads, place, metric = _named_figure(heads, spec.figure)
    figure = metric.figure
    if spec.better is not None and figure.better is None:
        figure = dataclasses.replace(figure, better=spec.better)
    if figure.better is None:
        raise UsageError(
            f'better is missing: say better = "higher" or "lower" for the figure {metric.name!r}'
        )
    if spec.unit is not None:
        if figure.number.unit:
            raise UsageError(
                f"unit = {spec.unit!r} does not fit {figure.title}: it is given in "
                f"{figure.number.unit.strip()}"
            )
        number = Number(metrics.written_unit(spec.unit), figure.number.digits, flags="")
        figure = dataclasses.replace(figure, number=number)
    head = heads[place]
    if not alone:
        figure = dataclasses.replace(
            figure,
            name=f"{head.name}_{metric.name}",
            title=f"{figure.title} of {head.name}",
            meaning=f"{figure.meaning}, of output {head.name}",
        )
    # Pixels of one image are not right or wrong by themselves, and some examples count more.
    single = len(head.output.shape) <= 1 and not head.weighted
    figure = dataclasses.replace(
        figure,
        proportion=figure.proportion and single,
        loss_unit=_loss_unit(heads),
    )
    try:
        figures.check_name(figure.name)
    except ValueError as error:
        raise UsageError(f"{head.where}: the figure {error}") from error
    return heads, place, figure


def _loss_unit(heads: Sequence[Head]) -> str:
    return heads[0].loss_unit if len(heads) == 1 else ""


def _named_figure(heads: list[Head], wanted: str) -> tuple[list[Head], int, NamedMetric]:
    output, _, name = wanted.rpartition("/")
    places = [place for place, head in enumerate(heads) if output in ("", head.name)]
    if not places:
        names = [head.name for head in heads]
        raise UsageError(
            f"figure = {wanted!r}: no output {output!r}; {did_you_mean(output, names)}"
        )
    row = metrics.metric(name)
    same = {metrics.plain(name), metrics.plain(row.name if row else name)}
    found = [
        (place, each)
        for place in places
        for each in heads[place].metrics
        if metrics.plain(each.name) in same
    ]
    if len(found) == 1:
        return heads, *found[0]
    if len(found) > 1:
        several = " or ".join(f'"{heads[place].name}/{each.name}"' for place, each in found)
        raise UsageError(f"figure = {wanted!r} is a metric of several outputs: give {several}")
    if row is not None and len(places) == 1:
        (place,) = places
        added = named_metric(name, heads[place])
        changed = list(heads)
        changed[place] = changed[place].with_metrics([*changed[place].metrics, added])
        return changed, place, added
    choices = [*_choices(heads), LOSS]
    raise UsageError(f"figure = {wanted!r} is not there: {did_you_mean(wanted, choices)}")


def _choices(heads: Sequence[Head]) -> list[str]:
    alone = len(heads) == 1
    return [
        each.name if alone else f"{head.name}/{each.name}"
        for head in heads
        for each in head.metrics
    ]


def _loss_figure(heads: Sequence[Head], spec: TaskSpec) -> Figure:
    unit = spec.unit.strip() if spec.unit else _loss_unit(heads)
    beside = dataclasses.replace(figures.ACCURACY, loss_unit=unit)
    return dataclasses.replace(figures.loss(beside), always_spread=True, loss_unit=unit)


def _by_outputs(value: Any, ends: Ends, key: str) -> list[Any]:
    """One entry for each output: from one for all, from a list, or from a table by names."""
    count = len(ends.outputs)
    if isinstance(value, list):
        if len(value) != count:
            raise UsageError(
                f"{key} has {len(value)} entries, and {ends.where} has {count} outputs: "
                f"give one for each of {', '.join(ends.names)}"
            )
        return list(value)
    if isinstance(value, dict) and not is_identifier(value):
        for name in value:
            if name not in ends.names:
                raise UsageError(f"{key}.{name} is unknown: {did_you_mean(name, ends.names)}")
        return [value.get(name) for name in ends.names]
    return [value] * count


def _metric_lists(value: Any, ends: Ends) -> list[list[Any] | None]:
    """The metrics of each output; None for those of the kind."""
    count = len(ends.outputs)
    if value is None:
        return [None] * count
    if isinstance(value, dict):
        found = _by_outputs(value, ends, "metrics")
    elif count == 1:
        found = [[x for each in value for x in (each if isinstance(each, list) else [each])]]
    elif any(isinstance(each, list) for each in value):
        found = _by_outputs(value, ends, "metrics")
    else:
        raise UsageError(
            f"{ends.where} has {count} outputs: give metrics as a table of {', '.join(ends.names)}"
        )
    return [each if each is None or isinstance(each, list) else [each] for each in found]


def compiled_with(model: keras.Model) -> Compiled | None:
    """What a model was compiled with; None for a model without a loss."""
    if not model.compiled:
        return None
    config = model._compile_config.config
    ends = ends_of(model)
    names, keras_names = ends.names, ends.keras_names

    def each(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [value.get(a, value.get(b)) for a, b in zip(names, keras_names, strict=True)]
        if isinstance(value, list | tuple):
            return list(value) if len(value) == len(names) else [None] * len(names)
        return [value] * len(names)

    def lists(value: Any) -> list[list[Any]]:
        if not value:
            return [[] for _ in names]
        if len(names) == 1:
            flat = value.values() if isinstance(value, dict) else value
            return [
                [x for part in flat for x in (part if isinstance(part, list | tuple) else [part])]
            ]
        return [
            list(part) if isinstance(part, list | tuple) else [] if part is None else [part]
            for part in each(value)
        ]

    losses = each(config.get("loss"))
    if all(loss is None for loss in losses):
        return None
    plain, weighted = lists(config.get("metrics")), lists(config.get("weighted_metrics"))
    weights = each(config.get("loss_weights"))
    return Compiled(losses, [a + b for a, b in zip(plain, weighted, strict=True)], weights)


def _targets(ends: Ends, examples: Split | Examples | None) -> list[OutputTarget] | None:
    if examples is None:
        return None
    if isinstance(examples, Split):
        if len(examples.element_spec) < 2:
            raise UsageError(
                "the data have no targets: give data with what the model should answer"
            )
        specs = ends.arrays(examples.element_spec[1], "targets")
        sample = functools.cache(lambda: ends.arrays(some_of(examples).targets, "targets"))
        return [
            OutputTarget(tuple(spec.shape), _dtype_kind(spec.dtype), _leaf(sample, place))
            for place, spec in enumerate(specs)
        ]
    if examples.targets is None:
        raise UsageError("the data have no targets: give data with what the model should answer")
    arrays = [np.asarray(array) for array in ends.arrays(examples.targets, "targets")]
    return [
        OutputTarget(array.shape[1:], array.dtype.kind, _leaf(lambda: arrays, place))
        for place, array in enumerate(arrays)
    ]


def _leaf(sample: Callable[[], list[Any]], place: int) -> Callable[[], np.ndarray]:
    return lambda: np.asarray(sample()[place])


def _dtype_kind(dtype: Any) -> str:
    return str(np.dtype(dtype.as_numpy_dtype).kind)


def _weights_given(examples: Split | Examples) -> bool:
    if isinstance(examples, Split):
        return len(examples.element_spec) > 2
    return examples.weights is not None
