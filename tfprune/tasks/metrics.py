"""The metrics that are known: how each is written, and which way is better. Free of Keras."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from tfprune import figures
from tfprune.figures import Direction, Figure, Number


@dataclass(frozen=True)
class Metric:
    """One metric of Keras.

    Attributes:
        name: what a history, a record and a budget call it.
        title: what tables and sentences call it.
        better: which way is better; None where that depends on the task.
        meaning: what it is, in one plain phrase.
        unit: "%" for a share of 0 to 1; else what stands behind the number.
        digits: decimals; None for four significant digits.
        keras: the name of its class in `keras.metrics`.
        aliases: other names that Keras or people give it.
    """

    name: str
    title: str
    better: Direction | None
    meaning: str
    unit: str = ""
    digits: int | None = 3
    keras: str = ""
    aliases: tuple[str, ...] = ()

    def figure(self, unit: str | None = None) -> Figure:
        """The metric as the figure that models and files are compared by.

        Example:
            >>> metric("mae").figure(unit="mm").text(1.25)
            '1.25 mm'

        Args:
            unit: of the targets, where the metric has none of its own.
        """
        if self.name == figures.ACCURACY.name:
            return figures.ACCURACY
        number = Number(written_unit(unit) if unit else self.unit, self.digits, flags="")
        return Figure(
            self.name,
            self.title,
            number,
            "artifact",
            self.meaning,
            self.better,
            always_spread=True,
            proportion=self.keras.endswith("CategoricalAccuracy")
            or top_count(self.name) is not None,
        )


def written_unit(unit: str) -> str:
    """A unit that a person gives, as it stands behind a number.

    Example:
        >>> written_unit("mm"), written_unit("%")
        (' mm', ' percent')

    The sign "%" is kept for shares of 0 to 1, which are written a hundredfold.
    """
    bare = unit.strip()
    return " percent" if bare == "%" else f" {bare}"


def _share(name: str, title: str, meaning: str, keras: str, *aliases: str) -> Metric:
    return Metric(name, title, "higher", meaning, "%", 2, keras, aliases)


def _error(name: str, title: str, meaning: str, keras: str, *aliases: str) -> Metric:
    # Targets may be millions or millionths.
    return Metric(name, title, "lower", meaning, "", None, keras, aliases)


def _score(name: str, title: str, meaning: str, keras: str, *aliases: str) -> Metric:
    return Metric(name, title, "higher", meaning, "", 3, keras, aliases)


def _count(name: str, title: str, better: Direction, meaning: str, keras: str) -> Metric:
    return Metric(name, title, better, meaning, "", 0, keras)


_RIGHT = "share of the test examples that the artifact itself gets right"
_ENTROPY = "cross-entropy on the test set, nats"

METRICS = (
    # The form that fits the task: Keras' own `Accuracy` compares class numbers with each other.
    _share("accuracy", "accuracy", _RIGHT, "", "acc"),
    _share(
        "binary_accuracy",
        "binary accuracy",
        "share of the labels on the right side of 0.5",
        "BinaryAccuracy",
    ),
    _share("categorical_accuracy", "accuracy", _RIGHT, "CategoricalAccuracy"),
    _share("sparse_categorical_accuracy", "accuracy", _RIGHT, "SparseCategoricalAccuracy"),
    _share(
        "top_k_categorical_accuracy",
        "top-k accuracy",
        "share of the test examples whose class is among the likeliest",
        "TopKCategoricalAccuracy",
    ),
    _share(
        "sparse_top_k_categorical_accuracy",
        "top-k accuracy",
        "share of the test examples whose class is among the likeliest",
        "SparseTopKCategoricalAccuracy",
    ),
    _share("precision", "precision", "share of what is found that is right", "Precision"),
    _share("recall", "recall", "share of what is there that is found", "Recall"),
    _share(
        "precision_at_recall",
        "precision at recall",
        "precision at the threshold with the recall that is asked for",
        "PrecisionAtRecall",
    ),
    _share(
        "recall_at_precision",
        "recall at precision",
        "recall at the threshold with the precision that is asked for",
        "RecallAtPrecision",
    ),
    _share(
        "sensitivity_at_specificity",
        "sensitivity at specificity",
        "sensitivity at the threshold with the specificity that is asked for",
        "SensitivityAtSpecificity",
    ),
    _share(
        "specificity_at_sensitivity",
        "specificity at sensitivity",
        "specificity at the threshold with the sensitivity that is asked for",
        "SpecificityAtSensitivity",
    ),
    _score("auc", "AUC", "area under the curve of all thresholds", "AUC"),
    _score("f1_score", "F1", "harmonic mean of precision and recall", "F1Score", "f1"),
    _score("fbeta_score", "F-beta", "weighted mean of precision and recall", "FBetaScore"),
    _count("true_positives", "true positives", "higher", "ones that are found", "TruePositives"),
    _count("true_negatives", "true negatives", "higher", "zeros that are found", "TrueNegatives"),
    _count("false_positives", "false positives", "lower", "zeros taken for ones", "FalsePositives"),
    _count("false_negatives", "false negatives", "lower", "ones taken for zeros", "FalseNegatives"),
    _share(
        "mean_iou",
        "mean IoU",
        "intersection over union of each class, their mean, on the test set",
        "MeanIoU",
        "miou",
    ),
    _share("iou", "IoU", "intersection over union of the classes asked for", "IoU"),
    _share("binary_iou", "IoU", "intersection over union of both sides of 0.5", "BinaryIoU"),
    _share("one_hot_iou", "IoU", "intersection over union of the classes asked for", "OneHotIoU"),
    _share(
        "one_hot_mean_iou",
        "mean IoU",
        "intersection over union of each class, their mean, on the test set",
        "OneHotMeanIoU",
    ),
    _error(
        "mae",
        "MAE",
        "mean absolute error on the test set",
        "MeanAbsoluteError",
        "mean_absolute_error",
    ),
    _error(
        "mse", "MSE", "mean squared error on the test set", "MeanSquaredError", "mean_squared_error"
    ),
    _error(
        "rmse",
        "RMSE",
        "root of the mean squared error on the test set",
        "RootMeanSquaredError",
        "root_mean_squared_error",
    ),
    Metric(
        "mape",
        "MAPE",
        "lower",
        "mean absolute error as a percentage of the target",
        " percent",
        2,
        "MeanAbsolutePercentageError",
        ("mean_absolute_percentage_error",),
    ),
    _error(
        "msle",
        "MSLE",
        "mean squared error of the logarithms",
        "MeanSquaredLogarithmicError",
        "mean_squared_logarithmic_error",
    ),
    _error("log_cosh", "log-cosh", "mean logarithm of cosh of the error", "LogCoshError"),
    _score("r2_score", "R²", "share of the targets' variance that is explained", "R2Score", "r2"),
    _score("cosine_similarity", "cosine similarity", "cosine of the angle", "CosineSimilarity"),
    _score("pearson_correlation", "correlation", "Pearson's correlation", "PearsonCorrelation"),
    _score(
        "concordance_correlation",
        "concordance",
        "Lin's concordance correlation",
        "ConcordanceCorrelation",
    ),
    _error("hinge", "hinge", "mean hinge loss on the test set", "Hinge"),
    _error("squared_hinge", "squared hinge", "mean squared hinge loss", "SquaredHinge"),
    _error("categorical_hinge", "hinge", "mean hinge loss on the test set", "CategoricalHinge"),
    _error("kl_divergence", "KL divergence", "Kullback-Leibler divergence, nats", "KLDivergence"),
    _error("poisson", "Poisson loss", "mean Poisson loss on the test set", "Poisson"),
    _error("binary_crossentropy", "cross-entropy", _ENTROPY, "BinaryCrossentropy", "bce"),
    _error("categorical_crossentropy", "cross-entropy", _ENTROPY, "CategoricalCrossentropy"),
    _error(
        "sparse_categorical_crossentropy",
        "cross-entropy",
        _ENTROPY,
        "SparseCategoricalCrossentropy",
    ),
)
"""One row for each metric. A metric that is not here needs `better` in the task."""

_TOP = re.compile(r"top_?(\d+)(_accuracy)?")


def metric(name: str) -> Metric | None:
    """The row of a metric, by its name or a name that Keras gives it; None if there is none.

    Example:
        >>> metric("MeanAbsoluteError").name, metric("top_5_accuracy").title
        ('mae', 'top-5 accuracy')
    """
    wanted = plain(name)
    for row in METRICS:
        if wanted in map(plain, (row.name, row.keras, *row.aliases)):
            return row
    if (count := top_count(name)) is not None:
        row = _by_name()["top_k_categorical_accuracy"]
        meaning = f"share of the test examples whose class is among the {count} likeliest"
        return dataclasses.replace(
            row,
            name=f"top_{count}_accuracy",
            title=f"top-{count} accuracy",
            meaning=meaning,
            keras="",
        )
    return None


def top_count(name: str) -> int | None:
    """The number of a name such as "top_5_accuracy"; None for any other name.

    Example:
        >>> top_count("top_5_accuracy")
        5
    """
    match = _TOP.fullmatch(name)
    return int(match[1]) if match else None


def names() -> list[str]:
    """The names of all metrics."""
    return [row.name for row in METRICS]


def plain(name: str) -> str:
    """A name without what tells `MeanIoU` and `mean_iou` apart."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name() -> dict[str, Metric]:
    return {row.name: row for row in METRICS}
