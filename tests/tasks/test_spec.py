"""The [task] table is checked without Keras, each mistake in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tfprune.errors import TfpruneError, UsageError
from tfprune.tasks import TaskSpec
from tfprune.validation import describe_error

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "regresion"}, "regression"),
    ({"kind": {"a": "regression", "b": "clasification"}}, "did you mean 'classification'?"),
    ({"metric": ["mae"]}, "did you mean 'metrics'?"),
    ({"metrics": ["mean_io"]}, "did you mean 'mean_iou'?"),
    ({"metrics": {"a": ["nonsense"]}}, "give a metric of Keras or FILE.py:NAME"),
    ({"metrics": [{"class_name": "Nonsense"}]}, "'Nonsense' is unknown"),
    ({"figure": "acuracy"}, "did you mean 'accuracy'?"),
    ({"figure": "mae", "better": "higher"}, "a lower mae is better"),
    ({"figure": "out/mean_iou", "better": "lower"}, "a higher mean_iou is better"),
    ({"figure": "loss", "better": "higher"}, "a lower loss is better"),
    ({"metrics": ["m.py:dice"], "figure": "dice"}, "better is missing"),
    ({"figure": "accuracy", "unit": "mm"}, "in percent"),
    ({"unit": "mm"}, "unit needs figure"),
    ({"better": "higher"}, "better needs figure"),
    ({"top": 1}, "top = 1"),
    ({"kind": "regression", "top": 5}, 'kind = "classification"'),
    ({"kind": "binary", "ignore_class": 255}, 'kind = "segmentation"'),
    ({"class_weights": {"a": -1.0}}, "a = -1.0 is not a number of at least 0"),
    ({"class_weights": "equal"}, "balanced"),
]


@pytest.mark.parametrize(("table", "said"), MISTAKES, ids=[str(table) for table, _ in MISTAKES])
def test_a_mistake_is_one_line(table: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        TaskSpec.model_validate(table)
    line = describe_error(caught.value, TaskSpec, "task")
    assert said in line
    assert "\n" not in line


def test_what_is_right_is_taken() -> None:
    for table in (
        {},
        {"kind": "segmentation", "figure": "mean_iou", "ignore_class": 255},
        {"kind": {"a": "regression", "b": "binary"}, "figure": "a/mae", "unit": "mm"},
        {"loss": {"class_name": "Huber", "config": {"delta": 2.0}}, "figure": "loss"},
        {"loss": ["mse", None], "metrics": [["mae"], []], "loss_weights": [1.0, 0.5]},
        {"metrics": ["m.py:dice"], "figure": "dice", "better": "higher"},
        {"kind": "classification", "top": 5, "class_weights": {"cat": 2.0}},
        {"kind": "regression", "unit": "mm"},
    ):
        spec = TaskSpec.model_validate(table)
        assert TaskSpec.model_validate(spec.model_dump(exclude_none=True)) == spec


def test_the_command_line_takes_a_kind_or_a_file(tmp_path: Path) -> None:
    assert TaskSpec.read("multi-label") == TaskSpec(kind="multi-label")
    path = tmp_path / "task.toml"
    for text in ('kind = "regression"\nunit = "mm"', '[task]\nkind = "regression"\nunit = "mm"'):
        path.write_text(text)
        assert TaskSpec.read(str(path)) == TaskSpec(kind="regression", unit="mm")
    with pytest.raises(UsageError, match="did you mean 'regression'"):
        TaskSpec.read("regresion")
    path.write_text('[task]\nkinds = "regression"')
    with pytest.raises(UsageError, match=r"task.kinds is unknown: did you mean 'kind'\?"):
        TaskSpec.read(str(path))
    with pytest.raises(TfpruneError, match="cannot be read"):
        TaskSpec.read("no.toml")


def test_files_are_checked_without_keras() -> None:
    code = (
        "import sys; from tfprune.tasks import TaskSpec, METRICS; TaskSpec(kind='binary'); "
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_all_files_of_losses_and_metrics_are_named() -> None:
    own = {"class_name": "d.py:Loss", "config": {}}
    for loss in (own, [None, own], {"a": own}):
        spec = TaskSpec(loss=loss, metrics={"a": ["m.py:x", {"class_name": "n.py:Y"}], "b": "mae"})
        assert [str(path) for path in spec.files()] == ["d.py", "m.py", "n.py"]
    assert [str(path) for path in TaskSpec(loss="d.py:loss").files()] == ["d.py"]
