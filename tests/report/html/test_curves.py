"""A variant's training is its steps' histories, end to end."""

from __future__ import annotations

from tests.report.fake import CHAINS, fake_run, stop_early
from tfprune.report import read_run
from tfprune.report.html.curves import Chain, Stretch, chain, curves, shared_axes


def _chain(tmp_path, steps, seeds=(0,), **options) -> Chain:
    run = read_run(fake_run(tmp_path, {"it": steps}, seeds=seeds, **options))
    return chain(run.deliveries)


def test_steps_follow_one_another_and_a_slimming_takes_no_epochs(tmp_path):
    this = _chain(tmp_path, CHAINS["slim"])
    assert this.stretches == (
        Stretch("dense", 0, 4),
        Stretch("slim", 4, 0),
        Stretch("finetune", 4, 4),
    )
    assert this.epochs == 8
    assert this.histories[0]["at"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert this.removals == ((4, 0.4),)


def test_what_a_step_did_not_record_is_missing(tmp_path):
    (history,) = _chain(tmp_path, CHAINS["sparse"]).histories
    assert history["sparsity"].isna().tolist() == [True] * 4 + [False] * 4


def test_a_step_begins_where_the_longest_seed_ended(tmp_path):
    this = _chain(
        tmp_path,
        ["dense", "finetune"],
        seeds=(0, 1),
        history=lambda step, seed: {"accuracy": [0.5] * (2 + seed)},
    )
    assert this.stretches[1] == Stretch("finetune", 3, 3)
    assert this.histories[0]["at"].tolist() == [1, 2, 4, 5]
    assert this.histories[1]["at"].tolist() == [1, 2, 3, 4, 5, 6]


def test_no_steps_are_a_chain_without_epochs(tmp_path):
    this = _chain(tmp_path, [])
    assert (this.stretches, this.epochs) == ((), 0)


def test_curves_say_what_they_show_and_name_their_steps(tmp_path):
    this = _chain(tmp_path, CHAINS["slim"])
    svg = curves(this, shared_axes([this]), "it")
    assert (
        'aria-label="Training of it: dense, slim, finetune; 8 epochs, '
        'validation accuracy 85.0% at the end."'
    ) in svg
    for name in CHAINS["slim"]:
        assert f">{name}</text>" in svg
    assert ">zeros</text>" not in svg


def test_zeros_are_drawn_where_a_chain_recorded_them(tmp_path):
    this = _chain(tmp_path, CHAINS["sparse"])
    assert ">zeros</text>" in curves(this, shared_axes([this]), "it")


def test_names_that_do_not_fit_become_numbers(tmp_path):
    steps = [f"a-rather-long-name-{number}" for number in range(9)]
    this = _chain(tmp_path, steps)
    svg = curves(this, shared_axes([this]), "it")
    assert "a-rather" not in svg.split("</text>", 1)[1]
    assert ">9</text>" in svg


def test_a_training_that_broke_down_is_still_drawn(tmp_path):
    broken = {"loss": [float("nan"), 0.0], "accuracy": [0.1, float("nan")]}
    this = _chain(tmp_path, ["dense"], history=lambda step, seed: broken)
    assert "not validated" in curves(this, shared_axes([this]), "it")


def test_after_an_early_stopping_the_value_is_that_of_the_best_epoch(tmp_path):
    directory = fake_run(tmp_path, {"it": ["dense"]}, seeds=(0, 1))
    stop_early(directory, "dense", best_epoch=2, seed=1)
    this = chain(read_run(directory).deliveries)
    assert this.left == (4, 2)
    # 0.85 after the last epoch of the first seed, 0.76 after the second epoch of the other.
    assert "validation accuracy 80.5% after the best epoch" in curves(
        this, shared_axes([this]), "it"
    )
