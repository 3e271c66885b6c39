"""What the application shows is what the files themselves say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfprune import UsageError, figures
from tfprune.app.contents import Contents, example_at, open_run, probabilities
from tfprune.errors import TfpruneError
from tfprune.formats import load


@pytest.fixture(scope="module")
def contents(tiny_run: Path) -> Contents:
    return open_run(tiny_run, limit=40)


def test_every_artifact_answers_as_its_file_does(contents, tiny_run):
    files = sorted(tiny_run.glob("*/seed-0/model*"))
    assert sorted(file.path for file in contents.files) == [
        path for path in files if path.is_file()
    ]
    example = example_at(contents.examples, 3)
    for answer in contents.answers(example):
        expected = load(answer.file.path).predict(example[None])[0]
        np.testing.assert_array_equal(answer.outputs, expected)
        assert answer.text == contents.dataset.classes[int(expected.argmax())]
        assert answer.confidence == pytest.approx(probabilities(expected).max())
        assert answer.milliseconds > 0


def test_the_time_is_that_of_the_inference_alone(contents, monkeypatch):
    file, example = contents.files[0], contents.examples.inputs[0]
    clock = iter(range(1_000_000))
    asked = []

    def one(given):
        asked.append(given)
        # The clock goes on by 1 s between looks, and by 4 s within a call.
        return lambda: [next(clock) for _ in range(4)]

    monkeypatch.setattr("tfprune.app.contents.time.perf_counter", lambda: next(clock))
    for each in contents.files:
        monkeypatch.setattr(each.runtime, "one", one)
    monkeypatch.setattr(type(file.runtime), "fixed_batch", 2)
    answer = contents.answers(example)[0]
    assert answer.milliseconds == 5000 / 2
    np.testing.assert_array_equal(asked[0], example)


def test_what_differs_is_what_the_files_answer_otherwise(contents):
    first = contents.files[0]
    inputs = np.asarray(contents.examples.inputs)
    expected = first.runtime.predict(inputs).argmax(-1)
    differing = {
        number
        for file in contents.files[1:]
        for number in np.flatnonzero(file.runtime.predict(inputs).argmax(-1) != expected)
    }
    assert {each.number for each in contents.differences} == differing
    for each in contents.differences:
        assert first.title not in each.answers
        assert each.truth == contents.dataset.classes[int(contents.examples.targets[each.number])]
        assert each.expected not in each.answers.values()


def test_a_front_has_what_no_file_beats(contents):
    for cost in contents.costs:
        front = contents.front(cost)
        prices = [file.row[cost.name] for file in front]
        assert prices == sorted(prices)
        for file in front:
            assert not any(
                other.row[cost.name] < file.row[cost.name]
                and other.row["accuracy"] > file.row["accuracy"]
                for other in contents.files
            )
    assert figures.figure("bytes") in contents.costs


def test_a_drawing_fills_the_image_on_the_datas_own_paper(contents):
    ink = np.zeros((200, 300), np.uint8)
    ink[20:60, 250:260] = 255
    image = contents.drawing(ink)
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)
    # Digits are bright on dark paper. The bar stands upright in the middle.
    assert image[0].max() < 128 < image[2:6, 3:5].mean()
    moved = np.zeros((400, 400), np.uint8)
    moved[100:140, 30:40] = 255
    np.testing.assert_array_equal(contents.drawing(moved), image)
    assert contents.drawing(np.zeros((9, 9), np.uint8)).max() == 0


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_a_photo_of_any_kind_becomes_an_image_of_the_data(contents, channels):
    shape = (30, 20) if channels is None else (30, 20, channels)
    image = contents.photo(np.full(shape, 200, np.uint8))
    assert image.shape == (8, 8, 1)
    # An alpha of 200 lets white paper through.
    expected = 200 if channels != 4 else round(200 * 200 / 255 + 255 * 55 / 255)
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_an_image_of_the_data_stays_as_it_is(contents):
    image = example_at(contents.examples, 0)
    np.testing.assert_array_equal(contents.photo(image), image)


def test_probabilities_stay_and_logits_become_some():
    np.testing.assert_array_equal(probabilities(np.array([0.25, 0.75])), [0.25, 0.75])
    found = probabilities(np.array([1000.0, 999.0, -5.0]))
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_each_variant_has_a_picture_of_its_layers(contents, tiny_pipeline):
    assert list(contents.pictures) == list(tiny_pipeline.variants)
    assert all(picture.startswith("<") for picture in contents.pictures.values())


def test_formats_and_seeds_are_chosen(tiny_run):
    found = open_run(tiny_run, formats=["tflite-int8"], limit=4)
    assert {file.format for file in found.files} == {"tflite-int8"}
    with pytest.raises(UsageError, match="has no onnx: choose one of keras, savedmodel"):
        open_run(tiny_run, formats=["onnx"])
    with pytest.raises(UsageError, match="seed 7 is not in"):
        open_run(tiny_run, seed=7)


def test_a_file_that_cannot_be_loaded_is_named(tiny_run, monkeypatch):
    def refuses(path):
        if path.suffix == ".keras":
            raise TfpruneError("it needs a layer")
        return load(path)

    monkeypatch.setattr("tfprune.app.contents.load", refuses)
    found = open_run(tiny_run, formats=["keras", "tflite"], limit=4)
    assert found.left_out["dense, keras"] == "it needs a layer"
    assert {file.format for file in found.files} == {"tflite"}
    with pytest.raises(TfpruneError, match="no file that can be run here: it needs a layer"):
        open_run(tiny_run, formats=["keras"], limit=4)


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(TfpruneError, match="run"):
        open_run(tmp_path)
