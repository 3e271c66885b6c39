from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfprune import TfpruneError, UsageError, data
from tfprune.data.sources import Request, find_source

_NUMBERS = itertools.count()
HEAD = """
import keras
import numpy as np
import tensorflow as tf

X = np.arange(60 * 4, dtype=np.float32).reshape(60, 4)
Y = np.arange(60) % 3


def dataset(x, y, batch=7):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def generate(x, y, batch=7):
    for begin in range(0, len(x), batch):
        yield x[begin : begin + batch], y[begin : begin + batch]


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 1 + (len(self.x) - 1) // 7

    def __getitem__(self, place):
        rows = slice(7 * place, 7 * place + 7)
        return self.x[rows], self.y[rows]
"""
X = np.arange(60 * 4, dtype=np.float32).reshape(60, 4)
Y = np.arange(60) % 3
SMALL = 4e-4
"""A cache, in MiB, that 60 examples of 24 bytes do not fit into."""

FORMS = {
    "arrays": "(X, Y)",
    "tensors": "(tf.constant(X), tf.constant(Y))",
    "lists": "(X.tolist(), Y.tolist())",
    "dataset": "dataset(X, Y)",
    "PyDataset": "Batches(X, Y)",
    "generator": "generate(X, Y)",
    "function": "lambda: generate(X, Y)",
}
STREAMS = ("dataset", "PyDataset", "function")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a file whose function `load` has a body, and names it."""

    def write(body: str, parameters: str = "", head: str = HEAD) -> str:
        # A module is imported once in a process.
        path = tmp_path / f"user_data_{next(_NUMBERS)}.py"
        function = textwrap.indent(textwrap.dedent(body), "    ")
        path.write_text(f"{head}\n\ndef load({parameters}):\n{function}\n")
        return f"{path}:load"

    return write


def returned(value: str) -> str:
    return f"return {value}"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_examples(write, form):
    value = FORMS[form]
    name = write(returned(f'{{"train": {value}, "validation": {value}, "test": (X, Y)}}'))
    loaded = data.load(name)
    for split in (loaded.train, loaded.validation, loaded.test):
        assert isinstance(split, data.Arrays)
        some = split.sample(60)
        np.testing.assert_array_equal(some.inputs, X)
        np.testing.assert_array_equal(some.targets, Y)
        assert split.labels is not None
    assert loaded.classes == ("0", "1", "2")
    assert loaded.note.startswith(f"{name}, a function: 60 train")


@pytest.mark.parametrize("form", STREAMS)
def test_what_is_larger_than_the_cache_is_streamed(write, form):
    value = FORMS[form]
    name = write(returned(f'{{"train": {value}, "validation": {value}, "test": {value}}}'))
    streamed = data.load(name, cache_mib=SMALL)
    assert isinstance(streamed.train, data.Stream)
    assert len(streamed.train) == 60
    assert streamed.classes == ("0", "1", "2")
    x, y = (
        np.concatenate(part) for part in zip(*data.plain_batches(streamed.test, 8), strict=True)
    )
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    whole = list(data.batches(streamed.train, 8, seed=1, epochs=3).as_numpy_iterator())
    rest = list(data.batches(streamed.train, 8, seed=1, epochs=3, first_epoch=2))
    for (image, label), (same, also) in zip(whole[-len(rest) :], rest, strict=True):
        np.testing.assert_array_equal(image, same)
        np.testing.assert_array_equal(label, also)
    epochs = [np.concatenate([x[:, 0] for x, _ in whole[begin : begin + 8]]) for begin in (0, 8)]
    assert (epochs[0] != epochs[1]).any()
    np.testing.assert_array_equal(np.sort(epochs[0]), X[:, 0])


def test_a_generator_object_is_read_once(write):
    name = write(returned('{"train": generate(X, Y), "test": (X, Y)}'))
    with pytest.raises(UsageError, match="a generator of more than 0 MiB, which can be read only"):
        data.load(name, cache_mib=SMALL)


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        ('{"train": (X, Y), "val": (X[:9], Y[:9]), "test": (X[:6], Y[:6])}', [60, 9, 6]),
        ("(X, Y), (X[:6], Y[:6])", [54, 6, 6]),
        ("(X, Y), (X[:9], Y[:9]), (X[:6], Y[:6])", [60, 9, 6]),
        ("dataset(X, Y), Batches(X[:6], Y[:6])", [54, 6, 6]),
        ("X, Y", [48, 6, 6]),
        ("(X, Y, np.ones(60))", [48, 6, 6]),
        ("dataset(X, Y)", [48, 6, 6]),
        ("SimpleNamespace(train=(X, Y), test=(X[:6], Y[:6]))", [54, 6, 6]),
        ("[(X, Y), (X[:6], Y[:6])]", [54, 6, 6]),
    ],
)
def test_splits_in_every_form(write, value, sizes):
    name = write(f"from types import SimpleNamespace\nreturn {value}")
    loaded = data.load(name)
    assert [len(s) for s in (loaded.train, loaded.validation, loaded.test)] == sizes


def test_a_data_set_of_tfprune_is_taken_as_it_is(write):
    name = write(returned('data.load("digits", limit=30)'), head="from tfprune import data")
    loaded = data.load(name)
    assert loaded.classes == tuple("0123456789")
    assert len(loaded.train) == 30


def test_a_path_is_read_by_its_own_kind(write, tmp_path, write_photos):
    root = write_photos({"cat": 30, "dog": 30})
    name = write(returned(f"{str(root)!r}"))
    loaded = data.load(name)
    assert loaded.classes == ("cat", "dog")
    np.testing.assert_array_equal(loaded.train.labels, data.load(str(root)).train.labels)
    assert loaded.fingerprint
    assert data.load(name, image_size=(3, 4)).image_shape == (3, 4, 3)


def test_named_inputs_targets_and_weights(write):
    tree = """
    x = {"left": X, "right": X[:, :2]}
    y = {"kind": Y, "size": Y / 2}
    w = {"kind": np.ones(60), "size": np.zeros(60)}
    def batches():
        for begin in range(0, 60, 7):
            yield tuple({k: v[begin : begin + 7] for k, v in t.items()} for t in (x, y, w))
    """
    for value, limit in (("(x, y, w)", 1), ("batches", 1), ("batches", SMALL)):
        name = write(textwrap.dedent(tree) + f'\nreturn {{"train": {value}, "test": {value}}}')
        loaded = data.load(name, cache_mib=limit)
        some = loaded.test.sample(60)
        assert loaded.classes == ()
        np.testing.assert_array_equal(some.inputs["right"], X[:, :2])
        np.testing.assert_array_equal(some.targets["size"], Y / 2)
        np.testing.assert_array_equal(some.weights["kind"], np.ones(60))


def test_names_of_classes(write):
    for body, classes in (
        ('return {"train": (X, np.array(["u", "v", "w"])[Y])}', ("u", "v", "w")),
        ('return {"train": dataset(X, np.array(["u", "v", "w"])[Y])}', ("u", "v", "w")),
        ('return {"train": (X, Y), "classes": ["a", "b", "c"]}', ("a", "b", "c")),
        ('return {"train": (X, Y + 5), "classes": True}', ("5", "6", "7")),
        ('return {"train": (X, Y + 5), "classes": False}', ()),
        ('return {"train": (X, np.stack([Y, Y], 1)), "classes": ["a", "b"]}', ("a", "b")),
    ):
        assert data.load(write(body)).classes == classes


def test_options_are_the_arguments(write):
    name = write("return X * factor, Y", "factor, shift=0")
    assert data.load(name, options={"factor": 2}).train.inputs.max() <= 2 * X.max()
    with pytest.raises(UsageError, match="needs factor: give the data option factor="):
        data.load(name)
    with pytest.raises(UsageError, match=r"unknown option 'facto' of .*did you mean 'factor'"):
        data.load(name, options={"facto": 2})
    with pytest.raises(UsageError, match="takes no image_size: resize images in the function"):
        data.load(name, options={"factor": 2}, image_size=(4, 4))
    sized = write("return np.zeros((60, *image_size, 3), np.uint8), Y", "image_size=(8, 8)")
    assert data.load(sized, image_size=(4, 5)).image_shape == (4, 5, 3)


def fingerprint(name: str, **options: Any) -> str | None:
    source = find_source(name, Request(options=options))
    source.open()
    return source.fingerprint()


def test_the_fingerprint_names_source_options_version_and_content(write, tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 2\n")
    body = "return {'train': (X * scale, Y), 'version': 1}"
    name = write(body, "scale=1", head=f"import beside\n{HEAD}")
    first = fingerprint(name)
    assert fingerprint(name) == first
    assert fingerprint(name, scale=2) != first
    assert fingerprint(name, version=2) != first
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    assert fingerprint(name) != first
    (tmp_path / "numbers.npy").write_bytes(b"1")
    elsewhere = write(f"return X * int(open({str(tmp_path / 'numbers.npy')!r}).read()), Y")
    before = fingerprint(elsewhere)
    (tmp_path / "numbers.npy").write_bytes(b"2")
    assert fingerprint(elsewhere) != before
    assert find_source(name).signature() is None
    assert find_source(name, Request(options={"version": 1})).signature()


def test_a_shuffling_without_a_seed_changes_nothing(write):
    name = write(returned('{"train": dataset(X, Y).unbatch().shuffle(60).batch(7)}'))
    first, second = data.load(name), data.load(name)
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
    assert first.fingerprint == second.fingerprint
    assert "comes in another order each time" in first.note
    with pytest.raises(UsageError, match="train comes in another order, or with other values"):
        data.load(name, cache_mib=SMALL)


def test_values_that_change_are_refused(write):
    body = "return lambda: generate(X + np.random.default_rng().uniform(), Y)"
    with pytest.raises(UsageError, match="train has other values each time it is read"):
        data.load(write(body))


def test_what_is_held_out_of_a_stream_has_every_class(write):
    mixed = data.load(write(returned("dataset(X, Y)")), cache_mib=SMALL)
    assert [len(s) for s in (mixed.train, mixed.validation, mixed.test)] == [49, 5, 6]
    with pytest.raises(UsageError, match="the first 6 examples of train, which become the test"):
        data.load(write(returned("dataset(X, np.sort(Y))")), cache_mib=SMALL)


def test_a_cache_too_small_for_a_stream_names_the_need(write):
    name = write(returned('{"train": dataset(X, Y), "test": dataset(X, Y)}'))
    with pytest.raises(UsageError, match=r"needs 0.00275 MiB as a cache .* give cache_mib = 1"):
        data.load(name, cache_mib=SMALL, cache="memory")


def test_errors_of_the_function_are_one_line(write):
    with pytest.raises(TfpruneError) as error:
        data.load(write("return {}['nothing']"))
    assert "raises KeyError" in str(error.value)
    with pytest.raises(TfpruneError) as error:
        data.load(
            write("def f():\n    yield X[:7], Y[:7]\n    raise ValueError('a\\nb')\nreturn f")
        )
    assert "reading train raises ValueError (a)" in str(error.value)


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "returns nothing as train: return (x, y)"),
        ("return 3", "returns an int as train"),
        ("return X", "returns a ndarray as train"),
        ("return {}", "returns no train split"),
        ("return {'x': X, 'y': Y}", "returns a dict of x, y, and no train"),
        ("return {'train': (X, Y), 'tset': (X, Y)}", "returns 'tset': did you mean 'test'?"),
        ("return {'test': (X, Y)}", "returns no train split"),
        ("return {'train': (X, Y), 'val': (X, Y), 'valid': (X, Y)}", "the validation split twice"),
        ("return (X, X), (Y, Y)", "which can be (x, y) or (train, test)"),
        ("return X, None", "train has no targets: return (x, y)"),
        ("return X, {}", "has an empty dict"),
        ("return [[1], [1, 2]], [0, 1]", "of which NumPy makes no array of numbers"),
        ("return X[:0], Y[:0]", "the inputs of train have no examples"),
        ("return X, Y[:9]", "the inputs of train are 60 and the targets of train are 9"),
        ("return X, Y * 0", "has only one class (0)"),
        ("return X, Y + 1", "set the returned key classes = false if they are numbers"),
        ("return X, Y * np.nan", "the targets of train hold NaN or infinity in 60 of 60"),
        ("return X, X + 1j", "the targets of train have the dtype complex"),
        ("return {'train': (X, Y), 'test': (X, Y + 1)}", "labels in test that are outside"),
        ("return {'train': (X, Y), 'test': (X[:2], Y[:2])}", "no example of class 2 in its test"),
        ("return {'train': (X, Y), 'test': (X[:, :2], Y)}", "have the shape (2,), and"),
        ("return {'train': (X, Y), 'test': ({'a': X}, Y)}", "are not named or counted as those"),
        ("return {'train': (X, Y), 'classes': 2}", "labels in train that are outside"),
        ("return dataset(X, Y).unbatch()", "which are not batches of equally many examples"),
        ("return dataset(X, Y).repeat()", "train repeats without end: leave .repeat() out"),
        ("return tf.data.Dataset.from_tensor_slices(X).batch(7)", "batch 0 of train is a ndarray"),
        ("return dataset(X, Y).take(0)", "train has no examples"),
        (
            "return dataset(np.where(X == 99, np.nan, X), Y)",
            "batch 3: the inputs of train hold",
        ),
        ("return iter([(X[:7], Y[:7]), (X[:7, :2], Y[:7])])", "batch 1 of train has examples of"),
        ("return {'train': lambda: X}", "the function that is train returns a ndarray"),
        ("return 'nowhere.csv'", "nowhere.csv does not exist"),
    ],
)
def test_what_else_a_function_returns_is_refused(write, refused, body, said):
    assert said in refused(write(body))


@pytest.mark.reliability("data that cannot be trained on", "refused")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return dataset(X, np.array(['a', 'b', 'c'])[Y])", "has names as targets: give class"),
        ("return dataset(X, Y + 1)", "integers from 1 to 3 as targets"),
        ("return {'train': dataset(X, Y), 'test': dataset(X, Y + 1)}", "labels in test that are"),
        (
            "def endless():\n    while True:\n        yield from generate(X, Y)\nreturn endless",
            "train begins again after 60 examples: let it end",
        ),
    ],
)
def test_streams_are_checked_before_the_first_epoch(write, refused, body, said):
    assert said in refused(write(body), cache_mib=SMALL)


def test_files_that_are_not_there_are_refused(tmp_path, refused, write):
    assert "does not exist: check the path" in refused(f"{tmp_path}/nothing.py:load")
    other = write("return X, Y").replace(":load", ":lod")
    assert "has no function 'lod': did you mean 'load'?" in refused(other)
    broken = tmp_path / "broken_data.py"
    broken.write_text("import nothing_of_this_name\n")
    assert "cannot be imported (ModuleNotFoundError" in refused(f"{broken}:load")


def test_a_model_is_evaluated_on_a_stream_as_in_memory(write):
    name = write(returned('{"train": dataset(X / 240, Y), "test": dataset(X / 240, Y)}'))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    streamed, whole = (data.load(name, cache_mib=limit, validation=0.2) for limit in (SMALL, 1))
    batches = data.batches(streamed.train, 8, seed=0, epochs=2)
    model.fit(batches, verbose=0, shuffle=False)
    losses = [
        model.evaluate(data.plain_batches(loaded.test, 8), verbose=0)
        for loaded in (streamed, whole)
    ]
    assert losses[0] == losses[1]
