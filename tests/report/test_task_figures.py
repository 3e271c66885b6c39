"""What a task is compared by is in every output, by its name, in its unit and in its direction."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.fake import fake_run
from tests.report.html.test_page import Page
from tests.report.task_figures import AUC, ERROR, LOSS, MAE, MEAN_IOU, R2, TASKS, as_task
from tests.report.test_tickets import fake_lottery
from tfprune.cli import main
from tfprune.cli.inspect import _cuts_for_people
from tfprune.cli.measure import _for_people
from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import ACCURACY, COSTS, Figure, figure, from_record, to_record
from tfprune.files import read_json, write_json
from tfprune.report import (
    comparison,
    judge,
    load_budget,
    planned,
    read_run,
    tickets,
    tickets_over_seeds,
    write_report,
)
from tfprune.report.budgets import Budget, judged_table, recorded_budget
from tfprune.report.html.comparison import groups, main_columns, result
from tfprune.report.html.curves import chain, shared_axes
from tfprune.report.html.tradeoff import pareto_front, tradeoff
from tfprune.report.sensitivity import plot_sensitivity
from tfprune.report.tables import spread
from tfprune.report.tickets import tickets_with_units

SHARES = {"mean_iou", "top_5", "error"}


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _value(by: Figure) -> Callable[[float], float]:
    """From the accuracy of the fake run to a value of the figure; a better one stays better."""
    if by.name in SHARES:
        return (lambda share: 1 - share) if by.better == "lower" else lambda share: share
    return (
        (lambda share: 43.5 - 20 * share) if by.better == "lower" else lambda share: 2 * share - 1
    )


def _with_budget(run: Path, rules: list[dict[str, Any]]) -> Path:
    record = read_json(run / "run.json")
    record["pipeline"]["budget"] = {"rules": rules}
    write_json(run / "run.json", record)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Levels of a lottery, and a variant that lost channels; nobody may change it."""
    return fake_lottery(tmp_path_factory.mktemp("runs") / "classes", history=None)


@pytest.fixture(scope="module", params=TASKS)
def by(request) -> Figure:
    return TASKS[request.param]


@pytest.fixture(scope="module")
def run(whole, by, tmp_path_factory) -> Path:
    """The same run as that of another task, with a budget and its report."""
    run = as_task(whole, tmp_path_factory.mktemp(by.name) / "other", by, _value(by))
    reach = "min" if by.better == "higher" else "max"
    limits = {reach: _value(by)(0.9), "max_drop": 0.005 if by.is_share else 0.01}
    _with_budget(run, [{"variant": "ticket-*", "against": "dense", by.name: limits}])
    write_report(run)
    return run


