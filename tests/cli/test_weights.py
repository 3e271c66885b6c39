from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import tfprune
from tfprune import sparsity, zoo
from tfprune.cli import main
from tfprune.data import load
from tfprune.weights import prune_once, round_weights


def _run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    path = tmp_path_factory.mktemp("nets") / "net.keras"
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("words", "function"),
    [
        (["prune-once", "--share", 0.6], lambda model: prune_once(model, 0.6)),
        (["quantize-weights", "--bits", 3], lambda model: round_weights(model, 3)),
    ],
)
def test_a_command_gives_the_weights_of_the_function(words, function, net, tmp_path):
    output = tmp_path / "out.keras"
    kind, *options = words
    said = _run(kind, net, *options, "-o", output)
    expected, found = function(keras.saving.load_model(net)), keras.saving.load_model(output)
    for one, other in zip(expected.weights, found.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    zeros = sparsity(found)["sparsity"].iloc[-1]
    assert said == f"{output}: {zeros:.1%} of the weights are zero\n"


@pytest.mark.parametrize(
    ("words", "function"),
    [
        (["equalize"], tfprune.equalize),
        (
            ["correct-biases", "--bits", 4, "--data", "digits"],
            lambda model: tfprune.correct_biases(
                model, load("digits").train.sample(256).inputs, bits=4
            ),
        ),
    ],
)
def test_what_helps_integer_files_is_that_of_the_function(words, function, tmp_path):
    output = tmp_path / "out.keras"
    kind, *options = words
    original = zoo.build("vgg", (8, 8, 1), 10, width=4)
    original.save(tmp_path / "net.keras")
    told = json.loads(_run(kind, tmp_path / "net.keras", *options, "-o", output, "--json"))
    found = keras.saving.load_model(output)
    expected = function(original)
    for one, other in zip(expected.weights, found.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    pairs = zip(original.weights, found.weights, strict=True)
    assert told["changed"] == sum(not np.array_equal(one, other) for one, other in pairs) > 0


def test_with_data_it_says_what_the_change_costs(net, tmp_path):
    output = tmp_path / "out.keras"
    words = ["prune-once", net, "--share", 0.9, "--data", "digits", "-o", output]
    told = json.loads(_run(*words, "--json"))["validation_accuracy"]
    assert f"validation accuracy {told['before']:.2%} to {told['pruned']:.2%}" in _run(*words)


def test_a_second_call_prunes_what_still_lives(net, tmp_path):
    first, second = tmp_path / "1.keras", tmp_path / "2.keras"
    _run("prune-once", net, "--share", 0.5, "-o", first)
    _run("prune-once", first, "--share", 0.5, "-o", second)
    kernels = [keras.saving.load_model(path).layers[1].kernel for path in (first, second)]
    assert [np.mean(np.asarray(kernel) == 0) for kernel in kernels] == [0.5, 0.75]
