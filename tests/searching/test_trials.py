"""Trials are chains of one pipeline, and what they have in common is the same step."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.searching.small import small
from tfprune.errors import UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.authoring import to_toml
from tfprune.searching.trials import Choice, chain, document_of, pipeline_of, variant_name

CHOICES = st.builds(
    Choice,
    format=st.sampled_from(["tflite", "tflite-int8"]),
    keep=st.sampled_from([0.5, 0.7, 1.0]),
    target=st.sampled_from(["macs", "params"]),
    importance=st.sampled_from(["l2", "taylor"]),
    structure=st.sampled_from(["planned", "learnt"]),
    round_to=st.sampled_from([1, 8]),
    zeros=st.sampled_from([0.0, 0.8]),
    bits=st.sampled_from([0, 4]),
)
WHOLE = st.builds(replace, CHOICES, whole=st.booleans())


@given(WHOLE, st.integers(0, 2))
def test_every_choice_is_a_pipeline_and_its_file_says_the_same(choice, rung):
    what = small()
    trials = {"it": (choice, rung)}
    pipeline = pipeline_of(what, trials)
    read = tomllib.loads(to_toml(document_of(what, trials), "A heading."))
    assert Pipeline.model_validate(read) == pipeline


@given(CHOICES)
def test_a_rung_begins_with_all_that_the_rung_before_trained(choice):
    what = small()
    steps, lower = chain(what, choice, 1)
    more, higher = chain(what, choice, 2)
    without = ("export", "quantize-weights", "prune-once")
    trained = [name for name in lower if steps[name]["kind"] not in without]
    assert higher[: len(trained)] == trained
    assert all(more[name] == steps[name] for name in trained)


@given(WHOLE, WHOLE, st.integers(0, 2), st.integers(0, 2))
def test_trials_have_the_same_name_exactly_where_they_do_the_same(one, other, first, second):
    what = small()
    steps, order = chain(what, one, first)
    others, other_order = chain(what, other, second)
    same = [steps[name] for name in order] == [others[name] for name in other_order]
    assert (variant_name(what, one, first) == variant_name(what, other, second)) == same


def test_a_recovery_at_one_go_has_the_epochs_of_all_rungs():
    what = small(recovery=8, rungs=3)
    for zeros in (0.0, 0.8):
        steps, order = chain(what, Choice("tflite", 0.5, zeros=zeros, whole=True), 3)
        epochs = [steps[name]["epochs"] for name in order if "epochs" in steps[name]]
        assert epochs == [what.epochs, 8]


def test_a_structure_is_learnt_in_the_first_part_of_the_recovery():
    what = small(recovery=8, rungs=3)
    choice = Choice("tflite", 0.5, structure="learnt", round_to=8)
    kinds = [[step["kind"] for step in chain(what, choice, rung)[0].values()] for rung in range(4)]
    assert kinds == [
        ["train", "slim", "export"],
        ["train", "learn", "slim", "export"],
        ["train", "learn", "slim", "train", "export"],
        ["train", "learn", "slim", "train", "retrain", "export"],
    ]
    steps, order = chain(what, replace(choice, whole=True), 3)
    epochs = [steps[name]["epochs"] for name in order if "epochs" in steps[name]]
    assert epochs == [what.epochs, 2, 6]
    learnt = next(step for step in steps.values() if step["kind"] == "learn")
    assert (learnt["macs"], learnt["round_to"]) == (0.5, 8)


@pytest.mark.parametrize("structure", ["planned", "learnt"])
def test_a_target_of_the_device_is_planned_for_the_device(structure):
    device = {"name": "ethos-u55-128", "memory_mode": "Shared_Sram"}
    space = {"targets": ["cycles", "sram"], "structures": ["planned", "learnt"]}
    what = small(device=device, minimize="cycles", space={**space, "formats": ["tflite-int8"]})
    choice = Choice("tflite-int8", 0.5, "cycles", structure=structure)
    trials = {"it": (choice, 1)}
    pipeline = pipeline_of(what, trials)
    assert (
        Pipeline.model_validate(tomllib.loads(to_toml(document_of(what, trials), ""))) == pipeline
    )
    kind = {"planned": "slim", "learnt": "learn"}[structure]
    (step,) = [each for each in chain(what, choice, 1)[0].values() if "cycles" in each]
    assert (step["kind"], step["device"]) == (kind, "ethos-u55-128")
    assert step["device_options"] == {"memory_mode": "Shared_Sram"}


def test_the_latency_of_this_computer_is_planned_by_the_file_that_is_asked_for():
    what = small(space={"targets": ["latency"], "formats": ["tflite", "tflite-int8"]})
    names = set()
    for form in ("tflite", "tflite-int8"):
        steps, order = chain(what, Choice(form, 0.5, "latency"), 0)
        (slim,) = [name for name in order if steps[name]["kind"] == "slim"]
        assert steps[slim]["format"] == form
        names.add(slim)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("cpu cannot be planned for, so cycles", {"space": {"targets": ["cycles"]}}),
        (
            "leave tflite-float16 out of space.formats",
            {"space": {"targets": ["latency"], "formats": ["tflite", "tflite-float16"]}},
        ),
        (
            "no structure is learnt for this computer's latency",
            {
                "space": {
                    "targets": ["latency"],
                    "formats": ["tflite"],
                    "structures": ["planned", "learnt"],
                }
            },
        ),
    ],
)
def test_targets_are_those_that_can_be_planned_for(said, options):
    with pytest.raises(UsageError, match=said):
        small(**options)


def test_the_recovery_has_its_own_learning_rate():
    steps, _ = chain(small(recovery_rate=0.2), Choice("tflite", 0.5), 2)
    rates = [step["learning_rate"] for step in steps.values() if "learning_rate" in step]
    assert rates == pytest.approx([0.05 * 0.2] * 2)


def test_what_removes_nothing_is_not_trained_on():
    steps, order = chain(small(), Choice("tflite"), 2)
    assert [steps[name]["kind"] for name in order] == ["train", "export"]
