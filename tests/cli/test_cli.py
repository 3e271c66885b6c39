"""Commands parse, call the library and print; errors are one line with the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result

import tfprune
from tfprune.cli import main
from tfprune.cli.main import _COMMANDS

COMMANDS = list(_COMMANDS)
TRAIN = ["--data", "digits", "--epochs", "1", "--batch-size", "512"]


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "vgg.keras"
    options = ["--option", "width=4", "--option", "blocks=[1, 1]"]
    result = _run("train", "vgg", *TRAIN, *options, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{path}: validation accuracy ")
    return path


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import sys; from tfprune.cli import main; main(['--help'], standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'pandas'} & set(sys.modules)"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"  {command} " in done.stdout
    # Generous beside the half second that is promised: this machine may be busy.
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {command}")
    assert "\\b" not in result.output


# So few steps make one cut, which is said.
@pytest.mark.filterwarnings("ignore:PruneWeights. the schedule begins and ends:UserWarning")
def test_prune_makes_a_file_sparse(trained, tmp_path):
    out = tmp_path / "sparse.keras"
    # Steps enough for a ramp.
    schedule = ["--batch-size", "128", "--sparsity", "0.5", "--end", "0.5", "--frequency", "1"]
    result = _run("prune", trained, *TRAIN, *schedule, "--json", "-o", out)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["output"] == str(out)
    assert document["history"]["sparsity"] == pytest.approx([0.5], abs=0.02)
    kernel = keras.saving.load_model(out).get_layer("logits").kernel
    assert float(keras.ops.mean(keras.ops.equal(kernel, 0))) == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_cluster_leaves_few_values(trained, tmp_path):
    out = tmp_path / "clustered.keras"
    result = _run("cluster", trained, *TRAIN, "--values", "4", "--json", "-o", out)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["epochs"] == 1
    kernel = keras.saving.load_model(out).get_layer("logits").kernel
    assert len(set(keras.ops.convert_to_numpy(kernel).ravel().tolist())) == 4


@pytest.mark.slow
def test_learn_then_slim_then_train_from_a_teacher(trained, tmp_path):
    learnt, slim, tuned = (tmp_path / f"{name}.keras" for name in ("learnt", "slim", "tuned"))
    course = ["--macs", "0.6", "--frequency", "1", "--end", "0.7"]
    result = _run("learn", trained, *TRAIN, *course, "--json", "-o", learnt)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["history"]["sparsity"][-1] > 0
    result = _run("slim", learnt, "--dead", "-o", slim)
    assert result.exit_code == 0, result.output
    models = [keras.saving.load_model(path) for path in (trained, slim)]
    assert tfprune.macs(models[1]) <= 0.6 * tfprune.macs(models[0])
    taught = ["--distill", trained, "--teacher-weight", "0.7", "--json"]
    losses = []
    for more in ([], taught):
        result = _run("train", slim, *TRAIN, "--json", *more, "-o", tuned)
        assert result.exit_code == 0, result.output
        losses.append(json.loads(result.stdout)["history"]["loss"])
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_slim_then_train_on(trained, tmp_path):
    slim, tuned = tmp_path / "slim.keras", tmp_path / "tuned.keras"
    result = _run("slim", trained, "--filters", "0.5", "--data", "digits", "-o", slim)
    assert result.exit_code == 0, result.output
    assert " of the MACs, " in result.stdout
    assert keras.saving.load_model(slim).get_layer("block1_conv1").filters == 2
    assert _run("train", slim, *TRAIN, "-o", tuned).exit_code == 0
    assert keras.saving.load_model(tuned).get_layer("block1_conv1").filters == 2


def test_slim_as_json_is_one_document(trained, tmp_path):
    out = tmp_path / "s.keras"
    result = _run("slim", trained, "--filters", "0.5", "--json", "-o", out)
    document = json.loads(result.stdout)
    assert {path: len(gone) for path, gone in document["removed"].items()} == {
        "block1_conv1": 2,
        "block2_conv1": 4,
    }
    assert document["macs"][1] < document["macs"][0]


def test_export_and_measure(trained, tmp_path):
    out = tmp_path / "out"
    result = _run(
        "export", trained, "-f", "keras", "-f", "tflite-int8", "--data", "digits", "-o", out
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "model.keras",
        "model.int8.tflite",
        "artifacts.json",
    }
    files = [out / "model.keras", out / "model.int8.tflite"]
    result = _run("measure", *files, "--data", "digits", "--rounds", "3", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["artifact"] for row in rows] == [str(path) for path in files]
    assert all(0 <= row["accuracy"] <= 1 and row["latency_ms"] > 0 for row in rows)
    assert rows[0]["bytes"] == files[0].stat().st_size


def test_inspect_shows_groups_frozen_layers_and_sparsity(trained):
    result = _run("inspect", trained)
    assert result.exit_code == 0, result.output
    assert "frozen logits: it is an output of the model" in result.stdout
    document = json.loads(_run("inspect", trained, "--json").stdout)
    assert [group["layers"] for group in document["groups"]] == [
        "block1_conv1",
        "block2_conv1",
        "logits",
    ]
    assert [group["removable"] for group in document["groups"]] == [4, 8, 0]


@pytest.mark.slow
def test_inspect_shows_where_cutting_hurts(trained, tmp_path):
    plot = tmp_path / "s.png"
    arguments = ["--sensitivity", "--data", "digits", "--images", "50"]
    result = _run("inspect", trained, *arguments, "--plot", plot)
    assert result.exit_code == 0, result.output
    table = result.stdout.partition("accuracy when one group alone is cut, of ")[2].splitlines()
    assert table[2].split() == [
        "layers",
        "channels",
        *("75%", "kept", "50%", "kept", "25%", "kept"),
    ]
    assert [line.split()[:2] for line in table[3:]] == [
        ["block1_conv1", "4"],
        ["block2_conv1", "8"],
    ]
    assert plot.stat().st_size > 1000
    rows = json.loads(_run("inspect", trained, *arguments, "--json").stdout)["sensitivity"]
    assert [row["keep"] for row in rows] == [1.0, 0.75, 0.5, 0.25, 0.75, 0.5, 0.25]


def test_sensitivity_needs_data(trained):
    result = _run("inspect", trained, "--sensitivity")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: --sensitivity needs images to measure with: give --data NAME"
    )


def test_compare_in_every_format(tiny_run):
    table = _run("compare", tiny_run)
    assert table.exit_code == 0, table.output
    assert table.stdout.startswith("variant  artifact ")
    assert "block1_conv1" in table.stdout
    assert _run("compare", tiny_run, "--format", "markdown").stdout.startswith("| variant")
    assert len(json.loads(_run("compare", tiny_run, "--format", "json").stdout)) == 12
    header = _run("compare", tiny_run, "--format", "csv", "--layers").stdout.splitlines()[0]
    assert header == "run,variant,seed,layer,weight,size,zeros,sparsity"


class TestErrors:
    """One line that says what, where and what to do; 2 for usage, 1 for failure."""

    def _fails(self, code: int, *arguments: str | Path) -> str:
        result = _run(*arguments)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        line = result.stderr.strip().splitlines()[-1]
        assert line.startswith("Error: ")
        return line.removeprefix("Error: ")

    def test_unknown_key_in_a_pipeline(self, tmp_path):
        file = tmp_path / "p.toml"
        text = Path(__file__).parents[2].joinpath("pipelines", "digits.toml").read_text()
        file.write_text(text.replace("validation =", "validaton ="))
        assert self._fails(2, "run", file) == (
            f"{file}: data.validaton is unknown: did you mean 'validation'?"
        )

    def test_unknown_variant(self, tmp_path):
        pipeline = Path(__file__).parents[2] / "pipelines" / "digits.toml"
        said = self._fails(2, "run", pipeline, "--only", "dens", "--out", tmp_path)
        assert said == "the pipeline 'digits' has no variant 'dens': did you mean 'dense'?"
        assert not list(tmp_path.iterdir())

    def test_target_outside_its_range(self, trained, tmp_path):
        out = tmp_path / "x.keras"
        assert self._fails(2, "slim", trained, "--macs", "1.5", "-o", out) == (
            "Invalid value for '--macs': 1.5 is not a number above 0 and at most 1"
        )
        said = self._fails(2, "prune", trained, *TRAIN, "--sparsity", "1.5", "-o", out)
        assert said == "Invalid value for '--sparsity': 1.5 is not a number at least 0 and below 1"
        said = self._fails(2, "learn", trained, *TRAIN, "-o", out)
        assert said.startswith("tfprune learn: give a strength, or one of filters, macs, params")
        assert not out.exists()

    @pytest.mark.slow
    def test_damaged_keras_file(self, trained, tmp_path):
        damaged = tmp_path / "half.keras"
        damaged.write_bytes(trained.read_bytes()[:3000])
        out = tmp_path / "x.keras"
        for arguments in (
            ["slim", damaged, "--filters", "0.5", "-o", out],
            ["inspect", damaged],
            ["export", damaged, "-o", tmp_path / "out"],
            ["measure", damaged, "--data", "digits"],
            ["train", damaged, *TRAIN, "-o", out],
        ):
            assert str(damaged) in self._fails(1, *arguments)
        assert [path.name for path in tmp_path.iterdir()] == ["half.keras"]

    def test_missing_keras_file(self, tmp_path):
        missing = tmp_path / "none.keras"
        assert str(missing) in self._fails(1, "inspect", missing)

    def test_output_that_cannot_be_written(self, trained, tmp_path):
        (tmp_path / "file").touch()
        out = tmp_path / "file" / "x.keras"
        said = self._fails(1, "slim", trained, "--filters", "0.5", "-o", out)
        assert "cannot be written" in said

    def test_output_that_is_no_keras_file(self, trained, tmp_path):
        out = tmp_path / "x.h5"
        said = self._fails(2, "slim", trained, "--filters", "0.5", "-o", out)
        assert said.endswith("x.h5 does not end in .keras")

    def test_subclassed_model(self, tmp_path):
        @keras.saving.register_keras_serializable("tests")
        class Subclassed(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense = keras.layers.Dense(2)

            def call(self, x):
                return self.dense(x)

        model = Subclassed(name="mine")
        model(keras.ops.ones((1, 3)))
        path = tmp_path / "mine.keras"
        model.save(path)
        said = self._fails(2, "slim", path, "--filters", "0.5", "-o", tmp_path / "x.keras")
        assert said == (
            "model 'mine' is a subclassed Subclassed, which has no graph to follow: "
            "build it with the functional API or as a Sequential model"
        )

    def test_unknown_model_and_data(self, tmp_path):
        out = tmp_path / "x.keras"
        said = self._fails(2, "train", "vg", *TRAIN, "-o", out)
        assert said == "unknown model 'vg': did you mean 'vgg'?"
        said = self._fails(2, "train", "vgg", "--data", "digitz", "-o", out)
        assert "digitz" in said

    def test_what_nobody_foresaw_is_one_line_too(self, monkeypatch, trained):
        def breaks(*_, **__):
            raise RuntimeError("two\nlines")

        monkeypatch.setattr("tfprune.pipeline.execution.load_model", breaks)
        said = self._fails(1, "inspect", trained)
        assert said == (
            "unexpected RuntimeError: two lines (run `tfprune --debug ...` for the traceback)"
        )
        assert isinstance(_run("--debug", "inspect", trained).exception, RuntimeError)
