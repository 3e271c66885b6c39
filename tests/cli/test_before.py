"""What cannot be is said before work begins, in one line, and what was trained is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.tables import slow
from tfprune import artifacts, data, training
from tfprune.cli import main
from tfprune.errors import TfpruneError

layers = keras.layers
TRAIN = ["--data", "digits", "--epochs", "1", "--batch-size", "512"]
HERE = Path(__file__).parent


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def said(result: Result, code: int) -> str:
    """The one line of a command that failed, whoever would read it."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert "unexpected" not in line
    return line.removeprefix("Error: ")


def image(*shape: int | None) -> keras.KerasTensor:
    return keras.Input(shape or (8, 8, 1))


def net(inputs: keras.KerasTensor, classes: int = 10) -> keras.Model:
    return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(inputs)), name="net")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model that trains on digits."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    inputs = image()
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs))
    keras.Model(inputs, layers.Dense(10, name="head")(x)).save(folder / "good.keras")
    return folder


@pytest.fixture
def untrained(monkeypatch):
    """Fails where an epoch begins."""

    def begins(*_, **__):
        raise AssertionError("it trains")

    monkeypatch.setattr(keras.Model, "fit", begins)


# Places


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.keras").mkdir()
    return tmp_path


COMMANDS: dict[str, tuple[list[str], str]] = {
    "train": (["train", "GOOD", *TRAIN], "-o"),
    "prune": (["prune", "GOOD", *TRAIN], "-o"),
    "cluster": (["cluster", "GOOD", *TRAIN], "-o"),
    "prune-once": (["prune-once", "GOOD"], "-o"),
    "quantize-weights": (["quantize-weights", "GOOD"], "-o"),
    "rewrite": (["rewrite", "GOOD"], "-o"),
    "equalize": (["equalize", "GOOD"], "-o"),
    "correct-biases": (["correct-biases", "GOOD", "--data", "digits"], "-o"),
    "quantize-aware": (["quantize-aware", "GOOD", *TRAIN], "-o"),
    "learn": (["learn", "GOOD", "--macs", "0.5", *TRAIN], "-o"),
    "slim": (["slim", "GOOD", "--latency", "0.5"], "-o"),
    "inspect": (["inspect", "GOOD", "--sensitivity", "--data", "digits"], "--plot"),
}
FOLDERS: dict[str, tuple[list[str], str]] = {
    "export": (["export", "GOOD"], "-o"),
    "lottery": (["lottery", "vgg", "--data", "digits"], "-o"),
    "run": (["run", str(HERE.parents[1] / "pipelines" / "digits.toml")], "--out"),
}


def loads(*_, **__):
    raise AssertionError("work has begun")


@pytest.mark.reliability("places where results cannot be written", "refused")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("place", "message", "code"),
    [
        ("file/o{}", "file/o{} cannot be written (Not a directory): give a place", 1),
        ("folder{}", "is a directory: give the name of a file", 2),
        ("o.bmp", "o.bmp does not end in ", 2),
        ("x" * 300 + "{}", "cannot be written (File name too long)", 1),
        ("o\udcff{}", "is not a name in UTF-8", 2),
    ],
)
def test_a_place_for_a_file_is_tried_first(
    files, places, monkeypatch, command, place, message, code
):
    monkeypatch.setattr("tfprune.pipeline.execution.load_model", loads)
    arguments, option = COMMANDS[command]
    suffix = ".keras" if option == "-o" else ".svg"
    (places / "folder.svg").mkdir()
    words = [str(files / "good.keras") if each == "GOOD" else each for each in arguments]
    line = said(run(*words, option, place.format(suffix)), code)
    assert message.format(suffix) in line
    assert sorted(each.name for each in places.iterdir()) == ["file", "folder.keras", "folder.svg"]


@pytest.mark.reliability("places where results cannot be written", "refused")
@pytest.mark.parametrize("command", [*COMMANDS, *FOLDERS])
def test_a_full_disk_is_noticed_first(files, places, monkeypatch, command):
    monkeypatch.setattr("tfprune.pipeline.execution.load_model", loads)
    monkeypatch.setattr("tfprune.pipeline.runner.run", loads)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    arguments, option = (COMMANDS | FOLDERS)[command]
    words = [str(files / "good.keras") if each == "GOOD" else each for each in arguments]
    out = "out" if command in FOLDERS else "o.keras" if option == "-o" else "o.svg"
    assert said(run(*words, option, out), 1) == (
        f"{out} cannot be written (No space left on device): give a place you can write to"
    )