class TestEveryOutput:
    def test_no_file_of_a_report_says_accuracy(self, run, by):
        written = [
            path
            for path in run.iterdir()
            if path.suffix in (".md", ".html", ".csv", ".json", ".svg")
        ]
        assert len(written) == 8
        for path in written:
            assert "accuracy" not in path.read_text(encoding="utf-8").lower(), path.name

    def test_tables_have_it_under_its_name_with_every_digit(self, run, by):
        value = read_json(run / "dense" / "seed-0" / "record.json")["artifacts"][0][by.name]
        (row,) = comparison(read_run(run)).query("variant == 'dense' and seed == 0").iloc[:1].iloc
        assert row[by.name] == value
        first = pd.read_csv(run / "comparison.csv", float_precision="round_trip")
        assert list(first.columns[:5]) == ["run", "variant", "seed", "artifact", by.name]
        assert first[by.name][0] == value
        assert json.loads((run / "comparison.json").read_text())[0][by.name] == value
        assert list(first.columns).count("loss") == 1

    @pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
    def test_compare_prints_it(self, run, by, form):
        told = _run("compare", run, "--format", form)
        assert told.exit_code == 0, told.output
        assert "accuracy" not in told.stdout
        assert (by.name if form in ("csv", "json") else by.title) in told.stdout
        if form == "table":
            mean = comparison(read_run(run)).query("variant == 'dense'")[by.name].mean()
            assert (
                by.number.text(mean, by.number.places(mean)).split("%")[0].split()[0] in told.stdout
            )

    def test_the_page_and_markdown_say_what_it_is_and_which_way_is_better(self, run, by):
        text = Page((run / "report.html").read_text(encoding="utf-8")).text
        assert f"The {by.noun} of dense is {by.text(_value(by)(0.955))} on 200 test" in text
        assert f"{by.sentence} ({by.better} is better) is each artifact" in text
        assert f"{by.sentence} against compressed size" in text
        assert ("Lower and further left" if by.better == "lower" else "Higher and further") in text
        assert ("95% interval" in text) == by.proportion
        markdown = (run / "report.md").read_text(encoding="utf-8")
        assert f"{by.sentence} ({by.better} is better)" in markdown
        assert ("95% interval" in markdown) == by.proportion
        assert "nats" not in text or by.loss_unit == "nats"

    def test_axes_have_its_unit(self, run, by):
        plot = tradeoff(spread(comparison(read_run(run))), figure("bytes_gzip"), by)
        assert plot is not None
        ticks = re.findall(">([^<>]*)</text>", plot.svg)
        assert by.axis_title in ticks
        assert any(tick.endswith("%") for tick in ticks) == by.is_share
        assert by.axis_title == ("MAE, mm" if by is MAE else by.title)

    def test_levels_have_it_and_what_validation_gave(self, run, by):
        read = read_run(run)
        table = tickets(read)
        assert {by.name, f"val_{by.name}", f"early_stop_val_{by.name}"} <= set(table.columns)
        for row in table.to_dict("records"):
            name = f"{row['method']}-{row['level']}" if row["level"] else row["method"]
            delivery = next(
                each for each in read.deliveries if (each.variant, each.seed) == (name, row["seed"])
            )
            history = [s.record["history"] for s in delivery.steps if s.record.get("history")][-1]
            best = int(np.argmin(history["val_loss"]))
            # The loss tells when it is best, whichever way the figure goes.
            assert row[f"early_stop_val_{by.name}"] == history[f"val_{by.name}"][best]
        shown = tickets_with_units(tickets_over_seeds(table, by), by)
        assert {by.title, f"val. {by.title}", f"val. {by.title} then"} <= set(shown.columns)

    def test_curves_hold_all_that_was_recorded_within_their_axes(self, run, by):
        read = read_run(run)
        chains = [chain([delivery], by) for delivery in read.deliveries]
        shared = shared_axes(chains)
        values = np.concatenate(
            [one.histories[0][f"val_{by.name}"].dropna() for one in chains if one.epochs]
            + [[after] for one in chains for _, after in one.removals]
        )
        assert len(values)
        low, high = shared.figure
        assert low <= values.min() <= values.max() <= high
        if by.name != "loss":
            assert any(one.removals for one in chains)
        text = Page((run / "report.html").read_text(encoding="utf-8")).text
        assert f"validation {by.noun}" in text

    def test_verdicts_have_its_unit_and_its_direction(self, run, by, tmp_path):
        verdicts = judge(recorded_budget(read_run(run)), judged_table(read_run(run)), by=by)
        drops = [each for each in verdicts if each.limit == "max_drop"]
        assert {each.title for each in verdicts} == {by.title}
        way = "below" if by.better == "higher" else "above"
        assert all(f" {way} dense = " in each.bound_text for each in drops)
        for each in drops:
            worse = (each.reference - each.value) * (1 if by.better == "higher" else -1)
            assert each.outcome == ("kept" if worse <= each.given + 1e-12 else "broken")
        assert "broken" in {each.outcome for each in drops}
        unit = "points" if by.is_share else by.number.unit.strip()
        assert all(each.margin_text.endswith(unit) for each in drops)
        told = _run(
            "check", run, "--json", "--junit", tmp_path / "b.xml", "--summary", tmp_path / "b"
        )
        assert told.exit_code == 1
        document = json.loads(told.stdout)
        assert {each["figure"] for each in document["verdicts"]} == {by.name}
        assert "by" not in document["verdicts"][0]
        assert all(by.title in each["told"] for each in document["verdicts"])
        for path in (tmp_path / "b.xml", tmp_path / "b"):
            assert by.title in path.read_text(encoding="utf-8")
            assert "accuracy" not in path.read_text(encoding="utf-8") + told.output

    def test_mlflow_has_it(self, run, by, tmp_path, monkeypatch):
        if by is not MAE:
            # One is enough: names are those of the tables.
            return
        pytest.importorskip("mlflow")
        from mlflow import MlflowClient

        from tfprune.report.tracking import log_to_mlflow

        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        for path in run.glob("*/seed-*/record.json"):
            write_json(path, {**read_json(path), "identity": str(path)})
        uri = (tmp_path / "mlruns").as_uri()
        identity = log_to_mlflow(read_run(run), uri)[0]
        logged = MlflowClient(tracking_uri=uri).get_run(identity).data
        assert (
            logged.metrics["keras/mae"] == read_run(run).deliveries[0].record["artifacts"][0]["mae"]
        )
        assert "val_mae" in logged.metrics
        assert not any("accuracy" in name for name in logged.metrics)
        assert (logged.tags["tfprune.figure"], logged.tags["tfprune.better"]) == ("mae", "lower")


