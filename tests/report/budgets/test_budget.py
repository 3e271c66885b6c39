"""What a budget file may say, and the exact answer to what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.figures import judged
from tfprune.report.budgets.budget import Budget, load_budget, recorded_budget
from tfprune.report.run import Run

ALL = "accuracy, loss, parameters, nonzero, sparsity, macs, bytes, bytes_gzip, latency_ms"
TOLD = "memory_bytes, device_ms, cycles, sram_bytes, flash_bytes, arena_bytes, npu_share"


def _load(text: str, folder: Path) -> Budget:
    path = folder / "budget.toml"
    path.write_text(text)
    return load_budget(path)


def _run(pipeline: dict) -> Run:
    return Run(Path("saved_models", "digits"), {"pipeline": pipeline}, (), {})


def test_a_budget_reads_as_it_is_written(tmp_path):
    (rule,) = _load(
        """
        [[rules]]
        variant = "weights-*"
        artifact = "tflite-int8"
        against = "dense"
        seeds = "worst"
        macs = { max = 5_000_000 }
        bytes_gzip = { max_ratio = 0.5, max = "30 KiB" }
        accuracy = { min = 0.8, max_drop = 0.01 }
        """,
        tmp_path,
    ).rules
    assert (rule.variant, rule.artifact, rule.against, rule.seeds) == (
        "weights-*",
        "tflite-int8",
        "dense",
        "worst",
    )
    # In the order of figures and limits, however the file orders them.
    assert list(rule.limits()) == [
        ("accuracy", "min", 0.8),
        ("accuracy", "max_drop", 0.01),
        ("macs", "max", 5_000_000),
        ("bytes_gzip", "max", 30 * 1024),
        ("bytes_gzip", "max_ratio", 0.5),
    ]


def test_a_rule_is_for_everything_and_means_unless_it_says_otherwise(tmp_path):
    (rule,) = _load("[[rules]]\nloss = { max = 1 }", tmp_path).rules
    assert (rule.variant, rule.artifact, rule.against, rule.seeds) == ("*", "*", None, "mean")


@pytest.mark.parametrize("figure", [row.name for row in judged()])
def test_every_figure_takes_a_floor_and_a_ceiling(figure, tmp_path):
    (rule,) = _load(f"[[rules]]\n{figure} = {{ min = 0, max = 1 }}", tmp_path).rules
    assert list(rule.limits()) == [(figure, "min", 0), (figure, "max", 1)]


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("2048", 2048),
        ("2048.5", 2048.5),
        ('"7 B"', 7),
        ('"30 KiB"', 30 * 1024),
        ('"30KiB"', 30 * 1024),
        ('" 1.5 MiB "', 1.5 * 1024**2),
        ('"1.5 MB"', 1_500_000),
        ('"2 kB"', 2000),
        ('"1 GiB"', 1024**3),
    ],
)
def test_sizes_are_bytes_or_text_with_a_unit(said, size, tmp_path):
    (rule,) = _load(f"[[rules]]\nbytes = {{ max = {said} }}", tmp_path).rules
    assert list(rule.limits()) == [("bytes", "max", size)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rules is missing: add it"),
        ("rules = []", "rules is empty: add one"),
        ("[[rule]]", "rule is unknown: did you mean 'rules'? (and 1 more)"),
        ("rules = [1]", "rules#1 = 1 is not a table: write { key = value }"),
        ("[[rules]]", f"rules#1: sets no limit: give one of {ALL}"),
        (
            "[[rules]]\naccuracy = {}",
            "rules#1.accuracy: sets no limit: give one of min, max, max_drop, min_ratio",
        ),
        (
            "[[rules]]\nmacs = {}",
            "rules#1.macs: sets no limit: give one of min, max, max_rise, max_ratio",
        ),
        (
            "[[rules]]\nmacs = { max = 1 }\n[[rules]]\nacuracy = { min = 0.9 }",
            "rules#2.acuracy is unknown: did you mean 'accuracy'?",
        ),
        (
            "[[rules]]\naccuracy = { mn = 0.9 }",
            "rules#1.accuracy.mn is unknown: did you mean 'min'?",
        ),
        (
            "[[rules]]\naccuracy = { max_rise = 0.9 }",
            "rules#1.accuracy.max_rise is unknown: did you mean 'max_drop'?",
        ),
        (
            "[[rules]]\naccuracy = 0.9",
            "rules#1.accuracy = 0.9 is not a table: write { key = value }",
        ),
        (
            "[[rules]]\naccuracy = { min = 80 }",
            "rules#1.accuracy.min = 80: Input should be less than or equal to 1",
        ),
        (
            "[[rules]]\naccuracy = { min = 0.9, max = 0.8 }",
            "rules#1.accuracy: min=0.9 is above max=0.8, which nothing can keep",
        ),
        (
            "[[rules]]\nmacs = { max = true }",
            "rules#1.macs.max = True: Input should be a valid number",
        ),
        (
            "[[rules]]\nmacs = { max = '5' }",
            "rules#1.macs.max = '5': Input should be a valid number",
        ),
        (
            "[[rules]]\nmacs = { max = nan }",
            "rules#1.macs.max = nan: Input should be a finite number",
        ),
        (
            "[[rules]]\nmacs = { max = -1 }",
            "rules#1.macs.max = -1: Input should be greater than or equal to 0",
        ),
        (
            '[[rules]]\nbytes = { max = "30 kib" }',
            "rules#1.bytes.max: '30 kib' has the unknown unit 'kib': did you mean 'KiB'?",
        ),
        (
            '[[rules]]\nbytes = { max = "thirty" }',
            "rules#1.bytes.max: 'thirty' is not a size: "
            'give bytes, or text such as "30 KiB" or "1.5 MB"',
        ),
        (
            '[[rules]]\nseeds = "best"\nmacs = { max = 1 }',
            "rules#1.seeds = 'best' is unknown: choose one of mean, worst",
        ),
        (
            '[[rules]]\nvariant = "a|b"\nmacs = { max = 1 }',
            r"rules#1.variant = 'a|b': String should match pattern '^[A-Za-z0-9._*?!\[\]-]+$'",
        ),
        (
            '[[rules]]\nagainst = "dense"\nmacs = { max = 1 }',
            "rules#1: against = 'dense', but nothing is compared: "
            "give one of max_drop, max_rise, min_ratio, max_ratio",
        ),
        (
            '[[rules]]\nvariant = "dense"\nagainst = "dense"\nmacs = { max_ratio = 1 }',
            "rules#1: compares 'dense' with itself: name another variant",
        ),
        (
            "[[budget.rules]]\nmcs = { max = 1 }",
            "budget.rules#1.mcs is unknown: did you mean 'macs'?",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(text, said, tmp_path):
    with pytest.raises(UsageError) as caught:
        _load(text, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'budget.toml'}: {said}"


def test_a_missing_file_is_a_failure_not_a_usage_error(tmp_path):
    with pytest.raises(TfpruneError, match="cannot be read") as caught:
        load_budget(tmp_path / "none.toml")
    assert caught.value.exit_code == 1


def test_a_pipeline_file_is_read_for_its_budget(tmp_path):
    text = 'name = "digits"\n[[budget.rules]]\nmacs = { max = 1 }'
    assert _load(text, tmp_path) == _load("[[rules]]\nmacs = { max = 1 }", tmp_path)


def test_a_run_keeps_the_budget_of_its_pipeline(tmp_path):
    budget = _load('[[rules]]\nbytes = { max = "1 KiB" }', tmp_path)
    assert recorded_budget(_run({"budget": budget.model_dump(mode="json")})) == budget
    assert recorded_budget(_run({"budget": None})) is None
    assert recorded_budget(_run({})) is None


def test_a_recorded_budget_that_is_not_understood_says_where_it_is():
    with pytest.raises(UsageError) as caught:
        recorded_budget(_run({"budget": {"rules": [{"zzzz": {"max": 1}}]}}))
    file = Path("saved_models", "digits", "run.json")
    assert str(caught.value) == (
        f"{file}: pipeline.budget.rules#1.zzzz is unknown: choose one of variant, artifact, "
        f"against, device, seeds, {ALL}, {TOLD}"
    )
