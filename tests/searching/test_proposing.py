"""Proposals come from a journal: the same after the same trials, and none that is out of reach."""

from __future__ import annotations

import pytest

from tests.searching.small import small
from tfprune.searching.trials import Choice, Tried

pytest.importorskip("optuna", reason="needs the extra search")

from tfprune.searching.proposing import Proposals

SPACE = {"keep": [0.2, 0.8], "keep_step": 0.05, "zeros": [0.0, 0.5, 0.9], "bits": [0, 5]}


def _told(choice: Choice, refusal: str = "") -> list[Tried]:
    return [Tried(choice, 1, 1, "t", 0.9, 10 * (1 - choice.keep), choice.keep, {}, refusal)]


def _propose(proposals: Proposals, rounds: int) -> list[Choice]:
    found = []
    for _ in range(rounds):
        for number, choice in proposals.ask(4).items():
            found.append(choice)
            proposals.tell(number, _told(choice))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_study_that_was_stopped_proposes_what_it_would_have(sampler, tmp_path):
    what = small(space=SPACE, sampler=sampler)
    whole = _propose(Proposals(what, tmp_path / "whole"), 4)
    parts = _propose(Proposals(what, tmp_path / "parts"), 2)
    # Killed after it asked.
    Proposals(what, tmp_path / "parts").ask(4)
    again = Proposals(what, tmp_path / "parts")
    assert again.count == 8
    assert parts + _propose(again, 2) == whole
    assert [each for rungs in again.done() for each in [rungs[-1].choice]] == whole


def test_what_is_proposed_is_in_the_space_and_on_its_grid(tmp_path):
    what = small(space=SPACE)
    for choice in _propose(Proposals(what, tmp_path, out_of_reach=0.42), 5):
        assert 0.45 <= choice.keep <= 0.8
        assert Proposals.on_grid(choice.keep, what) == choice.keep
        assert choice.zeros in (0.0, 0.5, 0.9)
        assert choice.bits in (0, 5)


def test_what_is_enqueued_comes_first_though_the_search_was_killed(tmp_path):
    what = small(space=SPACE)
    first = Choice("tflite", 0.5, "params", "taylor", 1, 0.5, 5)
    proposals = Proposals(what, tmp_path)
    proposals.enqueue([first, Choice("tflite", 0.1), Choice("tflite", 0.5, zeros=0.3)])
    assert proposals.ask(1)[0].keep == 0.5
    (again,) = Proposals(what, tmp_path).ask(1).values()
    assert again.zeros == 0.5
    assert again.target == "params"


def test_structure_is_learnt_without_zeros_and_without_a_ranking(tmp_path):
    space = {**SPACE, "structures": ["planned", "learnt"], "importances": ["l2", "taylor"]}
    choices = Proposals(small(space=space), tmp_path).ask(40).values()
    learnt = [each for each in choices if each.structure == "learnt"]
    assert learnt
    assert {(each.zeros, each.importance) for each in learnt} == {(0.0, "l2")}
    assert {each.importance for each in choices if each.structure == "planned"} == {"l2", "taylor"}


def test_another_space_is_another_study(tmp_path):
    _propose(Proposals(small(space=SPACE), tmp_path), 1)
    assert not Proposals(small(space={**SPACE, "bits": [0]}), tmp_path).has_begun
    assert Proposals(small(space=SPACE, trials=99, minutes=3), tmp_path).count == 4


def test_what_was_tried_on_other_data_or_another_model_is_not_known(tmp_path):
    _propose(Proposals(small(space=SPACE), tmp_path, of="photos of May"), 1)
    assert Proposals(small(space=SPACE), tmp_path, of="photos of May").count == 4
    assert not Proposals(small(space=SPACE), tmp_path, of="photos of June").has_begun


def test_a_refused_trial_counts_and_teaches_nothing(tmp_path):
    proposals = Proposals(small(space=SPACE), tmp_path)
    ((number, choice),) = proposals.ask(1).items()
    proposals.tell(number, _told(choice, "its batch is open"))
    assert proposals.count == 1
