"""One output of a model with its target, its loss and its metrics."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from tfprune import functions
from tfprune.errors import UsageError, did_you_mean, one_line
from tfprune.figures import Direction, Figure, Number
from tfprune.model.cloning import fresh_copy
from tfprune.tasks import metrics
from tfprune.tasks.ends import Output
from tfprune.tasks.spec import FIGURES, Identifier, Kind, identifier_name

Labels = Literal["numbers", "one-hot"]
SPARSE: Labels = "numbers"
ONE_HOT: Labels = "one-hot"

_CROSSENTROPIES = ("crossentropy", "ce")
_ACCURACIES = ("accuracy", "acc")
# Their thresholds are probabilities, and logits have none.
_OF_PROBABILITIES = frozenset(
    {
        "precision",
        "recall",
        "precision_at_recall",
        "recall_at_precision",
        "sensitivity_at_specificity",
        "specificity_at_sensitivity",
        "true_positives",
        "true_negatives",
        "false_positives",
        "false_negatives",
        "fbeta_score",
        "f1_score",
        "kl_divergence",
    }
)
_BINARY = ("binary", "multi-label")


@dataclass(frozen=True, eq=False)
class OutputTarget:
    """What is known about the target of one output.

    Attributes:
        shape: of one example.
        kind: of the dtype, as NumPy abbreviates it: "i" and "u" for integers, "b", "f".
        sample: gives a few of the values, shape `(n, *shape)`.
    """

    shape: tuple[int | None, ...]
    kind: str
    sample: Callable[[], np.ndarray]

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers or booleans."""
        return self.kind in "iub"


@dataclass(frozen=True)
class NamedMetric:
    """A metric of an output.

    Attributes:
        name: its name in the history of an only output.
        figure: how it is written; its `better` is None where that is not known.
        make: makes a new one for the head.
    """

    name: str
    figure: Figure
    make: Callable[[Head], keras.Metric]


@dataclass(frozen=True, eq=False)
class Head:
    """One output of a model with its target, its loss and its metrics.

    Attributes:
        output: the output.
        where: what messages call it, such as "model 'net'" or "output 'angle' of model 'net'".
        kind: what it is for; None for a loss that tfprune does not know.
        labels: how the targets of classes are written.
        logits: whether the output is logits; None where that is not known.
        ignore_class: the target that stands for no class.
        loss_identifier: as a person or a compiled model gave it; None for the kind's own.
        weight: of its loss in the sum.
        metrics: all of its metrics.
        trained: whether there is a loss.
        weighted: whether the examples have weights.
    """

    output: Output
    where: str
    kind: Kind | None
    labels: Labels = SPARSE
    logits: bool | None = None
    ignore_class: int | None = None
    loss_identifier: Any = None
    weight: float | None = None
    metrics: tuple[NamedMetric, ...] = ()
    trained: bool = True
    weighted: bool = False

    @property
    def name(self) -> str:
        """The name of the output."""
        return self.output.name

    @property
    def classes(self) -> int:
        """How many classes the output tells apart."""
        if self.kind == "binary" or (self.kind == "segmentation" and self.output.channels == 1):
            return 2
        return self.output.channels or 0

    @property
    def has_classes(self) -> bool:
        """Whether each example, step or pixel belongs to one class."""
        return self.kind in ("classification", "binary", "segmentation")

    @property
    def is_plain_classification(self) -> bool:
        """Whether one class an example is learnt with plain cross-entropy."""
        return (
            self.kind == "classification"
            and len(self.output.shape) == 1
            and self.loss_identifier is None
        )

    @property
    def from_logits(self) -> bool:
        """Whether the output is logits.

        Raises:
            UsageError: that is not known.
        """
        if self.logits is None:
            raise UsageError(
                f"{self.where} ends in something that tfprune does not know, so its outputs may be "
                "logits or probabilities: give the task from_logits = true or false"
            )
        return self.logits

    def loss(self) -> keras.Loss | None:
        """A new loss; None for an output that is not trained."""
        if not self.trained:
            return None
        if self.loss_identifier is not None:
            return make_loss(self.loss_identifier, self)
        return _kind_loss(self)

    @property
    def loss_unit(self) -> str:
        """The unit of the loss: that of a cross-entropy is known."""
        if self.loss_identifier is None:
            return "" if self.kind in (None, "regression") else "nats"
        name = metrics.plain(loss_name(self.loss_identifier))
        return "nats" if name.endswith("crossentropy") and "focal" not in name else ""

    def with_metrics(self, found: Sequence[NamedMetric]) -> Head:
        """The head with these metrics."""
        return dataclasses.replace(self, metrics=tuple(found))


