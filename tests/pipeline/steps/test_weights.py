"""What steps that change single weights give to the library."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfprune.pipeline.steps import Context
from tfprune.pipeline.steps.base import KINDS
from tfprune.pipeline.steps.training import TrainStep
from tfprune.pipeline.steps.weights import ClusterStep, PruneOnceStep, PruneStep
from tfprune.weights import prunable, prune_once

from .conftest import TRAIN, tiny_net


@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.5), (0.25, 0.5), (0.5, 1.0)])
@pytest.mark.parametrize("frequency", [None, 3])
def test_a_ramp_is_the_part_of_the_training_that_was_asked_for(
    digits, tmp_path, trained, begin, end, frequency
):
    step = PruneStep(
        kind="prune", sparsity=0.6, initial=0.1, begin=begin, end=end, frequency=frequency, **TRAIN
    )
    step.perform(tiny_net(), Context(digits, 0, tmp_path))
    ((_, (pruner,)),) = trained
    total = 4 * -(-len(digits.train) // 20)
    schedule = pruner.schedule
    assert (schedule.begin_step, schedule.end_step) == (round(begin * total), round(end * total))
    assert schedule.begin_step < schedule.end_step
    assert (schedule.initial_sparsity, schedule.final_sparsity) == (0.1, 0.6)
    ramp = schedule.end_step - schedule.begin_step
    assert schedule.frequency == (frequency or max(1, ramp // 20))


def _kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: np.asarray(variable) for path, variable in prunable(model)}


def test_pruning_at_once_takes_what_the_library_takes(digits, tmp_path):
    context = Context(digits, 0, tmp_path)
    step = PruneOnceStep(kind="prune-once", share=0.5, pattern="2:4", exclude=("two",))
    pruned, record = step.perform(tiny_net(), context)
    one, two = _kernels(pruned).values()
    assert (np.count_nonzero(one.reshape(-1, 4, 8), axis=1) == 2).all()
    assert np.count_nonzero(two) == two.size
    assert set(record["validation_accuracy"]) == {"before", "pruned"}
    step = PruneOnceStep(kind="prune-once", share=0.5, pattern="1x8", layers={"t*": 0.1})
    one, two = _kernels(step.perform(tiny_net(), context)[0]).values()
    assert set(np.count_nonzero(one, axis=1)) == {0, 8}
    assert np.count_nonzero(two) == pytest.approx(0.9 * two.size, abs=8)


def test_pruning_while_training_takes_what_the_library_takes(digits, tmp_path, trained):
    step = PruneStep(
        kind="prune",
        sparsity=0.5,
        select="random",
        pattern="1x4",
        layers={"one": 0.25},
        include=("one",),
        min_kept=3,
        **TRAIN,
    )
    step.perform(tiny_net(), Context(digits, 7, tmp_path))
    ((_, (pruner,)),) = trained
    assert pruner.include == ("one",)
    assert pruner.exclude is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pattern": "4:2"}, "'4:2' is not a pattern: write N:M such as 2:4, or AxB such as 1x4"),
        ({"layers": {"one": 0.5}, "scope": "global"}, 'only under scope = "layer"'),
        ({"layers": {"one": 0.5}, "sparsity": 0.0}, "beside a sparsity above 0"),
    ],
)
def test_what_the_library_would_refuse_is_refused_with_the_table(options, said):
    with pytest.raises(ValueError, match=said):
        PruneStep.model_validate({"kind": "prune", "sparsity": 0.5, "epochs": 1, **options})


def test_a_clustered_model_trains_with_its_few_values(digits, tmp_path):
    sparse = prune_once(tiny_net(), 0.5)
    before = [np.asarray(variable) == 0 for _, variable in prunable(sparse)]
    step = ClusterStep(kind="cluster", values=5, **TRAIN | {"epochs": 1})
    clustered, record = step.perform(sparse, Context(digits, 0, tmp_path))
    for (_, variable), zeros in zip(prunable(clustered), before, strict=True):
        values = np.asarray(variable)
        assert len(np.unique(values)) == 5
        assert not values[zeros].any()
    assert set(record["validation_accuracy"]) == {"before", "clustered"}
    assert record["epochs"] == 1


@pytest.mark.parametrize("kind", ["quantize-weights", "cluster"])
def test_a_training_that_would_undo_few_values_is_refused(kind):
    before = [("few", KINDS[kind].model_construct(kind=kind))]
    for step in (TrainStep(kind="train", **TRAIN), PruneStep(kind="prune", sparsity=0.5, **TRAIN)):
        said = step.mistake("variant", before, False)
        assert said is not None
        assert said.startswith(f"trains after a {kind} step")
    assert ClusterStep(kind="cluster", **TRAIN).mistake("variant", before, False) is None
