from __future__ import annotations

import json
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.archives import pack, unpack
from tfprune.artifacts import Artifact, export, read_manifest, write_manifest
from tfprune.errors import TfpruneError
from tfprune.formats.source import finished
from tfprune.quiet import quiet


@keras.saving.register_keras_serializable("tfprune")
class OurPenalty(keras.regularizers.Regularizer):
    def __call__(self, x: object) -> object:
        return keras.ops.sum(x)

    def get_config(self) -> dict[str, object]:
        return {}


@keras.saving.register_keras_serializable("tfprune")
class OurLayer(keras.layers.Layer):
    def call(self, x: object) -> object:
        return x


# The .keras file


def test_the_keras_file_carries_nothing_of_the_training(model: keras.Model, tmp_path: Path) -> None:
    trained = keras.models.clone_model(model)
    trained.compile("adam", "mse")
    trained.fit(np.zeros((2, 8, 8, 3)), np.zeros((2, 5)), verbose=0)
    trained.save(tmp_path / "trained.keras")
    (artifact,) = export(trained, tmp_path, ["keras"])
    with zipfile.ZipFile(artifact.path) as file:
        config = json.loads(file.read("config.json"))
    assert not config["compile_config"]
    assert not keras.saving.load_model(artifact.path).compiled
    # Adam keeps two numbers a weight.
    assert artifact.bytes_raw < 0.8 * (tmp_path / "trained.keras").stat().st_size


def test_our_regularizers_go_and_those_of_keras_stay() -> None:
    layer = keras.layers.Conv2D(2, 3, kernel_regularizer=OurPenalty(), bias_regularizer="l2")
    block = keras.Sequential([keras.Input((4, 4, 1)), layer])
    model = keras.Sequential([keras.Input((4, 4, 1)), block])
    assert "OurPenalty" in model.to_json()
    copy = finished(model)
    assert "tfprune" not in copy.to_json()
    inner = copy.layers[0].layers[0]
    assert inner.kernel_regularizer is None
    assert isinstance(inner.bias_regularizer, keras.regularizers.L2)
    np.testing.assert_array_equal(inner.kernel, layer.kernel)
    assert layer.kernel_regularizer is not None


def test_our_layers_are_not_delivered() -> None:
    model = keras.Sequential([keras.Input((4,)), OurLayer()])
    with pytest.raises(TfpruneError, match="carries tfprune's OurLayer: finish pruning"):
        finished(model)


def test_a_layer_that_is_not_registered_goes_where_no_class_is_needed(tmp_path: Path) -> None:
    class Private(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    model = keras.Sequential([keras.Input((4,)), Private(), keras.layers.Dense(2)])
    assert export(model, tmp_path, ["tflite"])[0].agreement == 1
    with pytest.raises(TfpruneError, match="Private") as error:
        export(model, tmp_path, ["keras"])
    assert "\n" not in str(error.value)


# Archives


def test_an_archive_depends_on_nothing_but_its_files(tmp_path: Path) -> None:
    archives = []
    for place, order in (("here", "abc"), ("there", "cba")):
        (tmp_path / place / "sub").mkdir(parents=True)
        for letter in order:
            path = tmp_path / place / "sub" / letter
            path.write_bytes(letter.encode() * 1000)
            path.chmod(0o600 if place == "here" else 0o644)
            os.utime(path, (ord(letter), len(archives)))
        archives.append(tmp_path / f"{place}.tar.gz")
        pack(tmp_path / place, archives[-1], "root")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    # gzip's header (RFC 1952): no flags, so no file name, and no time.
    assert archives[0].read_bytes()[3:8] == bytes(5)


def test_unpacking_gives_the_files_back(tmp_path: Path) -> None:
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "file").write_bytes(b"\0\1\2")
    pack(tmp_path / "in", tmp_path / "a.tar.gz", "root")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*"))
    assert found == [Path("root"), Path("root/empty"), Path("root/file")]
    assert (tmp_path / "out" / "root" / "file").read_bytes() == b"\0\1\2"
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "")}


# Silence


def test_quiet_silences_python_and_c_and_gives_both_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), quiet():
        print("from Python")
        os.write(1, b"from C\n")
        os.write(2, b"from C\n")
        warnings.warn("from the converter", stacklevel=1)
        _ = 1 / 0
    assert capfd.readouterr() == ("", "")
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


# The manifest


def some(directory: Path, name: str = "model.tflite") -> Artifact:
    return Artifact("tflite", directory / name, "ab" * 32, 20, 10, 1.0, 1e-7)


def test_a_manifest_reads_back_and_moves_with_its_folder(tmp_path: Path) -> None:
    (here := tmp_path / "here").mkdir()
    artifacts = [some(here), some(here, "sub/model.keras")]
    assert write_manifest(here, artifacts).name == "artifacts.json"
    assert read_manifest(here) == artifacts
    assert [path.name for path in here.iterdir()] == ["artifacts.json"]
    here.rename(tmp_path / "there")
    moved = read_manifest(tmp_path / "there")
    assert [a.path for a in moved] == [
        tmp_path / "there" / "model.tflite",
        tmp_path / "there" / "sub" / "model.keras",
    ]


def test_relative_and_absolute_directories_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(".", [some(tmp_path)])
    assert read_manifest(".") == [some(Path())]


def test_a_failed_write_keeps_the_old_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, [some(tmp_path)])
    with pytest.raises(TfpruneError, match="does not lie in"):
        write_manifest(tmp_path, [some(tmp_path.parent)])
    assert read_manifest(tmp_path) == [some(tmp_path)]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"artifacts": [{"path": "a"}]}', "\x00"])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "artifacts.json").write_text(content)
    with pytest.raises(
        TfpruneError, match=r"artifacts\.json is (no artifact list, or is )?damaged"
    ):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TfpruneError, match="No such file or directory"):
        read_manifest(tmp_path)
    with pytest.raises(TfpruneError, match="cannot be written"):
        (tmp_path / "file").touch()
        write_manifest(tmp_path / "file", [])
