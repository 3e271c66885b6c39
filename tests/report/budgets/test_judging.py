"""A verdict is what the numbers say: kept, broken, or that a figure is missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.figures import from_record
from tfprune.report.budgets.budget import Budget
from tfprune.report.budgets.judging import judge, judged_table
from tfprune.report.budgets.verdict import Verdict
from tfprune.report.run import read_run

# pandas is slow on a busy machine; how long an example takes says nothing.
relaxed = settings(deadline=None, max_examples=60)

GOOD = {
    "accuracy": 0.9,
    "loss": 0.5,
    "parameters": 1000,
    "nonzero": 250,
    "sparsity": 0.75,
    "macs": 5_000_000,
    "bytes": 40_960,
    "bytes_gzip": 10_240,
    "latency_ms": 0.25,
}
RELATIVE = {
    "accuracy": ("max_drop", "min_ratio"),
    "sparsity": ("max_drop", "min_ratio"),
}
shares = st.floats(0, 1)
amounts = st.floats(0, 1e9)


def _row(variant: str = "dense", artifact: str = "tflite", seed: int = 0, **figures: Any) -> dict:
    return {"variant": variant, "seed": seed, "artifact": artifact, **GOOD, **figures}


def _table(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(rows)


def _judge(rule: dict, table: pd.DataFrame, baseline: pd.DataFrame | None = None) -> list[Verdict]:
    return judge(Budget.model_validate({"rules": [rule]}), table, baseline)


def _only(rule: dict, table: pd.DataFrame, baseline: pd.DataFrame | None = None) -> Verdict:
    (verdict,) = _judge(rule, table, baseline)
    return verdict


def _limit(figure: str, limit: str, value: float) -> dict:
    return {figure: {limit: value}}


class TestTheorems:
    @relaxed
    @given(st.sampled_from(sorted(GOOD)), shares, shares, shares)
    def test_a_looser_limit_never_breaks_what_a_tighter_one_keeps(self, figure, value, one, other):
        low, high = sorted((one, other))
        table = _table(_row(**{figure: value}))
        for limit, tight, loose in (("max", low, high), ("min", high, low)):
            if _only(_limit(figure, limit, tight), table).outcome == "kept":
                assert _only(_limit(figure, limit, loose), table).outcome == "kept"

    @relaxed
    @given(st.sampled_from(sorted(GOOD)), shares, shares, shares, shares)
    def test_so_it_is_for_relative_limits(self, figure, value, before, one, other):
        low, high = sorted((one, other))
        table, baseline = _table(_row(**{figure: value})), _table(_row(**{figure: before}))
        for limit in RELATIVE.get(figure, ("max_rise", "max_ratio")):
            tight, loose = (high, low) if limit == "min_ratio" else (low, high)
            if _only(_limit(figure, limit, tight), table, baseline).outcome == "kept":
                assert _only(_limit(figure, limit, loose), table, baseline).outcome == "kept"

    @relaxed
    @given(st.sampled_from(sorted(GOOD)), st.lists(shares, min_size=1, max_size=5))
    def test_a_figure_that_equals_its_limit_keeps_it(self, figure, values):
        # Whole sizes and thirds alike: the mean of equal numbers is that number.
        table = _table(*(_row(seed=seed, **{figure: values[0]}) for seed in range(len(values))))
        for limit in ("min", "max"):
            verdict = _only(_limit(figure, limit, values[0]), table)
            assert (verdict.outcome, verdict.margin) == ("kept", 0)

    @relaxed
    @given(shares, shares)
    def test_so_does_a_drop_or_ratio_that_equals_it_but_for_rounding(self, value, before):
        table, baseline = _table(_row(accuracy=value)), _table(_row(accuracy=before))
        if value <= before:
            rule = _limit("accuracy", "max_drop", before - value)
            assert _only(rule, table, baseline).outcome == "kept"
        if before > 1e-6:
            rule = _limit("accuracy", "min_ratio", value / before)
            assert _only(rule, table, baseline).outcome == "kept"

    @relaxed
    @given(
        st.lists(shares, min_size=1, max_size=4),
        st.lists(amounts, min_size=4, max_size=4),
        shares,
        st.floats(1, 10),
        st.sampled_from(["mean", "worst"]),
    )
    def test_a_run_is_no_worse_than_itself(self, accuracies, sizes, drop, ratio, seeds):
        table = _table(
            *(
                _row(seed=seed, accuracy=accuracy, bytes=sizes[seed], latency_ms=sizes[-1])
                for seed, accuracy in enumerate(accuracies)
            )
        )
        rule = {
            "seeds": seeds,
            "accuracy": {"max_drop": drop, "min_ratio": 1 / ratio},
            "bytes": {"max_rise": drop, "max_ratio": ratio},
            "latency_ms": {"max_ratio": ratio},
        }
        assert [each.outcome for each in _judge(rule, table, table)] == ["kept"] * 5

    @relaxed
    @given(st.permutations(range(12)), st.sampled_from(["mean", "worst"]))
    def test_the_order_of_rows_does_not_matter(self, order, seeds):
        rows = [
            _row(variant, artifact, seed, accuracy=0.8 + 0.1 / (1 + place))
            for place, (variant, artifact, seed) in enumerate(
                (variant, artifact, seed)
                for variant in ("dense", "sparse")
                for artifact in ("keras", "tflite")
                for seed in (0, 1, 2)
            )
        ]
        rule = {
            "seeds": seeds,
            "against": "dense",
            "accuracy": {"min": 0.82, "max_drop": 0.01},
        }
        expected = _judge(rule, _table(*rows))
        found = _judge(rule, _table(*(rows[place] for place in order)))
        assert sorted(map(repr, found)) == sorted(map(repr, expected))

    @relaxed
    @given(st.lists(shares, min_size=2, max_size=5), shares)
    def test_the_worst_seed_keeps_a_limit_where_all_do(self, accuracies, floor):
        table = _table(*(_row(seed=seed, accuracy=each) for seed, each in enumerate(accuracies)))
        verdict = _only({"seeds": "worst", **_limit("accuracy", "min", floor)}, table)
        assert verdict.value == min(accuracies)
        assert (verdict.outcome == "kept") == (min(accuracies) >= floor or verdict.margin == 0)


class TestWords:
    """Every number has its unit, and as many digits as it takes."""

    @pytest.mark.parametrize(
        ("rule", "told"),
        [
            (
                _limit("accuracy", "min", 0.95),
                "accuracy 90.00%, but at least 95.00% is asked: 5.00 points too little",
            ),
            (_limit("accuracy", "min", 0.8), "accuracy 90.00%, at least 80.00% is asked"),
            (
                _limit("accuracy", "min", 0.900001),
                "accuracy 90.0000%, but at least 90.0001% is asked: 0.0001 points too little",
            ),
            (
                _limit("loss", "max", 0.4),
                "loss 0.500 nats, but at most 0.400 nats is asked: 0.100 nats too much",
            ),
            (
                _limit("sparsity", "min", 0.755),
                "sparsity 75.00%, but at least 75.50% is asked: 0.50 points too little",
            ),
            (
                _limit("parameters", "max", 999),
                "parameters 1,000, but at most 999 is asked: 1 too much",
            ),
            (_limit("nonzero", "max", 300), "non-zero parameters 250, at most 300 is asked"),
            (
                _limit("macs", "max", 4_999_999),
                "MACs 5,000,000, but at most 4,999,999 is asked: 1 too much",
            ),
            (
                _limit("bytes", "max", 39_936),
                "size 40.0 KiB, but at most 39.0 KiB is asked: 1.0 KiB too much",
            ),
            (_limit("bytes_gzip", "max", 10_240), "gzip 10.0 KiB, at most 10.0 KiB is asked"),
            (
                _limit("bytes_gzip", "max", 10_239),
                "gzip 10.000 KiB, but at most 9.999 KiB is asked: 0.001 KiB too much",
            ),
            (
                _limit("latency_ms", "max", 0.2),
                "latency 0.250 ms, but at most 0.200 ms is asked: 0.050 ms too much",
            ),
        ],
    )
    def test_absolute_limits(self, rule, told):
        folder = "latency" if "latency_ms" in rule else "dense"
        assert _only(rule, _table(_row())).sentence == (
            f"rule #1: dense tflite: {told} ({folder}/seed-0/record.json)"
        )

    @pytest.mark.parametrize(
        ("rule", "needed", "room"),
        [
            (
                _limit("accuracy", "max_drop", 0.005),
                "at most 0.50 points below dense = 91.50%",
                "-1.50 points",
            ),
            (
                _limit("accuracy", "min_ratio", 0.5),
                "at least 0.5 times dense = 46.00%",
                "+44.00 points",
            ),
            (
                _limit("loss", "max_rise", 0.1),
                "at most 0.100 nats above dense = 0.500 nats",
                "0.000 nats",
            ),
            (
                _limit("bytes_gzip", "max_ratio", 0.25),
                "at most 0.25 times dense = 10.0 KiB",
                "0.0 KiB",
            ),
            (_limit("macs", "max_rise", 0), "at most 0 above dense = 5,000,000", "0"),
            (
                _limit("latency_ms", "max_ratio", 1.05),
                "at most 1.05 times dense = 0.210 ms",
                "-0.040 ms",
            ),
        ],
    )
    def test_relative_limits_say_what_they_come_to(self, rule, needed, room):
        dense = _row(accuracy=0.92, loss=0.4, bytes_gzip=40_960, latency_ms=0.2)
        table = _table(dense, _row("sparse"))
        verdict = _only({"variant": "sparse", "against": "dense", **rule}, table)
        assert (verdict.bound_text, verdict.margin_text) == (needed, room)
        baseline = _table({**dense, "variant": "sparse"})
        verdict = _only({"variant": "sparse", **rule}, table, baseline)
        assert verdict.bound_text == needed.replace("dense", "the baseline")

    def test_a_mean_says_deviation_and_seeds_and_the_worst_which_it_is(self):
        table = _table(*(_row(seed=n, accuracy=a) for n, a in ((4, 0.90), (2, 0.92), (7, 0.94))))
        mean = _only(_limit("accuracy", "min", 0.95), table)
        assert mean.value_text == "92.00% ± 2.00% (3 seeds)"
        assert (mean.seeds, mean.source) == (3, "dense/seed-*/record.json")
        assert mean.deviation == pytest.approx(0.02)
        worst = _only({"seeds": "worst", **_limit("accuracy", "min", 0.95)}, table)
        assert worst.value_text == "90.00% (seed 4, worst of 3)"
        assert (worst.margin, worst.source) == (
            pytest.approx(-0.05),
            "dense/seed-4/record.json",
        )
        # No deviation of a size goes without saying, of an accuracy it is a finding.
        assert _only(_limit("bytes", "max", 1), table).value_text == "40.0 KiB (3 seeds)"
        times = _table(_row(latency_ms=0.2), _row(seed=1, latency_ms=0.3))
        assert _only(_limit("latency_ms", "max", 1), times).value_text == (
            "0.250 ± 0.071 ms (2 seeds)"
        )

    def test_the_worst_seed_is_compared_with_the_same_seed(self):
        table = _table(
            *(_row("dense", seed=seed, accuracy=each) for seed, each in enumerate((0.9, 0.8))),
            *(_row("sparse", seed=seed, accuracy=each) for seed, each in enumerate((0.85, 0.79))),
        )
        rule = {"variant": "sparse", "against": "dense", **_limit("accuracy", "max_drop", 0.02)}
        verdict = _only({"seeds": "worst", **rule}, table)
        # 0.79 is the lower, but 0.85 is further below its own.
        assert (verdict.worst_seed, verdict.value, verdict.reference) == (0, 0.85, 0.9)


class TestWhatIsJudged:
    TABLE = _table(
        *(
            _row(variant, artifact)
            for variant in ("dense", "weights-50", "weights-80")
            for artifact in ("keras", "tflite", "tflite-int8")
        )
    )

    def test_globs_name_variants_and_artifacts_in_the_order_of_the_table(self):
        rule = {"variant": "weights-*", "artifact": "tflite*", **_limit("macs", "max", 1e9)}
        assert [(each.variant, each.artifact) for each in _judge(rule, self.TABLE)] == [
            ("weights-50", "tflite"),
            ("weights-50", "tflite-int8"),
            ("weights-80", "tflite"),
            ("weights-80", "tflite-int8"),
        ]

    def test_a_format_that_some_variants_have_is_judged_there(self):
        table = _table(_row("dense", "keras"), _row("dense-int8", "tflite-int8"))
        rule = {"artifact": "tflite-int8", **_limit("macs", "max", 1e9)}
        assert [(each.variant, each.outcome) for each in _judge(rule, table)] == [
            ("dense-int8", "kept")
        ]
        for variant in ("dense", "d*e"):
            assert _only({"variant": variant, **rule}, table).outcome == "missing"

    def test_a_figure_that_no_artifact_has_is_missing(self):
        table = _table(_row(macs=None), _row(seed=1, macs=None))
        assert _only(_limit("macs", "max", 1e9), table).outcome == "missing"

    def test_a_variant_is_not_compared_with_itself(self):
        rule = {"artifact": "tflite", "against": "dense", "macs": {"max": 1e9, "max_ratio": 0.5}}
        assert [(each.variant, each.limit) for each in _judge(rule, self.TABLE)] == [
            ("dense", "max"),
            ("weights-50", "max"),
            ("weights-50", "max_ratio"),
            ("weights-80", "max"),
            ("weights-80", "max_ratio"),
        ]

    def test_rules_are_counted_from_one(self):
        budget = Budget.model_validate({"rules": [_limit("macs", "max", 1e9)] * 2})
        assert {each.rule for each in judge(budget, self.TABLE)} == {1, 2}

    @pytest.mark.parametrize(
        ("rule", "reason"),
        [
            (
                {"variant": "weigths-*"},
                "no variant of the run is called 'weigths-*': did you mean 'weights-80'?",
            ),
            (
                {"variant": "dense", "artifact": "tflite-int4"},
                "dense has no artifact 'tflite-int4': did you mean 'tflite-int8'?",
            ),
            (
                {"variant": "d*", "artifact": "tflite-int4"},
                "dense has no artifact 'tflite-int4': did you mean 'tflite-int8'?",
            ),
            (
                {"variant": "d*", "artifact": "keras", "against": "dense"},
                "'d*' matches only 'dense', which it is compared with: name another variant",
            ),
            (
                {"variant": "weights-50", "artifact": "keras", "against": "dens"},
                "against = 'dens' is not a variant of the run: did you mean 'dense'?",
            ),
            (
                {"variant": "dense", "artifact": "keras"},
                "MACs of dense keras has nothing to be compared with: give a baseline, "
                'or say against = "VARIANT" in the rule',
            ),
        ],
    )
    def test_what_is_not_there_is_missing_and_says_what_to_do(self, rule, reason):
        verdict = _only({**rule, **_limit("macs", "max_ratio", 1)}, self.TABLE)
        assert (verdict.outcome, verdict.reason) == ("missing", reason)
        assert verdict.sentence == f"rule #1: {reason}"
        assert verdict.value_text == verdict.margin_text == ""

    @pytest.mark.parametrize("value", [math.nan, math.inf, None])
    def test_a_figure_that_was_not_measured_is_missing(self, value):
        table = _table(_row(), _row(seed=1, latency_ms=value))
        verdict = _only(_limit("latency_ms", "max", 1), table)
        assert (verdict.outcome, verdict.reason) == (
            "missing",
            "latency of dense tflite is missing for seed 1: run the pipeline to its end",
        )
        assert _only(_limit("macs", "max", 1e9), table).outcome == "kept"
        without = table.drop(columns="latency_ms")
        assert _only(_limit("latency_ms", "max", 1), without).outcome == "missing"

    def test_a_reference_that_is_not_there_is_missing(self):
        rule = {"variant": "new", **_limit("latency_ms", "max_ratio", 1)}
        table = _table(_row("new"), _row("dense", "keras"))
        assert _only(rule, table, _table(_row())).reason == (
            "the baseline has no tflite of new: give one that has it, "
            'or say against = "VARIANT" in the rule'
        )
        assert _only(rule, table, _table(_row("new", latency_ms=math.nan))).reason == (
            "latency of the baseline's new tflite is missing for seed 0: "
            "give a baseline that has it"
        )
        assert _only({**rule, "against": "dense"}, table).reason == (
            "dense has no tflite to compare with: export it there too, "
            "or compare with a variant that has it"
        )
        untimed = _table(_row("new"), _row(latency_ms=math.nan))
        assert _only({**rule, "against": "dense"}, untimed).reason == (
            "latency of dense tflite is missing for seed 0: run the pipeline to its end"
        )

    def test_the_worst_seed_needs_the_same_seeds(self):
        table = _table(_row(), _row(seed=1), _row(seed=2))
        rule = _limit("macs", "max_ratio", 1)
        verdict = _only({"seeds": "worst", **rule}, table, _table(_row()))
        assert verdict.reason == (
            "the baseline has no seed 1, 2 to compare dense tflite with: "
            'run it with the same seeds, or say seeds = "mean" in the rule'
        )
        assert _only(rule, table, _table(_row())).outcome == "kept"


def test_how_much_worse_is_added_where_lower_is_better():
    """Of an error, 0.2 above a reference of 3 is 3.2."""
    by = from_record({"name": "mae", "unit": "mm", "better": "lower"})
    rows = [_row(variant, mae=value) for variant, value in (("dense", 3.0), ("slim", 3.15))]
    budget = Budget.model_validate(
        {"rules": [{"variant": "slim", "against": "dense", "mae": {"max_drop": 0.2}}]}
    )
    (verdict,) = judge(budget, _table(*rows), by=by)
    assert (verdict.outcome, verdict.bound) == ("kept", pytest.approx(3.2))


class TestARun:
    def test_its_figures_are_those_of_the_comparison(self, tiny_run: Path):
        table = judged_table(read_run(tiny_run))
        exact = pd.read_csv(tiny_run / "comparison.csv")
        pd.testing.assert_frame_equal(table[exact.columns], exact)
        rule = {"against": "dense", "macs": {"max_ratio": 1}, "accuracy": {"min": 0}}
        found = _judge(rule, table)
        assert {each.outcome for each in found} == {"kept"}
        assert all((tiny_run / each.source).is_file() for each in found)
        assert all(
            (tiny_run / each.source).is_file()
            for each in _judge(_limit("latency_ms", "max", 1e9), table)
        )

    def test_what_the_pipeline_plans_is_asked_for_and_leftovers_are_not(self, tiny_run: Path):
        run = read_run(tiny_run)
        run.record["pipeline"]["variants"] = {"dense": [], "sparse": [], "later": []}
        table = judged_table(run)
        assert list(dict.fromkeys(table["variant"])) == ["dense", "sparse", "later"]
        by_variant = {
            each.variant: each.outcome
            for each in _judge({"artifact": "tflite", **_limit("macs", "max", 1e12)}, table)
        }
        assert by_variant == {"dense": "kept", "sparse": "kept", "later": "missing"}