class TestMirror:
    """Replacing a figure f by 1 - f, lower is better, changes no verdict, front or order."""

    @pytest.fixture(scope="class")
    def both(self, whole, tmp_path_factory) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("mirror")
        rule = {"against": "dense", "seeds": "worst"}
        one = as_task(whole, folder / "one", ACCURACY)
        other = as_task(whole, folder / "other", ERROR, lambda share: 1 - share)
        _with_budget(one, [{**rule, "accuracy": {"min": 0.94, "max_drop": 0.01}}])
        _with_budget(other, [{**rule, "error": {"max": 0.06, "max_drop": 0.01}}])
        return one, other

    def test_verdicts(self, both):
        one, other = (
            judge(recorded_budget(run), judged_table(run), by=run.figure)
            for run in map(read_run, both)
        )
        assert {each.outcome for each in one} == {"kept", "broken"}
        assert [each.outcome for each in one] == [each.outcome for each in other]
        assert [each.margin for each in one] == pytest.approx([each.margin for each in other])

    def test_fronts_results_and_rows(self, both):
        one, other = map(read_run, both)
        spreads = [spread(comparison(run)) for run in (one, other)]
        for cost in map(figure, COSTS):
            fronts = [
                tradeoff(means, cost, run.figure).front
                for means, run in zip(spreads, (one, other), strict=True)
            ]
            assert [each.partition(" (")[0] for each in fronts[0]] == [
                each.partition(" (")[0] for each in fronts[1]
            ]
        results = [result(run, means) for run, means in zip((one, other), spreads, strict=True)]
        said = {"loses": "worse", "gains": "better", "keeps": "keeps"}
        for (name, change), (twin, mirrored) in zip(*(r["changes"] for r in results), strict=True):
            assert name == twin
            assert said[change.split()[0]] in mirrored
            assert change.split(" points")[0].split()[-1] in mirrored
        # The signs of changes are those of the numbers, and so the other way round.
        changes = [
            [row.main[1].text for group in groups(run, means) for row in group.rows]
            for run, means in zip((one, other), spreads, strict=True)
        ]
        assert [each.translate({0x2B: "\N{MINUS SIGN}", 0x2212: "+"}) for each in changes[0]] == (
            changes[1]
        )
        # A proportion of right examples is as sure as that of wrong ones.
        assert results[0]["error"] == results[1]["error"]

    def test_the_best_of_a_sweep_are_the_same(self, tmp_path):
        chains = {"dense": ["dense"]} | {f"s{n:02d}": ["dense", "sparse"] for n in range(14)}
        one = fake_run(tmp_path / "one", chains, formats=("tflite",))
        other = as_task(one, tmp_path / "other", ERROR, lambda share: 1 - share)
        named = [
            [name for name, _ in result(run, spread(comparison(run)))["changes"]]
            for run in (read_run(one), read_run(other))
        ]
        assert named[0] == named[1]
        assert len(named[0]) == 8

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), min_size=1, max_size=12),
        st.sampled_from([("min", "max"), ("max", "min"), ("max_drop", "max_drop")]),
        st.integers(0, 20),
    )
    def test_fronts_and_verdicts_of_any_figures(self, points, limits, given_twentieths):
        costs, values = np.array(points).T
        shares = values / 20
        assert np.array_equal(
            pareto_front(costs, ACCURACY.gain(shares)), pareto_front(costs, ERROR.gain(1 - shares))
        )
        limit = given_twentieths / 20
        outcomes = []
        for by, name, side, bound in (
            (ACCURACY, limits[0], shares, limit),
            (ERROR, limits[1], 1 - shares, limit if "drop" in limits[0] else 1 - limit),
        ):
            table = pd.DataFrame(
                {"variant": "it", "artifact": "keras", "seed": range(len(side)), by.name: side}
            )
            before = table.assign(**{by.name: 0.5})
            rule = {"seeds": "worst", by.name: {name: bound}}
            (verdict,) = judge(Budget(rules=[rule]), table, before, by)
            outcomes.append(verdict.outcome)
        assert outcomes[0] == outcomes[1]

    def test_the_most_sensitive_groups_are_the_same(self, tmp_path):
        rows = [{"layers": "", "keep": 1.0, "accuracy": 0.9}]
        rows += [
            {"layers": f"conv{n}", "keep": keep, "accuracy": 0.9 - n * (1 - keep) / 20}
            for n in range(12)
            for keep in (0.75, 0.5)
        ]
        table = pd.DataFrame(rows)
        mirror = table.rename(columns={"accuracy": "error"})
        mirror["error"] = 1 - mirror["error"]
        texts = [
            plot_sensitivity(each, tmp_path / f"{by.name}.svg", by).read_text()
            for each, by in ((table, ACCURACY), (mirror, ERROR))
        ]
        named = [re.findall(r"<!-- (conv\d+) -->", text) for text in texts]
        assert named[0] == named[1] == [f"conv{n}" for n in range(11, 3, -1)]
        assert "accuracy" not in texts[1]


