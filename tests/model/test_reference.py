"""What names a model is known without Keras, and a result is named by what the model depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfprune import TfpruneError, UsageError, zoo
from tfprune.model.reference import find_model


def test_it_needs_no_keras() -> None:
    code = (
        "import sys; from tfprune.model.reference import find_model; find_model('vgg');"
        "assert not {'keras', 'tensorflow', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_case_does_not_matter_and_no_two_names_differ_by_it_alone() -> None:
    names = zoo.NAMES + zoo.APPLICATIONS
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert {find_model(each).name for each in (name, name.lower(), name.upper())} == {name}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net.keras", "file"),
        ("net.h5", "file"),
        ("dir/net", "file"),
        ("net.pt", "file"),
        ("there", "file"),
        ("folder", "file"),
        ("vgg", "zoo"),
        ("resnet50", "zoo"),
        ("net.py:build", "function"),
        ("x" * 5000 + ".keras", "file"),
        ("dir/" + "x" * 5000, "file"),
        (os.fsdecode(b"bad\xff.keras"), "file"),
    ],
)
def test_each_name_means_one_thing(tmp_path: Path, monkeypatch, name: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    # The folder of a data set or a run may be called like its net.
    for folder in ("folder", "vgg"):
        (tmp_path / folder).mkdir()
    found = find_model(name)
    kinds = {"file": found.path is not None, "function": found.function is not None}
    assert [each for each, holds in kinds.items() if holds] == [kind] * (kind != "zoo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", {}, "MODEL is empty"),
        ("mobilnetv2", {}, "unknown model 'mobilnetv2': did you mean 'MobileNetV2'"),
        ("net.keras", {"width": 3}, "net.keras is a file, which has no option width: leave it out"),
        ("VGG", {"widht": 3}, "unknown option 'widht' of vgg: did you mean 'width'"),
        ("vgg", {"classes": 0}, "classes is 0 and must be a whole number"),
        ("vgg", {"trainable": "head"}, "unknown option 'trainable' of vgg"),
        ("mobilenetv2", {"trainable": "base"}, "trainable is 'base' and must be one of all, head"),
        ("net.py:", {}, "is not of the form FILE.py:FUNCTION"),
    ],
)
def test_what_names_no_model_is_one_line(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_model(name, options)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("net.keras", "net.py:build"):
        with pytest.raises(TfpruneError, match="does not exist"):
            find_model(tmp_path / name).check_files()
    with pytest.raises(TfpruneError, match=r"no\.h5 does not exist"):
        find_model("vgg16", {"weights": str(tmp_path / "no.h5")}).check_files()


def test_a_function_is_known_by_its_content_its_name_and_its_options(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("def build(width=1): ...")
    first = find_model(f"{file}:build").identity()
    others = [find_model(f"{file}:other"), find_model(f"{file}:build", {"width": 1})]
    found = [first, *(each.identity() for each in others)]
    file.write_text("def build(width=2): ...")
    found.append(find_model(f"{file}:build").identity())
    assert len({repr(each) for each in found}) == 4
    (tmp_path / "copy.py").write_text(file.read_text())
    assert find_model(f"{tmp_path}/copy.py:build").identity() == found[-1]


def test_what_the_file_of_a_function_imports_beside_it_is_a_part_of_it(tmp_path: Path) -> None:
    file, beside = tmp_path / "net_with_parts.py", tmp_path / "parts_of_net.py"
    file.write_text("import math\nfrom parts_of_net import SIZE\ndef build(width=1): ...")
    found = []
    for content in ("SIZE = 1", "SIZE = 2"):
        beside.write_text(content)
        found.append(find_model(f"{file}:build").identity())
    assert found[0] != found[1]
    assert list(found[0]["imports"]) == ["parts_of_net.py"]


def test_a_net_with_weights_in_a_file_is_known_by_their_content(tmp_path: Path) -> None:
    weights = tmp_path / "own.weights.h5"
    found = []
    for content in (b"1", b"2"):
        weights.write_bytes(content)
        found.append(find_model("vgg16", {"weights": str(weights)}).identity())
    assert found[0] != found[1]


def test_a_net_is_known_as_it_always_was() -> None:
    # Runs that are finished stay finished.
    options = {"width": 4, "blocks": [1, 1]}
    assert find_model("VGG", options).identity() == {"name": "vgg", "options": options}
