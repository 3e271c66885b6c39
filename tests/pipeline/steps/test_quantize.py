"""The step that trains with the rounded numbers of an int8 file."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import tfprune
from tests.quantize.nets import NETS
from tfprune.cli import main
from tfprune.pipeline import Pipeline
from tfprune.pipeline.steps import Context, quantize
from tfprune.pipeline.steps.base import save
from tfprune.pipeline.steps.quantize import CorrectBiasesStep, EqualizeStep, QuantizeAwareStep
from tfprune.quantize import FakeQuantize, QuantizedLayer, is_quantize_aware
from tfprune.tasks import find_task

LEAST = {"kind": "quantize-aware", "epochs": 1, "learning_rate": 0.01}


def test_it_trains_a_model_of_known_ranges_with_its_zeros_held(digits, tmp_path, monkeypatch):
    found = []

    def fitted(step, model, context, callbacks):
        found.append((model, callbacks))
        return model, {}

    monkeypatch.setattr(quantize, "fit", fitted)
    step = QuantizeAwareStep(weights="int4", range_momentum=0.5, exclude=("head",), **LEAST)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(10, name="head"),
        ]
    )
    step.perform(model, Context(digits, 0, tmp_path))
    ((aware, (keeper,)),) = found
    assert isinstance(keeper, tfprune.KeepClusters)
    ranges = [layer for layer in aware.layers if isinstance(layer, FakeQuantize)]
    assert all(layer.is_known and layer.momentum == 0.5 for layer in ranges)
    (rounded,) = [layer for layer in aware.layers if isinstance(layer, QuantizedLayer)]
    assert rounded.weight_type == "int4"


def test_a_run_keeps_the_rounding_and_the_task_is_still_known(tmp_path):
    aware = tfprune.quantize_aware(NETS["mobile"](), np.zeros((4, 8, 8, 3), "float32"))
    save(aware, tmp_path)
    again = tfprune.load(tmp_path / "model.keras")
    assert is_quantize_aware(again)
    # It gives probabilities, and has a loss for those.
    assert find_task(again, None, None).figure.name == "accuracy"


def test_momentum_belongs_to_moving_ranges():
    with pytest.raises(
        ValidationError, match='range_momentum has a meaning with ranges = "moving"'
    ):
        QuantizeAwareStep(ranges="learnt", range_momentum=0.5, **LEAST)
    assert QuantizeAwareStep(ranges="learnt", **LEAST).ranges == "learnt"


def test_a_chain_has_one_such_step():
    with pytest.raises(ValidationError, match="is quantization-aware since its step 'aware'"):
        Pipeline.model_validate(
            {
                "name": "twice",
                "data": {"name": "digits"},
                "model": {"name": "vgg"},
                "steps": {
                    "dense": {"kind": "train", "epochs": 1},
                    "aware": LEAST,
                    "again": LEAST,
                },
                "variants": {"twice": ["dense", "aware", "again"]},
            }
        )


EQUALIZE, CORRECT = {"kind": "equalize"}, {"kind": "correct-biases"}


@pytest.mark.parametrize(
    ("before", "step", "said"),
    [
        (LEAST, EQUALIZE, "quantization-aware since its step 'before': put 'it' before it"),
        (LEAST, CORRECT, "quantization-aware since its step 'before': put 'it' before it"),
        ({"kind": "cluster", "epochs": 1}, EQUALIZE, "no longer share their values: put 'it'"),
        ({"kind": "quantize-weights"}, EQUALIZE, "no longer share their values: put 'it'"),
    ],
)
def test_what_needs_free_float_weights_comes_first(before, step, said):
    with pytest.raises(ValidationError, match=said):
        Pipeline.model_validate(
            {
                "name": "late",
                "data": {"name": "digits"},
                "model": {"name": "vgg"},
                "steps": {"dense": {"kind": "train", "epochs": 1}, "before": before, "it": step},
                "variants": {"late": ["dense", "before", "it"]},
            }
        )


FURTHER = {"kind": "train", "epochs": 1}
ROUND = {"kind": "quantize-weights", "bits": 4}


@pytest.mark.parametrize(
    ("steps", "formats", "said"),
    [
        ([CORRECT, FURTHER], ["tflite-int8"], "goes on with '2' after '1', which is made for the"),
        ([CORRECT, CORRECT], ["tflite-int8"], "goes on with '2' after '1', which is made for the"),
        ([CORRECT, EQUALIZE], ["tflite-int8"], "goes on with '2' after '1', which is made for"),
        ([ROUND, {**CORRECT, "bits": 4}], ["tflite-recipe"], "corrects nothing in '2' after '1'"),
        (
            [CORRECT],
            ["keras", "tflite"],
            "has the step '1', which corrects biases for weights of 8",
        ),
        (
            [{**CORRECT, "bits": 4}],
            ["tflite-int8"],
            "no format of the variant has such: add tflite",
        ),
    ],
)
def test_biases_are_corrected_last_and_for_files_that_round_so(steps, formats, said):
    named = {str(number): step for number, step in enumerate([FURTHER, *steps])}
    document = {
        "name": "corrected",
        "formats": formats,
        "data": {"name": "digits"},
        "model": {"name": "vgg"},
        "steps": named,
        "variants": {"it": list(named)},
    }
    with pytest.raises(ValidationError, match=said):
        Pipeline.model_validate(document)
    document["steps"] = {"0": FURTHER, "1": EQUALIZE, "2": CORRECT}
    document["variants"] = {"it": ["0", "1", "2"]}
    document["formats"] = ["keras", "tflite-int8"]
    assert Pipeline.model_validate(document).variants


@pytest.mark.parametrize(
    ("step", "expected", "name"),
    [
        (EqualizeStep(kind="equalize"), lambda model, x: tfprune.equalize(model), "equalized"),
        (
            CorrectBiasesStep(kind="correct-biases", bits=4),
            lambda model, x: tfprune.correct_biases(model, x, bits=4),
            "corrected",
        ),
    ],
)
def test_a_step_does_what_the_function_does(step, expected, name, digits, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    wanted = expected(model, digits.train.sample(256).inputs)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    changed, record = step.perform(model, Context(digits, 0, tmp_path))
    for one, other in zip(changed.weights, wanted.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(record["validation_accuracy"]) == {"before", name}


@pytest.mark.slow
def test_the_command_writes_a_model_that_needs_no_calibration(tmp_path):
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    kernel = net.layers[-1].kernel
    kernel.assign(np.where(np.arange(10) % 2, np.asarray(kernel), 0))
    net.save(tmp_path / "dense.keras")
    words = [tmp_path / "dense.keras", "--data", "digits", "--epochs", 1, "--json"]
    output = tmp_path / "aware.keras"
    result = CliRunner().invoke(
        main, [str(word) for word in ("quantize-aware", *words, "-o", output)]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["epochs"] == 1
    aware = tfprune.load(output)
    assert is_quantize_aware(aware)
    for layer in (each for each in aware.layers if isinstance(each, QuantizedLayer)):
        if isinstance(layer.layer, keras.layers.Dense):
            assert (np.asarray(layer.layer.kernel)[:, ::2] == 0).all()
    images = np.random.default_rng(0).uniform(0, 16, (20, 8, 8, 1)).astype("float32")
    (artifact,) = tfprune.export(aware, tmp_path, ["tflite-int8"], comparison_data=images)
    assert artifact.format == "tflite-int8"


@pytest.mark.slow
def test_it_learns_from_its_float_model(digits, tmp_path):
    """A student whose only aim is its teacher's answers comes nearer to them."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    teacher = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    images = digits.train.sample(100).inputs
    wanted = np.asarray(teacher(images))
    step = QuantizeAwareStep(
        kind="quantize-aware",
        epochs=6,
        learning_rate=0.01,
        weights="int4",
        teacher="dense",
        teacher_weight=1.0,
    )
    start = tfprune.quantize_aware(teacher, images, weights="int4")
    context = Context(digits, 0, tmp_path, earlier=lambda name: teacher)
    student, _ = step.perform(teacher, context)
    before, after = (
        float(np.square(np.asarray(each(images)) - wanted).mean()) for each in (start, student)
    )
    assert after < 0.7 * before
