"""Times a few training steps of a pipeline's model, for a forecast."""

from __future__ import annotations

import itertools
import statistics
import time

from tfprune import data, training
from tfprune.formats import load
from tfprune.measure import evaluate
from tfprune.pipeline.outlook import Probe
from tfprune.pipeline.spec import Pipeline
from tfprune.pipeline.steps import build
from tfprune.training import Training

# The first steps trace and allocate.
_WARM = 3
_TIMED = 12
_VALIDATED = 512


def probe(pipeline: Pipeline, dataset: data.Dataset) -> Probe:
    """Builds the model of a pipeline, and times its first training a little.

    Args:
        pipeline: what would be run.
        dataset: its images.

    Returns:
        The seconds that an epoch would take on this machine now, and the model's size.
    """
    model = build(pipeline.model, dataset, pipeline.seeds[0])
    step = next((each for each in pipeline.steps.values() if isinstance(each, Training)), None)
    if step is None:
        return Probe(0.0, model.count_params())
    steps = data.steps_per_epoch(dataset.train, step.batch_size)
    training.compile(model, step, steps)
    batches = data.batches(
        dataset.train,
        step.batch_size,
        seed=pipeline.seeds[0],
        epochs=_WARM + _TIMED,
        augment=step.augment,
    )
    seconds = []
    for images, labels in itertools.islice(batches, _WARM + _TIMED):
        begun = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - begun)
    some = dataset.validation.images[:_VALIDATED]
    evaluated = evaluate(load(model), some, dataset.validation.labels[:_VALIDATED]).seconds
    return Probe(
        statistics.median(seconds[_WARM:]) * steps
        + evaluated * len(dataset.validation) / len(some),
        model.count_params(),
    )