def kind_metrics(head: Head, top: int | None) -> list[NamedMetric]:
    """The metrics that a kind brings, the compared one first."""
    if head.kind is None:
        return []
    wanted = [FIGURES[head.kind]]
    if top is not None and head.kind == "classification":
        if (head.output.channels or top + 1) <= top:
            raise UsageError(
                f"{head.where} has {head.output.channels} classes, so all of them are among the "
                f"{top} likeliest: give a smaller top"
            )
        wanted.append(f"top_{top}_accuracy")
    return [named_metric(each, head) for each in wanted]


# -- losses ------------------------------------------------------------------------------------


def _kind_loss(head: Head) -> keras.Loss:
    match head.kind:
        case "classification" | "segmentation" if head.classes == 2 and head.output.channels == 1:
            _refuse_ignored(head)
            return keras.losses.BinaryCrossentropy(from_logits=head.from_logits)
        case "classification" | "segmentation" if head.labels == ONE_HOT:
            _refuse_ignored(head)
            return keras.losses.CategoricalCrossentropy(from_logits=head.from_logits)
        case "classification" | "segmentation":
            return keras.losses.SparseCategoricalCrossentropy(
                from_logits=head.from_logits, ignore_class=head.ignore_class
            )
        case "binary" | "multi-label":
            return keras.losses.BinaryCrossentropy(from_logits=head.from_logits)
        case "regression":
            return keras.losses.MeanSquaredError()
        case _:
            raise UsageError(f"{head.where} has neither a kind nor a loss: give the task one")


def _refuse_ignored(head: Head) -> None:
    if head.ignore_class is not None:
        raise UsageError(
            f"{head.where}: ignore_class needs targets of class numbers and one output a class; "
            "give these, or sample weights of 0"
        )


def make_loss(identifier: Any, head: Head) -> keras.Loss:
    """The loss of an identifier, or of an object that a model was compiled with.

    Raises:
        UsageError: it is unknown, or does not take its arguments.
    """
    if isinstance(identifier, keras.Loss):
        return _corrected(identifier, head)
    if not isinstance(identifier, str | dict):
        return _loss_object(_instance(identifier, {}, head, "loss"), head)
    name, config = identifier_name(identifier), _config(identifier)
    if name.lower() in _CROSSENTROPIES:
        known = {"binary": "BinaryCrossentropy", "multi-label": "BinaryCrossentropy"}
        sparse = "Sparse" if head.labels == SPARSE else ""
        name = known.get(head.kind or "", f"{sparse}CategoricalCrossentropy")
    if functions.is_file_function(name):
        return _loss_object(_instance(find_object(name), config, head, "loss", name), head)
    found = _loss_class(name)
    if found is None:
        raise UsageError(
            f"loss {name!r} is unknown: {did_you_mean(name, _loss_names(), 'give one of Keras')}, "
            "or FILE.py:NAME"
        )
    accepted = inspect.signature(found.__init__).parameters
    if "from_logits" in accepted and "from_logits" not in config:
        config = {**config, "from_logits": head.from_logits}
    if "ignore_class" in accepted and head.ignore_class is not None:
        config = {"ignore_class": head.ignore_class, **config}
    return _instance(found, config, head, "loss", name)


def _loss_object(made: Any, head: Head) -> keras.Loss:
    """A function as a loss that averages over the examples, as `compile` would make it."""
    if isinstance(made, keras.Loss):
        return made
    if not callable(made) or isinstance(made, keras.Metric):
        raise UsageError(
            f"the loss of {head.where} is a {type(made).__name__}: give a function of targets and "
            "outputs, or a keras.Loss"
        )
    # Keras does not publish the class that it wraps functions in.
    wrapper = keras.losses.MeanSquaredError.__mro__[1]
    return wrapper(made, name=_identifier_of(made))


