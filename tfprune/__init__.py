"""tfprune makes Keras CNNs sparser or slimmer, exports them and measures what was gained.

Importing it imports neither TensorFlow nor Keras: each public name loads its module at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from tfprune.artifacts import export as export
    from tfprune.errors import TfpruneError as TfpruneError
    from tfprune.errors import UsageError as UsageError
    from tfprune.filters import GroupLasso as GroupLasso
    from tfprune.filters import LearnStructure as LearnStructure
    from tfprune.filters import channel_groups as channel_groups
    from tfprune.filters import channel_rule as channel_rule
    from tfprune.filters import remove_filters as remove_filters
    from tfprune.measure.sparsity import sparsity as sparsity
    from tfprune.model.activations import register_pointwise as register_pointwise
    from tfprune.model.counting import macs as macs
    from tfprune.model.loading import load as load
    from tfprune.pipeline.lottery import lottery as lottery
    from tfprune.slimming import plan as plan
    from tfprune.slimming import slim as slim
    from tfprune.training.schedule import polynomial_decay as polynomial_decay
    from tfprune.weights import PruneWeights as PruneWeights

__version__ = "0.1.0"

_HOME = {
    "GroupLasso": "tfprune.filters",
    "LearnStructure": "tfprune.filters",
    "PruneWeights": "tfprune.weights",
    "TfpruneError": "tfprune.errors",
    "UsageError": "tfprune.errors",
    "channel_groups": "tfprune.filters",
    "channel_rule": "tfprune.filters",
    "export": "tfprune.artifacts",
    "load": "tfprune.model.loading",
    "lottery": "tfprune.pipeline.lottery",
    "macs": "tfprune.model.counting",
    "plan": "tfprune.slimming",
    "polynomial_decay": "tfprune.training.schedule",
    "register_pointwise": "tfprune.model.activations",
    "remove_filters": "tfprune.filters",
    "slim": "tfprune.slimming",
    "sparsity": "tfprune.measure",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tfprune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    # Next time it is an ordinary attribute.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("keras")
def _register_with_keras(_keras: Any) -> None:
    """Lets `keras.saving.load_model` find `GroupLasso` after `import tfprune` alone."""
    importlib.import_module("tfprune.filters.lasso")