@pytest.mark.reliability("places where results cannot be written", "refused")
@pytest.mark.parametrize("command", FOLDERS)
def test_a_place_for_a_folder_is_tried_first(files, places, monkeypatch, command):
    monkeypatch.setattr("tfprune.pipeline.execution.load_model", loads)
    monkeypatch.setattr("tfprune.pipeline.runner.run", loads)
    arguments, option = FOLDERS[command]
    words = [str(files / "good.keras") if each == "GOOD" else each for each in arguments]
    assert "file/inner cannot be written (Not a dir" in said(run(*words, option, "file/inner"), 1)


# Models


def two_outputs() -> keras.Model:
    inputs = image()
    x = layers.Flatten()(inputs)
    return keras.Model(inputs, [layers.Dense(10)(x), layers.Dense(1)(x)])


def two_inputs() -> keras.Model:
    ends = image(), image()
    return keras.Model(ends, layers.Dense(10)(layers.Flatten()(layers.Add()(ends))))


def frozen() -> keras.Model:
    model = net(image())
    model.trainable = False
    return model


def identity() -> keras.Model:
    inputs = image()
    return keras.Model(inputs, layers.Identity()(inputs))


def quantized() -> keras.Model:
    inputs = image()
    x = layers.Flatten()(inputs)
    layer = layers.Dense(10)
    model = keras.Model(inputs, layer(x))
    layer.quantize("int8")
    return model


def not_a_number() -> keras.Model:
    model = net(image())
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    return model


UNFIT: dict[str, tuple[Callable[[], keras.Model], str, int]] = {
    "size": (lambda: net(image(16, 16, 1)), "takes (None, 16, 16, 1), and digits has images of", 2),
    "channels": (lambda: net(image(8, 8, 3)), "takes (None, 8, 8, 3), and digits has images", 2),
    "rank": (lambda: net(image(64)), "takes (None, 64), and digits has images of", 2),
    "classes": (lambda: net(image(), 5), "gives 5 outputs, and digits has 10 classes", 2),
    "map": (
        lambda: keras.Sequential([image(), layers.Conv2D(10, 1)]),
        'which may be a segmentation or a regression: give a task, kind = "segmentation" or '
        '"regression"',
        2,
    ),
    "outputs": (two_outputs, "the number of targets is 1: give one array for each of", 2),
    "inputs": (
        two_inputs,
        "does not fit digits: the number of inputs is 1: give one array for each of",
        2,
    ),
    "unbuilt": (
        lambda: keras.Sequential([layers.Dense(10)]),
        "give a functional model, or a Sequential one",
        2,
    ),
    "identity": (identity, "gives outputs of shape (8, 8, 1) an example", 2),
    "batch": (
        lambda: net(keras.Input(batch_shape=(32, 8, 8, 1))),
        "takes only batches of 32",
        2,
    ),
    "frozen": (frozen, "has no trainable weights", 2),
    "quantized": (quantized, "is quantized, and integers cannot be trained", 2),
    "nan": (not_a_number, "gives NaN or infinite outputs", 1),
}
# These stand in the way of training alone.
TEACHES = {"frozen", "quantized", "nan"}
# Others are refused at the same place.
ALIKE = {"channels", "rank", "map", "inputs", "unbuilt", "batch"}


@pytest.mark.reliability("models that cannot learn the data, or teach", "refused")
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize("kind", [slow(kind) if kind in ALIKE else kind for kind in UNFIT])
def test_a_model_that_cannot_learn_the_data_is_refused_first(files, untrained, tmp_path, kind):
    make, message, code = UNFIT[kind]
    make().save(tmp_path / "m.keras")
    for more in (["train"], ["prune", "--sparsity", "0.5"]):
        out = tmp_path / "o.keras"
        line = said(run(more[0], tmp_path / "m.keras", *more[1:], *TRAIN, "-o", out), code)
        assert message in line
        assert not out.exists()
    if kind not in TEACHES:
        teach = ["--distill", tmp_path / "m.keras", "-o", tmp_path / "o.keras"]
        line = said(run("train", files / "good.keras", *TRAIN, *teach), 2)
        # Outputs of another shape than the student's are told first.
        assert line.startswith(("the teacher does not fit: ", "teacher "))
        assert message in line or "give a teacher with equal outputs" in line


def test_labels_beyond_the_outputs_are_refused(digits):
    import dataclasses

    labels = np.where(digits.train.labels == 9, 11, digits.train.labels)
    wrong = dataclasses.replace(digits, train=data.Arrays(digits.train.inputs, labels))
    with pytest.raises(TfpruneError, match="has labels from 0 to 11, and model 'net' has 10"):
        training.check(net(image()), wrong, 32)