def loss_kind(identifier: Any, output: Output) -> tuple[Kind | None, Labels]:
    """What a loss is for, and how it wants the targets of classes; None where nothing tells."""
    name = metrics.plain(loss_name(identifier))
    deep = len(output.shape) > 1
    if "sparsecategoricalcrossentropy" in name:
        return ("segmentation" if deep else "classification"), SPARSE
    if "categorical" in name and "crossentropy" in name:
        return ("segmentation" if deep else "classification"), ONE_HOT
    if "binary" in name and "crossentropy" in name:
        if deep:
            return ("segmentation" if output.channels == 1 else None), SPARSE
        return ("binary" if output.channels == 1 else "multi-label"), SPARSE
    if name in _REGRESSION:
        return "regression", SPARSE
    return None, SPARSE


_REGRESSION = frozenset(
    map(
        metrics.plain,
        (
            "mse",
            "mean_squared_error",
            "mae",
            "mean_absolute_error",
            "mape",
            "mean_absolute_percentage_error",
            "msle",
            "mean_squared_logarithmic_error",
            "huber",
            "log_cosh",
        ),
    )
)


def loss_name(identifier: Any) -> str:
    """The name of the class or the function behind a loss."""
    if isinstance(identifier, str | dict):
        name = identifier_name(identifier)
        return {"bce": "binary_crossentropy", "BCE": "binary_crossentropy"}.get(name, name)
    if isinstance(identifier, type):
        return identifier.__name__
    if type(identifier).__name__ == "LossFunctionWrapper":
        return str(getattr(identifier.fn, "__name__", ""))
    if isinstance(identifier, keras.Loss):
        return type(identifier).__name__
    return str(getattr(identifier, "__name__", type(identifier).__name__))


def is_plain_crossentropy(identifier: Any) -> bool:
    """Whether a loss is (sparse) categorical cross-entropy without further arguments."""
    plain = metrics.plain(loss_name(identifier))
    if plain not in ("sparsecategoricalcrossentropy", "categoricalcrossentropy"):
        return False
    if isinstance(identifier, dict):
        return not set(_config(identifier)) - {"from_logits", "name"}
    if isinstance(identifier, keras.Loss):
        own = identifier.get_config()
        usual = type(identifier)().get_config()
        skipped = ("from_logits", "name")
        return {k: v for k, v in own.items() if k not in skipped} == {
            k: v for k, v in usual.items() if k not in skipped
        }
    return True


def is_bare(identifier: Any) -> bool:
    """Whether a loss is a cross-entropy by its name alone, or Keras' function of that name."""
    plain = metrics.plain(loss_name(identifier))
    own = str(getattr(identifier, "__module__", "")).startswith("keras.")
    return plain.endswith("crossentropy") and (
        isinstance(identifier, str) or (own and inspect.isfunction(identifier))
    )


def given(identifier: Any, key: str) -> Any:
    """An argument that a loss carries, such as `from_logits`; None where it carries none."""
    if isinstance(identifier, dict):
        return _config(identifier).get(key)
    return identifier.get_config().get(key) if isinstance(identifier, keras.Loss) else None


def _corrected(loss: keras.Loss, head: Head) -> keras.Loss:
    """A new loss from a compiled one, told rightly whether the outputs are logits."""
    try:
        config = loss.get_config()
        if config.get("from_logits") is not None and head.logits is not None:
            config["from_logits"] = head.logits
        return type(loss).from_config(config)
    # A loss of one's own may have no config; it keeps no state.
    except Exception:
        return loss


def _loss_class(name: str) -> type[keras.Loss] | None:
    found = keras.losses.get(name) if name in _aliases() else None
    wanted = metrics.plain(getattr(found, "__name__", name))
    return _loss_classes().get(wanted)


