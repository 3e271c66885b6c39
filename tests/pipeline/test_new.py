"""A pipeline file to begin with is one that runs."""

from __future__ import annotations

import pytest

from tfprune.errors import UsageError
from tfprune.pipeline import load_pipeline, new_pipeline


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
