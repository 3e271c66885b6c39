"""TFLite files have batch 1, or the batch that is asked for, and answer as examples alone do."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.artifacts.small import names, one_line
from tfprune.artifacts import export, read_manifest, verify, write_manifest
from tfprune.devices import find_device
from tfprune.errors import TfpruneError, UsageError
from tfprune.formats import load, tflite
from tfprune.formats.savedmodel import write_saved_model
from tfprune.formats.tflite_convert import convert, has_loops
from tfprune.formats.tflite_file import TFLiteFile, with_select_v2
from tfprune.formats.tflite_micro import memory
from tfprune.measure import evaluate, first_run, latency
from tfprune.vocabulary import LARGEST_BATCH, Batch

RNG = np.random.default_rng(0)
LEFT, RIGHT = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 3))
X = {"left": LEFT.astype(np.float32), "right": RIGHT.astype(np.float32)}
KINDS = ["tflite", "tflite-int8"]
needs_micro = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite_micro is not installed"
)


@pytest.fixture(scope="module")
def net() -> keras.Model:
    """Two inputs and two outputs."""
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate()([layers.Dense(5, "relu")(left), right])
    return keras.Model([left, right], [layers.Dense(4, name="a")(x), layers.Dense(2, name="b")(x)])


@pytest.fixture(scope="module")
def files(
    net: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, Batch], Path]:
    """Files of every kind and batch."""
    found: dict[tuple[str, Batch], Path] = {}
    batches: tuple[Batch, ...] = (1, 4, "dynamic")
    for batch in batches:
        folder = tmp_path_factory.mktemp(f"batch-{batch}")
        made = export(net, folder, KINDS, X, batch=batch)
        write_manifest(folder, made)
        found |= {(each.format, batch): each.path for each in made}
    return found


def fixed(batch: Batch) -> int | None:
    return None if batch == "dynamic" else batch


@pytest.mark.parametrize("batch", [1, 4, "dynamic"])
def test_every_input_and_output_has_the_batch(
    files: dict[tuple[str, Batch], Path], batch: Batch
) -> None:
    folder = files["tflite", batch].parent
    for each in read_manifest(folder):
        runtime = load(each.path)
        assert each.batch == runtime.fixed_batch == fixed(batch)
        ends = (*each.inputs, *each.outputs, *runtime.inputs, *runtime.outputs)
        assert {x.shape[0] for x in ends} == {fixed(batch)}
        assert TFLiteFile(each.path.read_bytes()).batch() == fixed(batch)


def test_larger_batches_are_verified(files: dict[tuple[str, Batch], Path]) -> None:
    verdicts = verify(files["tflite", 4].parent)
    assert [each.said for each in verdicts if not each.passed] == []


@pytest.mark.parametrize("kind", ["tflite", "tflite-int8"])
@pytest.mark.parametrize("long", [True, False])
def test_a_fixed_batch_answers_to_the_bit_as_one_by_one(
    files: dict[tuple[str, Batch], Path], kind: str, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In three threads and in one; the last batch of 4 is filled up and cut."""
    monkeypatch.setattr(tflite, "worker_count", lambda: 3)
    monkeypatch.setattr(tflite, "_LONG_SECONDS", 0.0 if long else 1e9)
    one, four = load(files[kind, 1]), load(files[kind, 4])
    alone = [one.run({name: x[i : i + 1] for name, x in X.items()}) for i in range(38)]
    some = {name: x[:38] for name, x in X.items()}
    told: list[int] = []
    for batch_size in (1, 7, 64):
        together = one.run(some, batch_size, told.append)
        for name, y in together.items():
            np.testing.assert_array_equal(y, np.concatenate([each[name] for each in alone]))
            assert four.run(some, batch_size)[name].shape == y.shape
            np.testing.assert_allclose(four.run(some, batch_size)[name], y, rtol=1e-5, atol=1e-6)
    assert sum(told) == 3 * 38