def test_a_model_of_any_size_trains_to_its_end(tmp_path):
    inputs = image(None, None, 1)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    keras.Model(inputs, layers.Dense(10)(x)).save(tmp_path / "open.keras")
    result = run("train", tmp_path / "open.keras", *TRAIN, "-o", tmp_path / "o.keras")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "o.keras").is_file()
    # Where the count is the point, it is said.
    assert "is open, so its multiply-acc" in said(run("inspect", tmp_path / "open.keras"), 2)


# Options


@pytest.mark.reliability("options of a command", "refused")
@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("vgg", ["blocks=3"], "blocks is 3 and must be a list of whole numbers, such as [2, 2]"),
        ("vgg", ["blocks='22'"], "blocks is '22' and must be a list of whole numbers"),
        ("vgg", ["blocks=[[1]]"], "a number in blocks is [1] and must be a whole number"),
        ("vgg", ["blocks=[9999]"], "a number in blocks is beyond 64, the most there is"),
        ("vgg", ["width=0"], "width is 0 and must be a whole number of 1 or more"),
        ("vgg", ["width='a'"], "width is 'a' and must be a whole number of 1 or more"),
        ("vgg", ["width=true"], "width is True and must be a whole number of 1 or more"),
        ("vgg", ["width=1" + "0" * 20], "width is beyond 1,024, the most there is"),
        ("vgg", ["widht=3"], "unknown option 'widht' of vgg: did you mean 'width'?"),
        ("vgg", ["width=3", "width=4"], "Invalid value for '--option': width is given twice"),
        ("vgg", ["x=" + "[" * 5000], "is not of the form width=16"),
        ("vgg", ["width"], "'width' is not of the form width=16"),
        ("MobileNetV2", ["alpha=nan"], "alpha is nan and must be a number above 0"),
        ("MobileNetV2", ["weights=3"], "weights of MobileNetV2 are"),
        ("GOOD", ["width=3"], "is a file, which has no option width"),
        ("模型", [], "unknown model '模型': choose one of "),
        ("", [], "MODEL is empty"),
    ],
)
@pytest.mark.parametrize("command", [["train", *TRAIN, "-o", "o.keras"], ["lottery", *TRAIN]])
def test_an_option_of_a_net_is_checked(files, places, untrained, command, model, options, message):
    given = [word for each in options for word in ("--option", each)]
    name = str(files / "good.keras") if model == "GOOD" else model
    assert message in said(run(*command, *given, "--", name), 2)


@pytest.mark.reliability("options of a command", "refused")
@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        ("train", "--epochs", ["0", "-1", "1e9", "99999999999"]),
        ("train", "--batch-size", ["0", "-3"]),
        ("train", "--learning-rate", ["0", "-1", "nan", "inf", "1e300"]),
        ("train", "--weight-decay", ["-1", "nan"]),
        ("train", "--seed", ["-1", str(2**32)]),
        ("train", "--temperature", ["0", "nan"]),
        ("train", "--teacher-weight", ["-0.1", "1.1", "nan"]),
        ("prune", "--sparsity", ["1", "-0.1", "nan"]),
        ("prune", "--begin", ["2", "nan"]),
        ("prune", "--frequency", ["0"]),
        ("learn", "--macs", ["0", "1.1", "nan"]),
        ("learn", "--strength", ["-1", "nan", "inf"]),
        ("slim", "--macs", ["0", "nan"]),
        ("slim", "--milliseconds", ["0", "inf"]),
        ("slim", "--bytes", ["0"]),
        ("slim", "--threads", ["0", "100000"]),
        ("inspect", "--images", ["0"]),
        ("lottery", "--rounds", ["0", "101"]),
        ("lottery", "--share", ["0", "1", "nan"]),
        ("lottery", "--seeds", ["a"]),
        ("lottery", "--name", ["模型", "a/b", ""]),
        ("measure", "--threads", ["0", "99999999999"]),
    ],
)
def test_a_number_out_of_range_is_said_by_its_option(files, untrained, command, option, values):
    for value in values:
        line = said(run(command, "x.keras", f"{option}={value}"), 2)
        assert line.startswith(f"Invalid value for '{option}': ")


# What was trained