def _aliases() -> tuple[str, ...]:
    return ("bce", "BCE", "kld", "KLD", "mae", "MAE", "mse", "MSE", "mape", "MAPE", "msle", "MSLE")


def _loss_classes() -> dict[str, type[keras.Loss]]:
    return {
        metrics.plain(name): value
        for name, value in vars(keras.losses).items()
        if inspect.isclass(value) and issubclass(value, keras.Loss) and value is not keras.Loss
    }


def _loss_names() -> list[str]:
    functions = (name for name, value in vars(keras.losses).items() if inspect.isfunction(value))
    return [*(name for name in functions if name not in ("get", "serialize", "deserialize")), "mse"]


# -- metrics -----------------------------------------------------------------------------------


def named_metric(identifier: Any, head: Head) -> NamedMetric:
    """The metric of an identifier, or of an object that a model was compiled with.

    Args:
        identifier: see `TaskSpec.metrics`; or a Keras metric, a class or a function.
        head: the output.

    Raises:
        UsageError: it is unknown, or does not take its arguments.
    """
    if not isinstance(identifier, str | dict):
        return _own_metric(identifier, {}, head, None)
    name, config = identifier_name(identifier), _config(identifier)
    if functions.is_file_function(name):
        own = name.rsplit(":", 1)[-1]
        return _own_metric(find_object(name), config, head, own)
    row = metrics.metric(name)
    if row is None:
        raise UsageError(
            f"metric {name!r} is unknown: {did_you_mean(name, metrics.names())}, or FILE.py:NAME"
        )
    called = str(config.pop("name", row.name))
    figure = dataclasses.replace(row, name=called).figure()
    return NamedMetric(called, figure, lambda own: _keras_metric(row, called, config, own))


def _keras_metric(
    row: metrics.Metric, called: str, config: dict[str, Any], head: Head
) -> keras.Metric:
    """A metric of `keras.metrics`, told what the head knows."""
    known, sparse = keras.metrics, head.labels == SPARSE
    thresholds = head.kind in _BINARY or head.output.channels == 1
    if row.name == "binary_accuracy" or (row.name == "accuracy" and thresholds):
        found: Any = known.BinaryAccuracy
        if head.from_logits and "threshold" not in config:
            # Keras' BinaryAccuracy takes thresholds between 0 and 1 only.
            function = known.binary_accuracy
            return known.MeanMetricWrapper(function, name=called, threshold=0.0, **config)
    elif row.name == "accuracy":
        found = known.SparseCategoricalAccuracy if sparse else known.CategoricalAccuracy
    elif (top := metrics.top_count(row.name)) is not None:
        found = known.SparseTopKCategoricalAccuracy if sparse else known.TopKCategoricalAccuracy
        config = {"k": top, **config}
    elif row.name == "mean_iou" and head.output.channels == 1:
        found = known.BinaryIoU
    else:
        found = getattr(known, row.keras)
    return _instance(
        found, {"name": called, **_filled(found, row, config, head)}, head, "metric", row.name
    )


def _filled(found: Any, row: metrics.Metric, config: dict[str, Any], head: Head) -> dict[str, Any]:
    """The config of a metric with what the head knows, where a person did not give it."""
    accepted = inspect.signature(found.__init__).parameters
    usual: dict[str, Any] = {}
    if issubclass(found, keras.metrics.IoU):
        if head.weighted:
            # Keras counts in integers, and would cut the weights to these.
            usual["dtype"] = "float32"
        if found is keras.metrics.BinaryIoU:
            usual["threshold"] = 0.0 if head.from_logits else 0.5
        else:
            usual |= {"num_classes": head.classes, "ignore_class": head.ignore_class}
            if found in (keras.metrics.MeanIoU, keras.metrics.IoU):
                usual |= {"sparse_y_true": head.labels == SPARSE, "sparse_y_pred": False}
            if "target_class_ids" in accepted:
                usual["target_class_ids"] = list(range(head.classes))
    if "from_logits" in accepted and "from_logits" not in config:
        usual["from_logits"] = head.from_logits
    if row.name in ("f1_score", "fbeta_score"):
        usual["average"] = "macro"
        if head.kind in _BINARY:
            usual["threshold"] = 0.5
    threshold = {**usual, **config}.get("threshold") is not None or "score" not in row.name
    if row.name in _OF_PROBABILITIES and threshold and head.from_logits:
        raise UsageError(
            f"metric {row.name!r} needs probabilities, and {head.where} gives logits: end the "
            "model in a sigmoid or softmax, or choose another metric"
        )
    return {**usual, **config}