class TestNeverMixed:
    def test_a_variant_of_another_figure_is_left_out_and_said(self, whole, tmp_path):
        run = as_task(whole, tmp_path / "run", MAE, _value(MAE))
        path = run / "slim" / "seed-1" / "record.json"
        record = read_json(path)
        del record["task"]
        for artifact in record["artifacts"]:
            artifact["accuracy"] = artifact.pop("mae") / 100
        write_json(path, record)
        read = read_run(run)
        assert read.figure.is_same(MAE)
        said = (
            "run: slim was measured by accuracy in %, higher is better, and not by MAE in mm, "
            "lower is better: it is left out"
        )
        assert said in read.notes()
        assert ("slim", 1) not in [(each.variant, each.seed) for each in read.deliveries]
        table = planned(read)
        (left,) = table.query("variant == 'slim' and seed == 1").iloc
        assert math.isnan(left["mae"])
        told = _run("compare", run)
        assert told.exit_code == 0
        assert f"missing: {said}\n" in told.stderr

    @pytest.mark.parametrize("unlike", [MEAN_IOU, from_record({**to_record(MAE), "unit": "m"})])
    def test_runs_of_two_figures_are_refused_in_one_line(self, whole, tmp_path, unlike):
        one = as_task(whole, tmp_path / "one", MAE, _value(MAE))
        other = as_task(whole, tmp_path / "other", unlike)
        _with_budget(one, [{"bytes": {"max_ratio": 1}}])
        line = (
            f"Error: {one} is compared by MAE in mm, lower is better, and {other} by "
            f"{unlike.description}: give runs that are compared by the same figure\n"
        )
        for words in (["compare", one, other], ["check", one, "--baseline", other]):
            told = _run(*words)
            assert (told.exit_code, told.stdout, told.stderr) == (2, "", line)
        assert _run("compare", one, other, "--layers").exit_code == 0

    def test_runs_of_one_figure_share_a_table(self, whole, tmp_path):
        runs = [as_task(whole, tmp_path / name, MAE, _value(MAE)) for name in ("one", "two")]
        told = _run("compare", *runs)
        assert told.exit_code == 0
        assert told.stdout.count("MAE") == 1