def test_only_long_calls_are_shared_among_threads(
    files: dict[tuple[str, Batch], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "worker_count", lambda: 2)
    for seconds, workers in ((0.0, 2), (1e9, 1)):
        monkeypatch.setattr(tflite, "_LONG_SECONDS", seconds)
        runtime = load(files["tflite", 1])
        assert isinstance(runtime, tflite.TFLiteRuntime)
        assert len(runtime._runners(X, 64)[1]) == workers


def test_what_a_thread_takes_at_a_time_fits_the_cache(
    files: dict[tuple[str, Batch], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load(files["tflite", 4])
    each = TFLiteFile(files["tflite", 4].read_bytes()).activation_bytes()
    monkeypatch.setattr(tflite, "worker_count", lambda: 1)
    monkeypatch.setattr(tflite, "_CHUNK_BYTES", 9 * each)
    told: list[int] = []
    runtime.run(X, progress=told.append)
    assert set(told) == {8}


@pytest.mark.parametrize("kind", ["tflite", "tflite-int8"])
@pytest.mark.parametrize("batch", [1, 4, "dynamic"])
def test_the_work_of_one_example_does_not_depend_on_the_batch(
    net: keras.Model, files: dict[tuple[str, Batch], Path], kind: str, batch: Batch
) -> None:
    path = files[kind, batch]
    runtime = load(path)
    assert runtime.macs() == 6 * 5 + 8 * 4 + 8 * 2
    call = runtime.one({name: x[3] for name, x in X.items()})
    y = call()
    assert y.shape == (fixed(batch) or 1, 4)
    np.testing.assert_array_equal(y, np.repeat(y[:1], len(y), axis=0))


def test_memory_is_measured_of_a_whole_batch(files: dict[tuple[str, Batch], Path]) -> None:
    assert first_run(files["tflite", 4]).memory_bytes > 0


def test_a_latency_is_that_of_one_example(files: dict[tuple[str, Batch], Path]) -> None:
    runtimes = {"one": load(files["tflite", 1]), "four": load(files["tflite", 4])}
    ticks = iter(range(0, 10**12, 8_000_000))
    example = {name: x[0] for name, x in X.items()}
    # Each call takes 8 ms by this clock.
    table = latency(runtimes, example, rounds=5, warmup=0, clock=lambda: next(ticks))
    assert table["median_ms"].tolist() == [8.0, 2.0]


def test_devices_measure_every_batch(files: dict[tuple[str, Batch], Path]) -> None:
    paths = [files["tflite", batch] for batch in (4, "dynamic")]
    for found in find_device("cpu", rounds=2).measure(paths):
        assert not found.refusal
        assert found.figures["device_ms"] > 0


@needs_micro
def test_tflite_micro_runs_larger_batches(files: dict[tuple[str, Batch], Path]) -> None:
    one, four, dynamic = (files["tflite-int8", batch] for batch in (1, 4, "dynamic"))
    found = find_device("tflm").measure([one, four, dynamic])
    assert [each.refusal for each in found] == [""] * 3
    assert [each.notes for each in found] == [()] * 3
    assert found[0].figures["arena_bytes"] < found[1].figures["arena_bytes"]
    assert memory(four.read_bytes()).activation_bytes > memory(one.read_bytes()).activation_bytes


@pytest.mark.slow
def test_a_model_keeps_a_batch_of_its_own(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input(batch_shape=(4, 8)), layers.Dense(2)])
    x = RNG.normal(size=(24, 8)).astype(np.float32)
    asked: tuple[Batch, ...] = (2, "dynamic")
    for batch in asked:
        with pytest.warns(UserWarning, match=f"keep batch 4 and not {batch!r}"):
            (made,) = export(model, tmp_path, ["tflite"], x, batch=batch)
        assert made.batch == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kept = export(model, tmp_path, ["tflite"], x)
    assert [each.batch for each in kept] == [4]
    np.testing.assert_allclose(load(made.path).predict(x[:6]), model(x[:8])[:6], rtol=1e-5)


def test_inputs_of_different_batches_are_one_line(tmp_path: Path) -> None:
    ends = [keras.Input(batch_shape=(1, 3)), keras.Input(batch_shape=(4, 3))]
    model = keras.Model(ends, [layers.Dense(2)(x) for x in ends])
    with pytest.raises(UsageError) as error:
        export(model, tmp_path, ["tflite"])
    assert "have the batches 1 and 4" in one_line(error)
    assert names(tmp_path) == []


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "any", LARGEST_BATCH + 1])
def test_what_is_no_batch_is_one_line(net: keras.Model, tmp_path: Path, batch: Batch) -> None:
    with pytest.raises(UsageError) as error:
        export(net, tmp_path, ["tflite"], batch=batch)
    assert f"batch is {batch!r}: give a number from 1" in one_line(error)


