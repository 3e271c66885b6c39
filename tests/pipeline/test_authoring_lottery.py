"""A study is the pipeline that a person would write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfprune.errors import UsageError
from tfprune.pipeline.authoring import lottery_study

GIVEN = {
    "model": {"name": "conv2"},
    "data": {"name": "digits"},
    "training": {"epochs": 4, "learning_rate": 0.1},
    "rounds": 3,
}


def _study(**options):
    pruning = {key: options.pop(key) for key in ("share", "layers", "scope") if key in options}
    return lottery_study("study", pruning={"share": 0.2} | pruning, **(GIVEN | options))


def test_levels_are_variants_that_share_their_chains():
    study = _study(controls=True, layers={"dense*": 0.3}, seeds=[1, 2])
    once = ["cut", "retrain"]
    assert study.variants == {
        "dense": ["dense"],
        **{f"ticket-{level}": ["dense", *once * level] for level in (1, 2, 3)},
        **{f"reinit-{level}": ["dense", *once * level, "reinit"] for level in (1, 2, 3)},
        **{f"random-{level}": ["dense", *once * level, "random"] for level in (1, 2, 3)},
    }
    assert study.seeds == (1, 2)
    cut = study.steps["cut"]
    assert (cut.share, cut.layers, cut.scope) == (0.2, {"dense*": 0.3}, "layer")


@pytest.mark.parametrize(
    ("rewind", "said", "kept"),
    [
        ("init", {"rewind": "weights", "epoch": 0}, ()),
        ("0", {"rewind": "weights", "epoch": 0}, ()),
        ("2", {"rewind": "weights", "epoch": 2}, (2,)),
        ("lr", {"rewind": "lr", "learning_rate": 0.1}, ()),
        ("finetune", {"rewind": "finetune", "schedule": "constant", "learning_rate": 0.001}, ()),
    ],
)
def test_each_rewinding_has_what_it_needs(rewind, said, kept):
    study = _study(rewind=rewind)
    retrain = study.steps["retrain"].model_dump()
    assert {key: retrain[key] for key in said} == pytest.approx(said)
    assert retrain["epochs"] == 4
    assert study.steps["dense"].keep == kept


def test_one_shot_prunes_once_to_where_all_rounds_lead():
    study = _study(one_shot=True, layers={"logits": 0.1})
    assert list(study.variants) == ["dense", "ticket-1"]
    cut = study.steps["cut"]
    assert cut.share == pytest.approx(1 - 0.8**3)
    assert cut.layers == {"logits": pytest.approx(1 - 0.9**3)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": {"name": "conv22"}}, "model: unknown model 'conv22': did you mean 'conv2'?"),
        ({"share": 1.0}, "steps.cut.share = 1.0: Input should be less than 1"),
        (
            {"scope": "global", "layers": {"a": 0.1}},
            'steps.cut: layers have shares of their own only under scope = "layer"',
        ),
        (
            {"rewind": "weights"},
            "rewind is 'weights'; choose init, lr, finetune, or the epoch to rewind to",
        ),
        (
            {"model": {"name": "net.keras"}},
            'variants.ticket-1 rewinds a .keras file, whose start is not known: use rewind = "lr"',
        ),
        ({"rewind": "9"}, "steps.dense: keep=[9] goes beyond the last epoch, 4 (and 1 more)"),
    ],
)
def test_a_mistake_is_one_line(options, said):
    with pytest.raises(UsageError) as caught:
        _study(**options)
    assert str(caught.value) == said


def test_a_mistake_does_not_wait_for_tensorflow():
    code = (
        "import sys, tfprune.pipeline.authoring; "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
