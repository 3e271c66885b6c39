"""`tfprune measure`: one table or one document, and one line for a file it cannot run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import tfprune
from tfprune import data
from tfprune.cli import main
from tfprune.formats import load
from tfprune.measure import evaluate

CLASSES = 10


def _measure(*arguments: str | Path) -> Result:
    command = ["measure", *map(str, arguments), "--data", "digits", "--rounds", "2"]
    return CliRunner().invoke(main, command)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1))
    artifacts = tfprune.export(
        keras.Model(inputs, x),
        tmp_path_factory.mktemp("files"),
        ["keras", "tflite", "tflite-int8", "c-array"],
        representative_data=images,
    )
    return {each.format: each.path for each in artifacts}


@pytest.mark.slow
def test_the_document_has_what_was_asked_for(files: dict[str, Path]) -> None:
    paths = [files["keras"], files["tflite-int8"]]
    result = _measure(*paths, "--json", "--per-class", "--layers", "--baseline", files["keras"])
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)
    assert first["memory_bytes"] > 0 < second["memory_bytes"]
    assert [first["artifact"], second["artifact"]] == [str(path) for path in paths]
    macs = 36 * 9 * 4 + 144 * CLASSES
    assert first["macs"] == second["macs"] == macs
    assert [(row["layer"], row["macs"]) for row in first["layers"]] == [
        ("conv", 36 * 9 * 4),
        ("logits", 144 * CLASSES),
        ("total", macs),
    ]
    assert "layers" not in second
    assert len(first["per_class"]) == len(second["per_class"]) == CLASSES
    assert first["class_images"] == second["class_images"]
    assert (first["accuracy_points"], first["bytes_ratio"]) == (0, 1)
    assert second["bytes_ratio"] == paths[1].stat().st_size / paths[0].stat().st_size
    # Off a terminal each evaluation is one line.
    lines = [line for line in result.stderr.splitlines() if " images in " in line]
    assert [line.partition(":")[0] for line in lines] == [str(path) for path in paths]


def test_few_files_stand_side_by_side(files: dict[str, Path]) -> None:
    paths = [files["tflite"], files["c-array"]]
    result = _measure(*paths, "--threads", "2", "--per-class")
    assert result.exit_code == 0, result.output
    header, *lines = result.stdout.partition("\n\n")[0].splitlines()
    assert header.split() == ["figure", *map(str, paths)]
    told = {re.split(r"  +", line)[0]: re.split(r"  +", line)[1:] for line in lines}
    for title in ("latency", "p10", "p90", "memory", "entropy floor"):
        assert any(title in name for name in told)
    assert not any("left" in name for name in told)
    assert told["format"] == ["tflite", "c-array"]
    assert (told["threads"], told["delegate"]) == (["2", "2"], ["XNNPACK", "XNNPACK"])
    classes = result.stdout.partition("accuracy of each class:\n\n")[2].splitlines()
    assert classes[0].split() == ["class", "examples", *map(str, paths)]
    assert len(classes) == 1 + CLASSES


def test_each_of_many_files_has_a_line(files: dict[str, Path], tmp_path: Path) -> None:
    copies = [shutil.copy(files["tflite"], tmp_path / f"{number}.tflite") for number in range(4)]
    result = _measure(*copies, "--rounds", "1")
    header, *lines = result.stdout.splitlines()
    assert header.split()[:2] == ["artifact", "format"] and "entropy floor" in header
    assert [line.split()[:2] for line in lines] == [[str(path), "tflite"] for path in copies]


def test_plain_json_has_no_lists(files: dict[str, Path]) -> None:
    (row,) = json.loads(_measure(files["tflite"], "--json").stdout)
    assert not any(isinstance(value, list | dict) for value in row.values())
    assert "bytes_ratio" not in row


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("cut.tflite", lambda content: content[: len(content) // 2]),
        ("empty.tflite", lambda content: b""),
        ("noise.tflite", lambda content: b"\x1c\0\0\0TFL3" + content[::-1]),
        ("renamed.keras", lambda content: content),
        ("renamed.tar.gz", lambda content: content),
        ("text.cc", lambda content: b"int main() {}"),
        ("bytes.cc", lambda content: b"alignas(16) const unsigned char a[] = {0x999};"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_one_line(
    files: dict[str, Path],
    name: str,
    damage: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name.endswith((".keras", ".tar.gz")):
        # What a process of its own would say after it has loaded TensorFlow, which takes long.
        monkeypatch.setattr("tfprune.measure.comparison.first_runs", lambda *_, **__: [])
    path = tmp_path / name
    path.write_bytes(damage(files["tflite"].read_bytes()))  # type: ignore[operator]
    result = _measure(files["tflite"], path)
    assert result.exit_code == (2 if name == "renamed.keras" else 1)
    assert result.stdout == ""
    lines = [each for each in result.stderr.splitlines() if not each.startswith("INFO")]
    note, line = lines
    assert note.startswith("digits")
    assert line.startswith(f"Error: {path} ")


@pytest.mark.slow
def test_photos_of_any_size_get_the_size_that_the_file_takes(tmp_path: Path) -> None:
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    for number in range(60):
        place = folder / ("left", "right")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8 + number % 3, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    (folder / "left" / "notes.txt").touch()
    layers = [keras.Input((6, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    (artifact,) = tfprune.export(keras.Sequential(layers), tmp_path, ["tflite"])
    command = ["measure", str(artifact.path), "--data", str(folder), "--rounds", "1"]
    result = CliRunner().invoke(main, [*command, "--per-class"])
    assert [line.split()[0] for line in result.stdout.splitlines()[-2:]] == ["left", "right"]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    dataset = data.load(str(folder), image_size=(6, 5))
    assert row["accuracy"] == evaluate(load(artifact.path), dataset.test).value
    note = result.stderr.splitlines()[0]
    assert "resized to 6x5" in note
    assert "1 files .txt" in note


def test_a_file_with_too_few_classes_is_one_line(tmp_path: Path) -> None:
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    (artifact,) = tfprune.export(model, tmp_path, ["tflite"])
    result = _measure(artifact.path)
    assert result.exit_code == 2
    assert (
        "has labels from 0 to 9, and model.tflite has 3 classes" in result.stderr.splitlines()[-1]
    )


def test_layers_are_those_of_keras_files(files: dict[str, Path], tmp_path: Path) -> None:
    result = _measure(files["tflite"], "--layers")
    assert result.exit_code == 2
    assert "--layers shows the layers of .keras and .h5 files: give one" in result.stderr
    unknown = shutil.copy(files["tflite"], tmp_path / "model.bin")
    result = _measure(unknown)
    assert result.exit_code == 2
    assert f"{unknown} is not an artifact" in result.stderr


def test_devices_need_no_data(files: dict[str, Path]) -> None:
    command = ["measure", str(files["tflite"]), "--device", "cpu", "--device-option", "rounds=2"]
    (entry,) = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    (told,) = entry["devices"]
    assert (told["device"], told["estimated"], told["settings"]["rounds"]) == ("cpu", False, "2")
    assert told["figures"]["device_ms"] > 0
    table = CliRunner().invoke(main, command).stdout.splitlines()
    assert table[0].split() == ["artifact", "device", "time", "memory"]
    command = ["measure", str(files["tflite"]), "--device", "command", "--layers"]
    bench = ["--device-option", f"command={sys.executable} -c 'print(3)' {{file}}"]
    said = CliRunner().invoke(main, [*command, *bench]).stdout
    assert f"{files['tflite']} on command: this device tells nothing of single layers" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --data to measure accuracy, or --device, or both"),
        (["--device", "cpux"], "device 'cpux' is unknown: did you mean 'cpu'?"),
        (
            ["--device", "cpu", "--device-option", "threads=1", "--device-option", "threads=2"],
            "Invalid value for '--device-option': threads is given twice",
        ),
        (
            ["--device", "cpu", "--device-option", "threads=many"],
            "device cpu: threads = 'many': Input should be a valid integer, unable to parse string "
            "as an integer",
        ),
        # What only the accuracy has a use for would be left out without a word.
        (["--device", "cpu", "--per-class"], "--per-class is for data: give --data"),
        (["--device", "cpu", "--rounds", "9"], "--rounds is for data: give --data"),
        (["--device", "cpu", "--baseline", "a.tflite"], "--baseline is for data: give --data"),
        (["--device-option", "a=1"], "--device-option is for a device: give --device"),
        (
            ["--device", "cpu", "--device-option", "thread=1"],
            "--device-option thread is unknown to cpu: did you mean 'threads'?",
        ),
    ],
)
def test_a_wrong_device_is_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["measure", "net.tflite", *arguments])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: {said}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["net.keras"], "node data are for .tflite files, and none is given: give one"),
        (
            ["a/net.tflite", "b/net.tflite"],
            "two files are called net.tflite, and their node data would be too: give them one at a "
            "time, with a folder for each",
        ),
        (
            ["net.tflite", "--baseline", "net.keras"],
            "net.keras is not a .tflite file: node data are for those only",
        ),
    ],
)
def test_node_data_that_cannot_be_written_are_refused_before_work(
    arguments: list[str], said: str
) -> None:
    command = ["measure", *arguments, "--device", "cpu", "--node-data", "nodes"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: {said}"


@pytest.mark.slow
def test_node_data_are_written_for_the_files_that_have_some(
    files: dict[str, Path], tmp_path: Path
) -> None:
    names = [files["keras"], files["tflite"], "--node-data", tmp_path / "nodes"]
    command = ["measure", *names, "--device", "cpu", "--device-option", "rounds=2"]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "nodes").iterdir()] == ["model.sparsity.json"]


@pytest.mark.slow
def test_layers_that_int8_hurts_are_told(files: dict[str, Path]) -> None:
    command = ["measure", str(files["keras"]), "--per-layer", "--data", "digits"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    head = next(line for line in result.stdout.splitlines() if line.startswith("layer"))
    assert "accuracy alone in int8" in head
    layers = {"conv", "flatten", "logits"}
    assert {line.split()[0] for line in result.stdout.splitlines()[-3:]} == layers
    found = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert found["figure"] == "accuracy"
    assert {row["layer"] for row in found["layers"]} == layers
    assert found["int8_error"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.keras", "--per-layer"], "--per-layer needs labelled examples: give --data"),
        (["a.tflite", "--per-layer", "--data", "digits"], "--per-layer looks into one .keras"),
        (
            ["a.keras", "b.keras", "--per-layer", "--data", "digits"],
            "--per-layer looks into one .keras",
        ),
        (
            ["a.keras", "--per-layer", "--layers", "--data", "digits"],
            "--layers has no meaning with --per-layer",
        ),
        (
            ["a.keras", "--per-layer", "--device", "cpu", "--data", "digits"],
            "--device has no meaning with --per-layer",
        ),
    ],
)
def test_what_layers_are_not_told_of_is_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["measure", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_an_export_writes_beside_artifacts_is_skipped(files: dict[str, Path]) -> None:
    folder = files["tflite"].parent
    beside = [folder / "artifacts.json", *folder.glob("*.h")]
    assert len(beside) == 2
    bench = ["--device", "cpu", "--device-option", "rounds=2", "--json"]
    command = ["measure", *map(str, [files["tflite"], *beside]), *bench]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert [each["artifact"] for each in json.loads(result.stdout)] == [str(files["tflite"])]
    for path in beside:
        assert f"skipped: {path} only tells of artifacts" in result.stderr
    alone = CliRunner().invoke(main, ["measure", str(beside[0]), "--device", "cpu"])
    assert alone.exit_code == 2 and "only tells of artifacts: give the artifacts" in alone.stderr