def test_a_batch_that_no_file_has_is_refused(net: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        export(net, tmp_path, ["keras"], batch=4)
    assert "keras take any number of examples" in one_line(error)


def test_a_squeeze_of_the_batch_is_one_line(tmp_path: Path) -> None:
    x = keras.Input((2, 2, 3))
    model = keras.Model(x, keras.ops.squeeze(layers.Conv2D(5, 2)(x)))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite"])
    assert "shape (5,) for a batch of 1: name the axis of every squeeze" in one_line(error)


@pytest.mark.slow
@pytest.mark.reliability("recurrent layers for devices", "right")
@pytest.mark.parametrize("batch", [3, "dynamic"])
def test_recurrent_layers_take_larger_batches(tmp_path: Path, batch: Batch) -> None:
    """An open batch by writing the steps out: TFLite has no loop over it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(3)(inputs)))
    x = RNG.normal(size=(20, 3, 4)).astype(np.float32)
    (made,) = export(model, tmp_path, ["tflite"], x, batch=batch)
    assert made.batch == fixed(batch)
    runtime = load(made.path)
    # The operators of a loop are in a subgraph that is run so often as there are steps.
    assert (runtime.macs() is None) == (batch != "dynamic")
    assert has_loops(model)
    np.testing.assert_allclose(runtime.predict(x), model(x), atol=1e-5)


@pytest.mark.reliability("recurrent layers for devices", "refused")
def test_an_open_number_of_steps_has_no_open_batch(tmp_path: Path) -> None:
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(3)(inputs)))
    with pytest.raises(TfpruneError) as error:
        export(model, tmp_path, ["tflite"], np.ones((20, 5, 4), np.float32), batch="dynamic")
    assert "has an open number of steps, and an open batch needs each step" in one_line(error)
    assert names(tmp_path) == []


def choosing(tmp_path: Path) -> tuple[keras.Model, bytes]:
    """A model that chooses between numbers, as the converter itself writes it with batch 1."""
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(3)(keras.ops.where(x > 0.0, x, 0.1 * x)))
    write_saved_model(model, tmp_path / "saved", batch=1)
    return model, convert(tmp_path / "saved", "float32")


@pytest.mark.slow
def test_select_becomes_the_operator_that_tflite_micro_has(tmp_path: Path) -> None:
    model, plain = choosing(tmp_path)
    with pytest.raises(TfpruneError, match="no kernel for SELECT:"):
        memory(plain)
    changed = with_select_v2(plain)
    assert "SELECT_V2" in memory(changed).operators
    assert with_select_v2(changed) == changed
    (made,) = export(model, tmp_path / "out", ["c-array-float"])
    assert made.memory is not None
    assert "SELECT_V2" in made.memory.operators
    x = RNG.normal(size=(9, 6)).astype(np.float32)
    np.testing.assert_allclose(load(made.path).predict(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_condition_for_whole_rows_stays_select(tmp_path: Path) -> None:
    import tensorflow as tf

    def call(x: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.Select(condition=x[:, 0] > 0, x=x, y=-x)

    traced = tf.function(call).get_concrete_function(tf.TensorSpec([5, 5], tf.float32))
    plain = tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()
    if "SELECT" not in operators(plain):
        pytest.skip("this converter writes no SELECT here")
    assert with_select_v2(plain) == plain


def operators(content: bytes) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    return [each["op_name"] for each in Interpreter(model_content=content)._get_ops_details()]


@pytest.mark.slow
def test_accuracy_is_the_same_with_every_batch(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    x, labels = LEFT.astype(np.float32), RNG.integers(0, 3, 40)
    wanted = evaluate(load(model), (x, labels)).value
    batches: tuple[Batch, ...] = (1, 7, "dynamic")
    for batch in batches:
        (made,) = export(model, tmp_path, ["tflite"], x, batch=batch)
        found = evaluate(load(made.path), (x, labels))
        assert (found.value, found.examples) == (wanted, 40)
