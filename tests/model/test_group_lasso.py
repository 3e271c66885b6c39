from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tests.filters.harness import randomised
from tests.tables import slow
from tfprune.model.group_lasso import shrinkage

AXES = {"filter": (0, 1, 2), "channel": (0, 1, 3), "shape": (3,), "depth": (0, 1, 2, 3)}


@pytest.mark.parametrize("kind", AXES)
def test_value_equals_its_formula(kind: str) -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    sizes = {"filter": 24, "channel": 30, "shape": 5, "depth": 120}
    norms = np.sqrt(np.square(kernel.astype(np.float64)).sum(AXES[kind]))
    wanted = 0.3 * np.sqrt(sizes[kind]) * norms.sum()
    assert float(tfprune.GroupLasso(0.3, kind)(kernel)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", AXES)
def test_of_a_dense_kernel(kind: str) -> None:
    """A Dense kernel is a 1x1 convolution's without its first axes."""
    kernel = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    penalty = tfprune.GroupLasso(0.3, kind)
    assert float(penalty(kernel)) == pytest.approx(float(penalty(kernel[None, None])), rel=1e-6)


@pytest.mark.parametrize("kind", AXES)
def test_zero_costs_nothing_and_has_a_finite_gradient(kind: str) -> None:
    kernel = tf.Variable(np.zeros((3, 3, 2, 4), np.float32))
    with tf.GradientTape() as tape:
        value = tfprune.GroupLasso(0.1, kind)(kernel)
    assert float(value) == 0
    assert np.isfinite(tape.gradient(value, kernel)).all()


def test_serialises() -> None:
    penalty = tfprune.GroupLasso(0.25, "shape")
    said = keras.saving.serialize_keras_object(penalty)
    assert said["registered_name"] == "tfprune>GroupLasso"
    again = keras.saving.deserialize_keras_object(said)
    assert again.get_config() == {"strength": 0.25, "groups": "shape"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (1.0, "row"),
            "GroupLasso has no groups 'row': choose one of filter, channel, shape, depth",
        ),
        ((-1.0,), "GroupLasso strength -1.0 is negative: give 0 or more"),
        ((float("nan"),), "GroupLasso strength nan is negative: give 0 or more"),
    ],
)
def test_errors(arguments: tuple, message: str) -> None:
    with pytest.raises(tfprune.UsageError) as error:
        tfprune.GroupLasso(*arguments)
    assert str(error.value) == message


def test_shrinkage_is_block_soft_thresholding() -> None:
    squares, sizes = np.array([4.0, 0.01, 0.0, 1.0]), np.array([9.0, 4.0, 4.0, 1.0])
    found = np.asarray(shrinkage(squares.astype("float32"), sizes.astype("float32"), 0.1))
    wanted = np.maximum(0, 1 - 0.1 * np.sqrt(sizes) / np.sqrt(np.maximum(squares, 1e-12)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found[1] == found[2] == 0


LOAD = {
    "tfprune first": """
import sys
import tfprune
assert not {"keras", "tensorflow"} & set(sys.modules), "import tfprune is not light"
import keras
model = keras.saving.load_model(sys.argv[1])
penalty = model.layers[0].kernel_regularizer
assert (type(penalty).__name__, penalty.strength, penalty.groups) == ("GroupLasso", 0.5, "channel")
""",
    # Each of these is what imports Keras, or a part of what `tfprune.filters` needs.
    "a part first": """
import sys
import tfprune.measure.first_run
import tfprune.data.adapting
import keras
model = keras.saving.load_model(sys.argv[1])
import tfprune
assert type(model.layers[0].kernel_regularizer) is tfprune.GroupLasso
from tfprune.model.group_lasso import GroupLasso
assert GroupLasso is tfprune.GroupLasso
""",
    # A slim model is an ordinary one: it loads where tfprune is not.
    "keras first": """
import sys
import numpy
import keras
slim = keras.saving.load_model(sys.argv[2])
assert not any(name.split(".")[0] == "tfprune" for name in sys.modules)
data = numpy.load(sys.argv[3])
assert (numpy.asarray(slim(data["inputs"])) == data["outputs"]).all()
import tfprune
model = keras.saving.load_model(sys.argv[1])
penalty = model.layers[0].kernel_regularizer
assert (type(penalty).__name__, penalty.strength, penalty.groups) == ("GroupLasso", 0.5, "channel")
""",
}


@pytest.mark.parametrize("order", ["tfprune first", *map(slow, list(LOAD)[1:])])
def test_files_load_in_a_fresh_process(order: str, tmp_path: Path) -> None:
    penalty = tfprune.GroupLasso(0.5, "channel")
    keras.Sequential([keras.Input((3,)), layers.Dense(2, kernel_regularizer=penalty)]).save(
        tmp_path / "lasso.keras"
    )
    dense = randomised(keras.Sequential([keras.Input((3,)), *map(layers.Dense, (6, 2))]))
    slim = tfprune.slim(dense, filters=0.5)
    slim.save(tmp_path / "slim.keras")
    inputs = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=inputs, outputs=np.asarray(slim(inputs)))
    files = [str(tmp_path / name) for name in ("lasso.keras", "slim.keras", "data.npz")]
    done = subprocess.run(
        [sys.executable, "-c", LOAD[order], *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
