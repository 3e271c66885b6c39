"""What a pipeline needs that is not in its file: a data set, files, packages.

None of it loads an image or TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tfprune.errors import UsageError, did_you_mean
from tfprune.files import existing_file
from tfprune.formats import check_installed
from tfprune.pipeline.spec import Pipeline
from tfprune.report.budgets import mistakes

_BUILT_IN = "digits"


def check_requirements(
    pipeline: Pipeline, data_dir: str | None = None, only: Sequence[str] = ()
) -> None:
    """Checks that what a pipeline names is there, as far as its names say.

    Args:
        pipeline: what is to be run.
        data_dir: where tensorflow-datasets keeps its sets; see `tfprune.data.load`.
        only: just these variants; empty for all.

    Raises:
        UsageError: the data set is unknown, or a format needs a package that is not installed.
        TfpruneError: a file does not exist.
    """
    for variant in only or pipeline.variants:
        check_installed(pipeline.delivered(variant)[1])
    check_data(pipeline.data.name, data_dir)
    if pipeline.model.path is not None:
        existing_file(pipeline.model.path)
    weights = pipeline.model.options.get("weights", "random")
    if weights not in ("imagenet", "random"):
        existing_file(weights)


def budget_mistakes(pipeline: Pipeline) -> list[str]:
    """What of a pipeline's budget fits nothing that it delivers, a line a mistake.

    Args:
        pipeline: what is to be run.
    """
    if pipeline.budget is None:
        return []
    planned = {variant: pipeline.delivered(variant)[1] for variant in pipeline.variants}
    return [f"budget: {said}" for said in mistakes(pipeline.budget, planned)]


def check_budget(pipeline: Pipeline) -> None:
    """Checks that every rule of a pipeline's budget is for something that it delivers.

    Raises:
        UsageError: one is for nothing, and `tfprune check` could not judge the run.
    """
    for said in budget_mistakes(pipeline):
        raise UsageError(said)


def data_root(data_dir: str | None) -> Path:
    """Where tensorflow-datasets keeps its sets.

    Args:
        data_dir: where a person said; else TFDS_DATA_DIR, else its own default.
    """
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def base_name(name: str) -> str:
    """The name of a data set without its config and version."""
    return name.partition(":")[0].partition("/")[0]


def check_data(name: str, data_dir: str | None = None) -> None:
    """Checks that a data set is one of tensorflow-datasets, or lies in its directory.

    Args:
        name: as `tfprune.data.load` takes it.
        data_dir: likewise.

    Raises:
        UsageError: it is neither; the message names the nearest.
    """
    base = base_name(name)
    # What is prepared in the directory needs no code in tensorflow-datasets; what has a namespace
    # is a community's, whose names only the network knows.
    if name == _BUILT_IN or (":" in name and not name.partition(":")[2][:1].isdigit()):
        return
    plain = base.isidentifier()
    if plain and len(base) < 128 and (data_root(data_dir) / base).is_dir():
        return
    import tensorflow_datasets

    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    if base not in known:
        hint = did_you_mean(
            base[:128].lower(), [*known, _BUILT_IN], "see tensorflow_datasets' catalog for names"
        )
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise UsageError(f"unknown data set {shown!r}: {hint}")