class TestBudgets:
    def _load(self, text: str, folder: Path, by: Figure) -> Budget:
        path = folder / "budget.toml"
        path.write_text(f"[[rules]]\n{text}")
        return load_budget(path, by)

    @pytest.mark.parametrize(
        ("by", "text"),
        [
            (MEAN_IOU, "mean_iou = { min = 0.6, max_drop = 0.01, min_ratio = 0.9 }"),
            (MAE, "mae = { max = 120.5, max_drop = 3, max_ratio = 1.1 }"),
            (LOSS, "loss = { max = 2, min = -1, max_drop = 0.1, max_rise = 0.1 }"),
            (R2, "r2 = { min = -0.5, max_drop = 0.25 }"),
            (ERROR, "error = { max = 0.1, max_drop = 0.01, max_ratio = 1.5 }"),
        ],
    )
    def test_a_rule_names_the_figure_of_the_task(self, by, text, tmp_path):
        (rule,) = self._load(text, tmp_path, by).rules
        assert {name for name, *_ in rule.limits()} == {by.name}
        # Read before the task is known, it says the same.
        open_rule = Budget(rules=[{"variant": "*", **_table(text)}])
        assert open_rule.of(by) == self._load(text, tmp_path, by)
        assert sorted(open_rule.rules[0].limits()) == sorted(rule.limits())

    @pytest.mark.parametrize(
        ("by", "text", "said"),
        [
            (MEAN_IOU, "mean_io = { min = 0.6 }", "mean_io is unknown: did you mean 'mean_iou'?"),
            (MEAN_IOU, "accuracy = { min = 0.6 }", "accuracy is unknown: choose one of"),
            (ACCURACY, "mean_iou = { min = 0.6 }", "mean_iou is unknown: choose one of"),
            (MEAN_IOU, "mean_iou = { min = 60 }", "mean_iou.min = 60"),
            (MEAN_IOU, "mean_iou = { max_rise = 0.1 }", "mean_iou.max_rise is unknown: did you"),
            (
                MAE,
                "mae = { min_ratio = 0.1 }",
                "mae.min_ratio is unknown: did you mean 'max_ratio'",
            ),
            (MAE, "mae = { max_drop = -1 }", "mae.max_drop = -1: Input should be greater than"),
            (MAE, "mae = { min = 3, max = 2 }", "mae: min=3 is above max=2"),
            (MAE, "loss = { max_drop = 1 }", "loss.max_drop is unknown: did you mean 'max_ratio'?"),
        ],
    )
    def test_a_wrong_name_or_limit_is_one_line(self, by, text, said, tmp_path):
        with pytest.raises(UsageError) as caught:
            self._load(text, tmp_path, by)
        file = tmp_path / "budget.toml"
        assert str(caught.value).startswith(f"{file}: rules#1.{said}")
        assert "\n" not in str(caught.value)
        # So is a budget that was read before the task was known.
        with pytest.raises(UsageError, match=re.escape(f"rules#1.{said}")):
            try:
                judge(Budget(rules=[_table(text)]), pd.DataFrame(), by=by)
            except ValueError as error:
                # What no figure allows is refused at once.
                if isinstance(error, UsageError):
                    raise
                raise UsageError(f"rules#1.{said}") from None

    def test_a_ratio_to_a_negative_figure_is_not_judged(self):
        table = pd.DataFrame(
            {"variant": ["a", "b"], "artifact": "keras", "seed": 0, "r2": [-0.5, -0.4]}
        )
        rule = {"variant": "b", "against": "a", "r2": {"min_ratio": 0.9, "max_drop": 0.0}}
        drop, ratio = judge(Budget(rules=[rule]), table, by=R2)
        assert (drop.outcome, ratio.outcome) == ("kept", "missing")
        assert "limit it by max_drop" in ratio.reason

    def test_a_small_number_is_not_rounded_away(self):
        table = pd.DataFrame({"variant": "a", "artifact": "keras", "seed": 0, "mae": [0.000123]})
        (verdict,) = judge(Budget(rules=[{"mae": {"max": 0.000122}}]), table, by=MAE)
        assert verdict.sentence == (
            "rule #1: a keras: MAE 0.000123 mm, but at most 0.000122 mm is asked: 0.000001 mm too "
            "much (a/seed-0/record.json)"
        )


