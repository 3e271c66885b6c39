"""Every example of data, a model and a task of one's own: from training to a judged report, small.

Each is run with the command line, as a user runs it, on few examples and for few epochs.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.tables import slow
from tfprune.cli.main import main
from tfprune.pipeline import load_pipeline
from tfprune.pipeline.inputs import check_budget
from tfprune.report import comparison, read_run

ROOT = Path(__file__).parents[2]
TFLITE = ("tflite", "tflite-int8")


@dataclass(frozen=True)
class Example:
    """An example, how it is made small, and what it is compared by."""

    name: str
    figure: str
    better: str
    settings: tuple[str, ...]
    formats: tuple[str, ...] = TFLITE
    only: tuple[str, ...] = ()
    epochs: int = 1


EXAMPLES = [
    Example(
        "photos",
        "accuracy",
        "higher",
        (
            "data.options.count=24",
            "data.image_size=[16, 16]",
            "model.options={ width = 4, blocks = [1, 1] }",
            "slim.round_to=1",
        ),
        only=("dense", "filters-50"),
    ),
    Example(
        "segmentation",
        "mean_iou",
        "higher",
        ("data.options.scale=0.04", "model.options.width=4"),
        only=("dense", "filters-50"),
    ),
    Example("diabetes", "mae", "lower", (), only=("dense", "neurons-50")),
    Example(
        "keywords",
        "accuracy",
        "higher",
        ("data.options.scale=0.05", "model.options.width=8"),
        only=("dense", "weights-70"),
    ),
    Example(
        "two_ends",
        "digit_accuracy",
        "higher",
        ("data.limit=300", "model.options.width=8"),
        (*TFLITE, "savedmodel"),
        only=("dense", "filters-50"),
        # After one, the classes are so close that rounding to int8 changes them.
        epochs=12,
    ),
    Example(
        "transfer_photos",
        "accuracy",
        "higher",
        (
            "data.options.count=16",
            "data.image_size=[32, 32]",
            "model.options={ alpha = 0.35, weights = 'random' }",
        ),
        # A net of random weights gives about the same for all, with which int8 cannot agree.
        formats=("keras", "tflite"),
        only=("filters-60",),
    ),
]


def test_every_example_is_tried():
    own = {
        path.stem
        for path in (ROOT / "pipelines").glob("*.toml")
        if ".py:" in tomllib.loads(path.read_text())["data"]["name"]
    }
    assert own == {example.name for example in EXAMPLES}


def _tfprune(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout


SLOW = ("transfer_photos", "segmentation", "keywords", "two_ends", "photos")


# So few examples make a step, and its ramp a cut, which is said.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "example",
    [
        # Half a minute or more each, which `make slow` takes.
        slow(each) if each.name in SLOW else each
        for each in EXAMPLES
    ],
    ids=lambda example: example.name,
)
def test_an_example_goes_all_the_way(example, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    # The photos are written there.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    formats = list(example.formats)
    path = ROOT / "pipelines" / f"{example.name}.toml"
    raw = tomllib.loads(path.read_text())
    check_budget(load_pipeline(path))
    settings = [
        *example.settings,
        f"formats={json.dumps(formats)}",
        *(
            f"steps.{name}.epochs={example.epochs}"
            for name, step in raw["steps"].items()
            if "epochs" in step
        ),
    ]
    output = _tfprune(
        "run",
        str(path),
        "--out",
        str(tmp_path / "runs"),
        *(word for setting in settings for word in ("--set", setting)),
        *(word for variant in example.only for word in ("--only", variant)),
    )
    directory = tmp_path / "runs" / example.name
    run = read_run(directory)
    assert (run.figure.name, run.figure.better) == (example.figure, example.better)
    assert run.figure.title.lower() in output.lower()

    table = comparison(run)
    assert set(table.variant) == set(example.only)
    assert set(table.artifact) == set(formats)
    assert table[example.figure].notna().all()
    assert table.loss.notna().all()
    if len(example.only) > 1:
        dense, small = (table[table.variant == variant] for variant in example.only)
        assert small.nonzero.max() < dense.nonzero.min()

    for variant in example.only:
        listed = json.loads((directory / variant / "seed-0" / "artifacts.json").read_text())
        for artifact in listed["artifacts"]:
            assert (directory / variant / "seed-0" / artifact["path"]).exists()
            # The share of equal classes, or how far numbers are off.
            assert artifact["agreement"] >= 0.9 or artifact["off"] <= 0.1, artifact

    report = _tfprune("report", str(directory)).strip()
    page = Path(report).read_text()
    said = (directory / "report.md").read_text()
    for text in (page, said):
        assert run.figure.title.lower() in text.lower()
    if example.figure in ("mean_iou", "mae"):
        assert "accuracy" not in said.lower()
        assert "accuracy" not in _tfprune("compare", str(directory)).lower()

    easy, hard = (
        ("min = 0.0", "min = 1.0") if example.better == "higher" else ("max = 1e9", "max = 0")
    )
    for number, (limit, code) in enumerate(((easy, 0), (hard, 1))):
        budget = tmp_path / f"budget-{number}.toml"
        # Variants that were not asked for are missing.
        rules = [
            f'[[rules]]\nvariant = "{variant}"\nartifact = "tflite*"\n'
            f"{example.figure} = {{ {limit} }}\n"
            for variant in example.only
        ]
        budget.write_text("\n".join(rules))
        _tfprune("check", str(directory), "--budget", str(budget), code=code)
