"""Short forms mean exactly the long ones."""

from __future__ import annotations

import copy

import pytest

from tfprune.errors import UsageError
from tfprune.pipeline import Pipeline
from tfprune.pipeline.expansion import override, with_rounds, with_sweep, with_training

RAW = {
    "name": "tiny",
    "data": {"name": "digits"},
    "model": {"name": "vgg"},
    "training": {"batch_size": 64},
    "steps": {
        "dense": {"kind": "train", "epochs": 3},
        "longer": {"kind": "train", "epochs": 5},
        "sparse": {"kind": "prune", "epochs": 2, "sparsity": 0.8, "batch_size": 32},
        "cut": {"kind": "prune-once", "share": 0.2},
        "again": {"kind": "retrain", "rewind": "lr", "epochs": 3},
    },
    "variants": {"dense": ["dense"], "sparse": ["dense", "sparse"]},
}
TABLES = list(Pipeline.model_fields)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("data.limit=100", ["data", "limit"], 100),
        ("seeds=[1, 2]", ["seeds"], [1, 2]),
        ("name=other", ["name"], "other"),
        ("steps.dense.epochs=1", ["steps", "dense", "epochs"], 1),
        ("sparse.sparsity=0.5", ["steps", "sparse", "sparsity"], 0.5),
        ("model.options.width = 4", ["model", "options", "width"], 4),
        ('again.rewind="weights"', ["steps", "again", "rewind"], "weights"),
        ("again.rewind=weights", ["steps", "again", "rewind"], "weights"),
    ],
)
def test_a_setting_replaces_one_value(setting, path, value):
    expected = copy.deepcopy(RAW)
    table = expected
    for part in path[:-1]:
        table = table.setdefault(part, {})
    table[path[-1]] = value
    assert override(RAW, [setting], TABLES) == expected


def test_a_kind_stands_for_all_its_steps_and_nothing_else_changes():
    changed = override(RAW, ["train.epochs=1"], TABLES)
    assert changed["steps"]["dense"]["epochs"] == changed["steps"]["longer"]["epochs"] == 1
    assert changed["steps"]["sparse"] == RAW["steps"]["sparse"]
    assert RAW["steps"]["dense"]["epochs"] == 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs", "--set epochs: write KEY=VALUE, such as train.epochs=3"),
        (".epochs=3", "--set .epochs=3: write KEY=VALUE, such as train.epochs=3"),
        (
            "sparce.epochs=3",
            "--set sparce.epochs=3: sparce is no step, kind of step or table of the pipeline: "
            "did you mean 'sparse'?",
        ),
        ("name.x=3", "--set name.x=3: name is a value, it has nothing in it"),
    ],
)
def test_a_setting_that_fits_nowhere_is_one_line(setting, said):
    with pytest.raises(UsageError) as caught:
        override(RAW, [setting], TABLES)
    assert str(caught.value) == said


def test_training_is_shared_by_what_trains_and_a_step_wins():
    steps = with_training(RAW)["steps"]
    assert steps["dense"]["batch_size"] == steps["again"]["batch_size"] == 64
    assert steps["sparse"]["batch_size"] == 32
    assert "batch_size" not in steps["cut"]


def test_rounds_are_variants_that_repeat():
    rounds = {"start": ["dense"], "repeat": ["cut", "again"], "end": ["longer"], "times": 2}
    assert with_rounds({**RAW, "rounds": {"ticket": rounds}})["variants"] == {
        **RAW["variants"],
        "ticket-1": ["dense", "cut", "again", "longer"],
        "ticket-2": ["dense", "cut", "again", "cut", "again", "longer"],
    }


def test_a_sweep_is_a_variant_a_combination():
    raw = {**RAW, "sweep": {"sparse": {"sparsity": [0.5, 0.9], "scope": ["layer", "global"]}}}
    expanded = with_sweep(raw)
    names = [
        f"sparsity-{sparsity}-scope-{scope}"
        for sparsity in (0.5, 0.9)
        for scope in ("layer", "global")
    ]
    assert list(expanded["variants"]) == ["dense", *(f"sparse-{name}" for name in names)]
    assert expanded["variants"][f"sparse-{names[1]}"] == ["dense", f"sparse-{names[1]}"]
    assert expanded["steps"][f"sparse-{names[1]}"] == {
        **RAW["steps"]["sparse"],
        "sparsity": 0.5,
        "scope": "global",
    }
    assert "sparse" not in expanded["steps"]


def test_a_sweep_of_a_shared_step_multiplies_all_its_variants():
    raw = {**RAW, "sweep": {"dense": {"epochs": [1, 2]}, "sparse": {"sparsity": [0.5, 0.9]}}}
    assert list(with_sweep(raw)["variants"]) == [
        "dense-epochs-1",
        "dense-epochs-2",
        "sparse-epochs-1-sparsity-0.5",
        "sparse-epochs-1-sparsity-0.9",
        "sparse-epochs-2-sparsity-0.5",
        "sparse-epochs-2-sparsity-0.9",
    ]


def test_an_expanded_pipeline_read_again_is_the_same():
    raw = {
        **RAW,
        "sweep": {"sparse": {"sparsity": [0.5, 0.9]}},
        "rounds": {"ticket": {"start": ["dense"], "repeat": ["cut", "again"], "times": 2}},
    }
    once = Pipeline.model_validate(raw)
    kept = once.model_dump(mode="json", exclude={"training", "rounds", "sweep"})
    again = Pipeline.model_validate(kept)
    assert again.steps == once.steps
    assert again.variants == once.variants


def test_a_slim_step_sees_images_as_the_training_does():
    raw = {
        "training": {"augment": ["flip"], "epochs": 3},
        "steps": {"a": {"kind": "slim", "macs": 0.5}, "b": {"kind": "slim", "augment": []}},
    }
    steps = with_training(raw)["steps"]
    assert steps["a"] == {"kind": "slim", "macs": 0.5, "augment": ["flip"]}
    assert steps["b"] == {"kind": "slim", "augment": []}
