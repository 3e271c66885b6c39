"""The kinds of steps, one class each: its table, what it does, and its words.

A new kind is a class of `Step` in one of these modules, or in a module of its own that is imported
here, or in a Python file that `tfprune run --import FILE.py` names. Nothing here loads Keras before
a step is done.
"""

# In the order in which help and errors list the kinds.
# isort: off
from tfprune.pipeline.steps import training
from tfprune.pipeline.steps import weights
from tfprune.pipeline.steps import filters
from tfprune.pipeline.steps import quantize
from tfprune.pipeline.steps import files

# isort: on
from tfprune.pipeline.steps.base import (
    CALIBRATION_IMAGES,
    FORMER_NAMES,
    KINDS,
    SCRATCH,
    Context,
    Result,
    Step,
    Table,
    any_step,
    describe,
    distinct,
    is_empty,
    read_step,
)

__all__ = [
    "CALIBRATION_IMAGES",
    "FORMER_NAMES",
    "KINDS",
    "SCRATCH",
    "Context",
    "Result",
    "Step",
    "Table",
    "any_step",
    "describe",
    "distinct",
    "files",
    "filters",
    "is_empty",
    "quantize",
    "read_step",
    "training",
    "weights",
]