@pytest.mark.parametrize("command", [slow("train"), "prune", slow("learn")])
def test_what_was_trained_is_saved_elsewhere_when_its_place_fails(
    files, places, monkeypatch, command
):
    calls = []
    export = artifacts.export

    def fails(*arguments, **options):
        calls.append(options.get("name"))
        # The first is the rehearsal.
        if len(calls) > 1:
            raise TfpruneError("out cannot be written (No space left on device): give a place")
        return export(*arguments, **options)

    monkeypatch.setattr(artifacts, "export", fails)
    arguments, option = COMMANDS[command]
    words = [str(files / "good.keras") if each == "GOOD" else each for each in arguments]
    line = said(run(*words, option, "o.keras"), 1)
    rescued = places / "o-rescued.keras"
    assert line == (
        "out cannot be written (No space left on device): give a place; what was trained is in "
        f"{rescued}"
    )
    before = keras.saving.load_model(files / "good.keras").get_weights()
    after = keras.saving.load_model(rescued).get_weights()
    assert any((one != other).any() for one, other in zip(before, after, strict=True))


def test_where_a_whole_model_cannot_be_saved_its_weights_are(files, places, monkeypatch):
    calls = []
    export = artifacts.export

    def fails(*arguments, **options):
        calls.append(1)
        if len(calls) > 1:
            monkeypatch.setattr(keras.Model, "save", no_config)
            raise RuntimeError("two\nlines")
        return export(*arguments, **options)

    def no_config(self, path, *_, **__):
        raise NotImplementedError("no config")

    monkeypatch.setattr(artifacts, "export", fails)
    words = ["train", files / "good.keras", *TRAIN, "-o", "o.keras"]
    trained = []
    fit = training.fit
    monkeypatch.setattr(
        training, "fit", lambda model, *a, **b: (trained.append(model), fit(model, *a, **b))[1]
    )
    line = said(run(*words), 1)
    assert line.endswith(f"; what was trained is in {places / 'o-rescued.weights.h5'}")
    model = keras.saving.load_model(files / "good.keras")
    model.load_weights(places / "o-rescued.weights.h5")
    for one, other in zip(model.get_weights(), trained[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# Names


@pytest.mark.reliability("names of files", "right")
@pytest.mark.parametrize("name", ["模型 a.keras", 'it\'s "q".keras', "b\udcff.keras"])
def test_any_name_of_a_file_will_do(files, places, name):
    (places / name).write_bytes((files / "good.keras").read_bytes())
    for words in (["inspect"], ["inspect", "--json"], ["slim", "--macs", "0.5", "--plan-only"]):
        result = run(*words, places / name)
        assert result.exit_code == 0, result.output
    out = places / "结果 '\".keras"
    result = run("slim", places / name, "--macs", "0.5", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(out))


# Custom layers


@pytest.mark.slow
def test_import_brings_layers_to_every_command(places, monkeypatch):
    (places / "my_own_layers.py").write_text(
        "import keras\n\nclass Tripled(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 3 * x\n"
    )
    made = (
        "import keras; from my_own_layers import Tripled; L = keras.layers;"
        "keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.Flatten(), Tripled(), "
        "L.Dense(10)]).save('m.keras')"
    )
    subprocess.run(
        [sys.executable, "-c", made], check=True, env={**os.environ, "PYTHONPATH": str(places)}
    )
    line = said(run("inspect", "m.keras"), 2)
    assert line.startswith("m.keras needs 'Tripled' for layer 'tripled'")
    assert line.endswith("--import my_own_layers")
    own = ["--import", "my_own_layers.py"]
    for words in (
        ["inspect", "m.keras"],
        ["slim", "m.keras", "--macs", "1", "-o", "slim.keras"],
        ["train", "m.keras", *TRAIN, "-o", "trained.keras"],
        ["export", "trained.keras", "-f", "keras", "-o", "out"],
        ["verify", "out"],
    ):
        result = run(*words, *own)
        assert result.exit_code == 0, result.output
    assert "TFPRUNE_IMPORT" not in os.environ


# Output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", [["pipeline", "schema"], ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line(words, buffered):
    code = "import sys; from tfprune.cli import main; main()"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
        )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: what the command prints cannot be written (No space left on device): give its "
        "output a place with room\n"
    )


def test_a_closed_pipe_is_quiet():
    code = "import sys; from tfprune.cli import main; main()"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code, "pipeline", "schema"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_warning_is_one_line_without_a_place_in_the_code(files, monkeypatch):
    def warns(*_, **__):
        warnings.warn("inspect: two\nlines", stacklevel=1)
        raise TfpruneError("done")

    monkeypatch.setattr("tfprune.pipeline.execution.load_model", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        result = run("inspect", files / "good.keras")
        assert warnings.showwarning is shown
    assert result.stderr == "Warning: inspect: two lines\nError: done\n"
