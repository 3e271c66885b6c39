"""A run's figures for an MLflow server; MLflow is the optional extra `tfprune[mlflow]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfprune import figures
from tfprune.errors import TfpruneError
from tfprune.files import RECORD
from tfprune.report.records import Identified, read_record
from tfprune.report.run import Delivery, Run, Step
from tfprune.report.tables import artifact_figures

_IDENTITY = "tfprune.identity"
# What MLflow takes in one call.
_BATCH = 1000


def log_to_mlflow(run: Run, uri: str | None = None, experiment: str | None = None) -> list[str]:
    """Logs every variant and seed of a run as a run of MLflow.

    Example:
        >>> log_to_mlflow(read_run(Path("saved_models/digits")), "sqlite:///mlflow.db")

    Parameters are those of the chain's steps. Metrics are the training curves, with the chain's
    epochs end to end as steps, and the compared figures under their names in `tfprune.figures`:
    "FORMAT/NAME" for those of one artifact, NAME for those of the variant. Where the last training
    was stopped early, the values of its best epoch, whose weights it left, come once more at its
    end. A tag names the figure of the task, and which way it is better. The folder of the variant
    is logged as artifacts. What was logged before is not logged again.

    Args:
        run: what `read_run` read.
        uri: the tracking server, or `sqlite:///mlflow.db`; else MLflow's own default, which the
            environment variable MLFLOW_TRACKING_URI sets.
        experiment: its name; the run's if not given.

    Returns:
        The ids of the MLflow runs that are new.

    Raises:
        TfpruneError: MLflow is not installed, or its server does not answer.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise TfpruneError(
            "MLflow is not installed: run `pip install 'tfprune[mlflow]'`"
        ) from error
    try:
        client = MlflowClient(tracking_uri=uri)
        name = experiment or str(run.record.get("name") or run.directory.resolve().name)
        known = client.get_experiment_by_name(name)
        place = known.experiment_id if known else client.create_experiment(name)
        logged = (_log(client, place, run, delivery) for delivery in run.deliveries)
        return [identity for identity in logged if identity is not None]
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TfpruneError(
            f"MLflow at {uri or 'its default place'} refused ({reason}): "
            "check --mlflow or MLFLOW_TRACKING_URI"
        ) from error


def _log(client: Any, experiment: str, run: Run, delivery: Delivery) -> str | None:
    from mlflow.entities import Metric, Param

    identity = read_record(delivery.folder / RECORD, Identified)["identity"]
    if client.search_runs([experiment], f"tags.`{_IDENTITY}` = '{identity}'"):
        return None
    created = client.create_run(
        experiment,
        run_name=f"{delivery.variant}, seed {delivery.seed}",
        tags={
            "tfprune.run": run.directory.name,
            "tfprune.variant": delivery.variant,
            "tfprune.data": run.record.get("data", ""),
            "tfprune.figure": run.figure.name,
            "tfprune.better": str(run.figure.better),
            "tfprune.commit": delivery.record.get("commit", "unknown"),
        },
    ).info
    # MLflow wants milliseconds since 1970; the steps of the metrics are the epochs.
    metrics = [
        Metric(name, value, created.start_time, step) for name, value, step in _curve(delivery)
    ]
    # Of two values of one step, MLflow shows the later as that of the run.
    metrics += [
        Metric(name, value, created.start_time + 1, step) for name, value, step in _left(delivery)
    ]
    metrics += [
        Metric(name, value, created.start_time, 0) for name, value in _figures(run, delivery)
    ]
    params = [Param(name, value) for name, value in _parameters(delivery)]
    for place in range(0, len(metrics), _BATCH):
        client.log_batch(created.run_id, metrics=metrics[place : place + _BATCH])
    for place in range(0, len(params), 100):
        client.log_batch(created.run_id, params=params[place : place + 100])
    client.log_artifacts(created.run_id, str(delivery.folder))
    # Last: a run that was cut off is logged again.
    client.set_tag(created.run_id, _IDENTITY, identity)
    client.set_terminated(created.run_id)
    return str(created.run_id)


def _parameters(delivery: Delivery) -> Iterator[tuple[str, str]]:
    yield "seed", str(delivery.seed)
    yield "chain", " ".join(step.record["step"] for step in delivery.steps)
    seen = set()
    for step in delivery.steps:
        for name, value in step.specification.items():
            key = f"{step.record['step']}.{name}"
            # A step may come several times in a chain, always the same.
            if key not in seen and value not in (None, [], {}):
                seen.add(key)
                yield key, str(value)


def _curve(delivery: Delivery) -> Iterator[tuple[str, float, int]]:
    before = 0
    for step in delivery.steps:
        history = step.record.get("history") or {}
        for place in range(max(map(len, history.values()), default=0)):
            for name, value in _row(step, place):
                yield name, value, before + place + 1
        before += step.record.get("epochs", 0)


def _left(delivery: Delivery) -> Iterator[tuple[str, float, int]]:
    """The figures of the epoch whose weights the last training left, if it is not the last."""
    epochs = sum(step.record.get("epochs", 0) for step in delivery.steps)
    trained = [step for step in delivery.steps if step.record.get("history")]
    if trained and trained[-1].left_row not in (-1, trained[-1].record.get("epochs", 0) - 1):
        for name, value in _row(trained[-1], trained[-1].left_row):
            yield name, value, epochs


def _row(step: Step, place: int) -> Iterator[tuple[str, float]]:
    """The figures of one epoch of a training, from 0."""
    for name, values in (step.record.get("history") or {}).items():
        if name != "epoch" and place < len(values) and values[place] is not None:
            yield name, float(values[place])


def _figures(run: Run, delivery: Delivery) -> Iterator[tuple[str, float]]:
    """The compared figures of each artifact, and every other number of its record."""
    rows = figures.compared(run.figure)
    read = {row.record_key for row in rows if row.source in ("artifact", "file")}
    shared: dict[str, float] = {}
    for artifact in delivery.record["artifacts"]:
        values = artifact_figures(run, delivery, artifact)
        for row in rows:
            value = values[row.name]
            if value is None:
                continue
            if row.source in ("variant", "training"):
                shared[row.name] = float(value)
            else:
                yield f"{artifact['format']}/{row.name}", float(value)
        for key, value in artifact.items():
            if key not in read and isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{artifact['format']}/{key}", float(value)
    yield from shared.items()
