"""A new pipeline file is one that runs, and the schema says what `load_pipeline` takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tfprune.errors import UsageError
from tfprune.pipeline import json_schema, load_pipeline, new_pipeline
from tfprune.pipeline.authoring import to_toml
from tfprune.tasks.spec import KINDS as TASKS
from tfprune.vocabulary import DELIVERIES

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.mark.parametrize(("data", "model"), [("digits", "vgg"), ("cifar10", "MobileNetV2")])
def test_a_new_file_is_valid_and_named_after_its_file(tmp_path, data, model):
    pipeline = load_pipeline(new_pipeline(tmp_path / "mine.toml", data=data, model=model))
    assert (pipeline.name, pipeline.data.name, pipeline.model.name) == ("mine", data, model)
    assert list(pipeline.variants) == ["dense", "weights-80", "filters-50"]


def test_what_exists_is_not_overwritten(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("kept")
    with pytest.raises(UsageError) as caught:
        new_pipeline(path)
    assert str(caught.value) == (f"{path} exists already: choose another name, or delete it first")
    assert path.read_text() == "kept"


def test_another_ending_and_an_unknown_model_are_refused(tmp_path):
    with pytest.raises(UsageError) as caught:
        new_pipeline(tmp_path / "mine.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'mine.yaml'} does not end in .toml: name the file mine.toml"
    )
    with pytest.raises(UsageError) as caught:
        new_pipeline(tmp_path / "mine.toml", model="vggg")
    assert str(caught.value) == "unknown model 'vggg': did you mean 'vgg'?"
    assert not list(tmp_path.iterdir())


def _mistakes(document: dict) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_the_committed_schema_is_that_of_the_code():
    text = (PIPELINES / "schema.json").read_text()
    assert json.loads(text) == json_schema(), (
        "run `tfprune pipeline schema > pipelines/schema.json`"
    )


def test_it_is_a_schema():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_pipelines_agree_and_name_it(path):
    text = path.read_text()
    assert text.startswith("#:schema schema.json\n")
    assert _mistakes(tomllib.loads(text)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "train"', 'kind = "trian"'),
        ("sparsity = 0.8", "sparsity = 1.8"),
        ("sparsity = 0.8", "sparsty = 0.8"),
        ("batch_size = 64", "batch_size = 0"),
        ("batch_size = 64", "batchsize = 64"),
        ('name = "digits"', "name = 3"),
        ("seeds = [0]", "seeds = []"),
        ('"tflite"', '"tflight"'),
    ],
)
def test_a_mistake_is_marked(old, new):
    text = (PIPELINES / "digits.toml").read_text()
    assert old in text
    assert _mistakes(tomllib.loads(text.replace(old, new, 1))) != []


@pytest.mark.parametrize("made_for", [None, *DELIVERIES])
@pytest.mark.parametrize("task", [None, *TASKS])
def test_a_new_pipeline_is_valid_for_each_task_and_device(task, made_for, tmp_path):
    folder = tmp_path / 'my "best" photos'
    (folder / "cats").mkdir(parents=True)
    (folder / "dogs").mkdir()
    for name in ("cats", "dogs"):
        for number in range(40):
            (folder / name / f"{number}.png").touch()
    path = tmp_path / "mine.toml"
    made = new_pipeline(path, data=str(folder), model="resnet20", task=task, made_for=made_for)
    pipeline = load_pipeline(made)
    assert pipeline.data.name == str(folder)
    assert (pipeline.task.kind if pipeline.task else None) == task
    assert made_for is None or pipeline.formats == DELIVERIES[made_for]


def test_a_terminal_is_asked_for_what_is_not_given(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from tfprune.cli import main

    path = tmp_path / "mine.toml"
    # A script is never asked.
    done = CliRunner().invoke(main, ["pipeline", "new", str(path), "--made-for", "phone"])
    assert done.exit_code == 0, done.output
    assert load_pipeline(path).model.name == "vgg"
    path.unlink()
    monkeypatch.setattr("tfprune.cli.pipeline._asks", lambda: True)
    asked = CliRunner().invoke(
        main,
        ["pipeline", "new", str(path), "--model", "conv2"],
        input="digits\nclassification\nmicrocontroller\n",
    )
    assert asked.exit_code == 0, asked.output
    pipeline = load_pipeline(path)
    assert (pipeline.model.name, pipeline.formats) == ("conv2", DELIVERIES["microcontroller"])


@pytest.mark.parametrize("options", [{"task": "regresion"}, {"made_for": "fone"}])
def test_an_unknown_task_or_device_is_one_line(options, tmp_path):
    with pytest.raises(UsageError, match="did you mean"):
        new_pipeline(tmp_path / "mine.toml", **options)


@pytest.mark.parametrize(
    "value",
    ["plain", 'quoted " and \\ and \n', "\x7f", 1, -2.5, 1e-9, True, [1, 2], [["a"], []], {}],
)
def test_values_come_back_from_toml(value):
    document = {"top": value, "table": {"a-key": value, "dotted.key": {"inner": value}}}
    assert tomllib.loads(to_toml(document)) == document