def _table(text: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(text)


class TestRecords:
    def test_a_run_without_a_task_is_one_of_classification(self, whole):
        run = read_run(whole)
        assert run.figure is ACCURACY
        assert main_columns() == main_columns(run.figure)

    def test_examples_are_counted_under_both_names(self, whole, tmp_path):
        run = as_task(whole, tmp_path / "run", ACCURACY)
        for path in run.glob("*/seed-*/record.json"):
            record = read_json(path)
            for artifact in record.get("artifacts", []):
                artifact["test_examples"] = artifact.pop("test_images")
            write_json(path, record)
        old, new = (
            write_report(each).read_text(encoding="utf-8")
            for each in (as_task(whole, tmp_path / "twin" / "run", ACCURACY), run)
        )
        assert old == new
        assert "200 test examples" in new

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda r: r["artifacts"][0].pop("mean_iou"), "artifacts#1.mean_iou is missing"),
            (
                lambda r: r["artifacts"][0].update(mean_iou=1.5),
                "artifacts#1.mean_iou = 1.5 is not a share of 0 to 1",
            ),
            (
                lambda r: r["artifacts"][0].update(mean_iou="much"),
                "artifacts#1.mean_iou = 'much' is not a number",
            ),
            (lambda r: r["task"].update(better="more"), "task.better = 'more' is unknown"),
            (lambda r: r["task"].pop("name"), "task.name is missing"),
            (lambda r: r["task"].update(name="bytes"), "task: 'bytes' is the name of something"),
            (lambda r: r["task"].update(name="a b"), "task: 'a b' is not a name of a figure"),
        ],
    )
    def test_a_damaged_figure_is_one_line(self, whole, tmp_path, change, said):
        run = as_task(whole, tmp_path / "run", MEAN_IOU)
        path = run / "dense" / "seed-0" / "record.json"
        record = read_json(path)
        change(record)
        write_json(path, record)
        with pytest.raises(TfpruneError) as caught:
            read_run(run)
        assert str(caught.value).startswith(f"{path} is damaged ({said}")

    @pytest.mark.parametrize("by", [ACCURACY, *TASKS.values()], ids=lambda by: by.name)
    def test_a_figure_is_read_back_as_it_was(self, by):
        assert from_record(json.loads(json.dumps(to_record(by)))) == by

    def test_a_figure_that_is_not_a_number_is_shown_as_missing(self, whole, tmp_path):
        values = {0.95: math.nan, 0.96: math.inf}
        run = as_task(whole, tmp_path / "run", AUC, lambda share: values.get(share, share))
        write_report(run)
        text = Page((run / "report.html").read_text(encoding="utf-8")).text
        assert "The AUC of dense is unknown" in text or "The AUC of dense is inf" in text
        assert "has an unknown AUC" in text


class TestPrinted:
    def test_measured_files_have_it_and_what_is_against_a_baseline(self):
        table = pd.DataFrame(
            {
                "artifact": ["a.tflite", "b.tflite"],
                "mae": [43.123456, 0.00012],
                "loss": [2867.25, 0.5],
                "bytes": [2048, 1024],
                "mae_difference": [0.0, -43.123336],
                "bytes_ratio": [1.0, 0.5],
            },
            dtype=object,
        )
        shown = _for_people(table, MAE)
        assert list(shown.columns) == [
            "artifact",
            "MAE",
            "difference",
            "loss",
            "size",
            "size left",
        ]
        assert list(shown["MAE"]) == ["43.12 mm", "0.00012 mm"]
        assert list(shown["difference"]) == ["+0 mm", "-43.12 mm"]
        assert list(shown["loss"]) == ["2,867", "0.5"]

    def test_cuts_have_its_unit(self):
        rows = [("", 0, 1.0, 3.0), ("b", 8, 0.5, 4.25), ("a", 8, 0.5, 3.5), ("a", 8, 0.25, 9.0)]
        table = pd.DataFrame(rows, columns=["layers", "channels", "keep", "mae"])
        shown = _cuts_for_people(table, MAE)
        assert list(shown.columns) == ["layers", "channels", "50% kept", "25% kept"]
        assert shown.fillna("").to_numpy().tolist() == [
            ["b", 8, "4.25 mm", ""],
            ["a", 8, "3.5 mm", "9 mm"],
        ]

    def test_a_title_is_text_and_nothing_else(self, whole, tmp_path):
        title = "<b>$x^2$ {{ 7 * 7 }}\x1b[31m|*_\n"
        by = from_record({**to_record(MAE), "title": title, "name": "top-5.copy"})
        run = as_task(whole, tmp_path / "run", by, _value(MAE))
        _with_budget(run, [{by.name: {"max": 30}}])
        write_report(run)
        markup = (run / "report.html").read_text(encoding="utf-8")
        page = Page(markup)
        assert by.title == "<b>$x^2$ {{ 7 * 7 }} [31m|*_"
        assert page.text.count(by.title) > 5
        assert "\x1b" not in markup
        told = _run("compare", run)
        assert "\x1b" not in told.output
        assert _run("check", run).exit_code == 0