def _own_metric(value: Any, config: dict[str, Any], head: Head, called: str | None) -> NamedMetric:
    """A metric that is a function, a class or an instance."""
    example = _metric_object(value, config, head, called)
    name = str(example.name)
    row, called_as = _row_of(value), metrics.metric(name)
    if row and called_as and (row.unit, row.better) == (called_as.unit, called_as.better):
        # Such as the IoU of both sides of 0.5, which is the mean IoU of two classes.
        row = called_as
    direction = (row.better if row else None) or _direction(example)
    if row is not None:
        figure = dataclasses.replace(row, name=name, better=direction).figure()
    else:
        title = name.replace("_", " ")
        meaning = f"{title} on the test set"
        figure = Figure(name, title, Number("", None, flags=""), "artifact", meaning, direction)
    return NamedMetric(name, figure, lambda own: _metric_object(value, config, own, called))


def _metric_object(
    value: Any, config: dict[str, Any], head: Head, called: str | None
) -> keras.Metric:
    if isinstance(value, keras.Metric):
        try:
            copied = fresh_copy(value)
        # `from_config` of one's own class may raise anything.
        except Exception as error:
            raise UsageError(
                f"metric {value.name!r} cannot be made anew from its config ({one_line(error)}): "
                "give its class, or correct its get_config"
            ) from error
        copied.name = value.name
        return copied
    made = _instance(value, config, head, "metric", called)
    if isinstance(made, keras.Metric):
        return made
    if not callable(made):
        raise UsageError(
            f"metric {called!r} is a {type(made).__name__}: give a function of targets and "
            "outputs, or a keras.Metric"
        )
    name = called or _identifier_of(made)
    return keras.metrics.MeanMetricWrapper(made, name=name)


def _row_of(value: Any) -> metrics.Metric | None:
    """The row of the metric that a compiled object is."""
    if type(value).__name__ == "MeanMetricWrapper":
        value = getattr(value, "_fn", None)
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    names = [kind.__name__ for kind in kinds if kind.__module__.startswith("keras.")]
    if callable(value) and not isinstance(value, keras.Metric | type):
        names = [str(getattr(value, "__name__", ""))]
        if not str(getattr(value, "__module__", "")).startswith("keras."):
            return None
    return next((row for row in map(metrics.metric, names) if row), None)


def _direction(metric: keras.Metric) -> Direction | None:
    """The direction that a metric of Keras itself knows."""
    known: dict[Any, Direction] = {"up": "higher", "down": "lower"}
    return known.get(getattr(metric, "_direction", None))


# -- identifiers -------------------------------------------------------------------------------


def find_object(reference: str) -> Any:
    """The function, class or instance that FILE.py:NAME names.

    Raises:
        UsageError: there is no such file or name.
    """
    return functions.imported(functions.file_function(reference))


def _identifier_of(value: Any) -> str:
    """A name that Keras takes: a lambda has none."""
    name = str(getattr(value, "__name__", type(value).__name__))
    return re.sub(r"\W", "_", name).strip("_") or "own"


def _config(identifier: Identifier) -> dict[str, Any]:
    return dict(identifier.get("config", {})) if isinstance(identifier, dict) else {}


def _instance(
    value: Any, config: dict[str, Any], head: Head, what: str, name: str | None = None
) -> Any:
    """An instance of a class; any other object as it is."""
    if not isinstance(value, type):
        if config:
            raise UsageError(f"{what} {name!r} is not a class: it takes no config, so leave it out")
        return value
    try:
        return value(**config)
    except Exception as error:
        shown = name or value.__name__
        raise UsageError(
            f"{what} {shown!r} of {head.where} cannot be made ({one_line(error)}): "
            "correct its config"
        ) from error
