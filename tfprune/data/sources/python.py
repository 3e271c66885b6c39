"""A user's function that returns examples: FILE.py:FUNCTION."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfprune.data.checking import SPLITS, ClassOptions, check_finite, checked, few
from tfprune.data.sources.base import Opened, Source
from tfprune.data.splits import TEST_SHARE
from tfprune.errors import TfpruneError, UsageError, did_you_mean, one_line
from tfprune.files import document_hash, sha256
from tfprune.functions import (
    FileFunction,
    call,
    file_function,
    imported,
    is_file_function,
    sources,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from tfprune.data.splits import Split, Tree

_MIB = 2**20
_FORMS = (
    "(x, y), (x, y, sample weights), a batched tf.data.Dataset, a keras.utils.PyDataset, or a "
    "generator of batches"
)
_EXTRA = ("classes", "version", "allow_missing_classes")
_WHOLE = "iu"
_TEXT = "US"
_ROWS_AT_ONCE = 1024

_Trees = tuple[Any, ...]


class _ReturnedOptions(ClassOptions):
    """What a function says of its classes."""

    where: ClassVar[str] = "the returned key"


class PythonFunction(Source):
    """FILE.py:FUNCTION, a function that returns examples.

    Example:
        ```python
        # my_data.py
        def sensors(path="sensors.npy", split=0.8):
            x, y = ...
            return {"train": (x[:800], y[:800]), "test": (x[800:], y[800:])}


        PythonFunction("my_data.py:sensors", Request(options={"split": 0.9})).open()
        ```

    The data options are the arguments of the function. It returns a dict with "train" and, if it
    has them, "validation" and "test"; an object with these attributes; a tuple (train, test) or
    (train, validation, test); or the train split alone. The dict may also have "classes", names in
    the order of the class numbers, "version", which is a part of the fingerprint, and
    "allow_missing_classes".

    Each split is (x, y) or (x, y, sample weights), trees of arrays as `keras.Model.fit` takes them;
    a batched `tf.data.Dataset`; a `keras.utils.PyDataset`; a generator of batches, or a function
    that returns one; or a split of `tfprune.data`. What has at most `cache_mib` is taken into
    memory. The rest is a stream: it is read again in each epoch, and a buffer shuffles it. A
    function may also return the path of a folder or a file that another kind of source reads.

    The fingerprint covers the file, the modules beside it that it imports, the options, the version
    and the content of what is in memory. What a stream reads from elsewhere is not covered: change
    the version with it. With the data option `version`, a finished run is recognised without
    calling the function.
    """

    meaning = "FILE.py:FUNCTION, a function that returns examples"
    order = 10

    @classmethod
    def takes(cls, name: str) -> bool:
        """A name of the form FILE.py:FUNCTION."""
        return is_file_function(name)

    def check(self) -> None:
        """Checks that the file is there; it is not imported yet.

        Raises:
            UsageError: it is not.
        """
        if not self._reference.file.is_file():
            raise UsageError(f"{self._reference.file} does not exist: check the path")

    @cached_property
    def _reference(self) -> FileFunction:
        found = file_function(self.name)
        return FileFunction(found.file.expanduser(), found.function)

    @property
    def _static(self) -> list[Any]:
        """What is known without calling the function."""
        files = sources(self._reference.file)
        named = [[name, sha256(file)] for name, file in files.items()]
        return [named, self._reference.function, dict(self.request.options)]

    def signature(self) -> str | None:
        """The source and the options, if a version is one of them; otherwise only a call tells."""
        if "version" not in self.request.options:
            return None
        return document_hash(self._static)

    def fingerprint(self) -> str | None:
        """The source, the options, the version, and the content of what is in memory."""
        content: list[Any] = [self._static, str(self._given.extra.get("version"))]
        if self._inner is not None:
            return document_hash([*content, self._inner.fingerprint()])
        for split, found in self._read.items():
            if found.split is not None:
                # The user's own split: only its examples can tell.
                return None
            content.append([split, found.count, found.digest])
        return document_hash(content)

    @cached_property
    def _given(self) -> _Given:
        """What the function returns."""
        options = dict(self.request.options)
        function = imported(self._reference)
        try:
            parameters = list(inspect.signature(function).parameters)
        # Functions of C have none that are known.
        except (TypeError, ValueError):
            parameters = []
        if "version" not in parameters:
            options.pop("version", None)
        defaults = {"image_size": self.request.image_size} if self.request.image_size else {}
        value = call(self._reference, options, defaults, settings="the data option")
        given = _given(self.name, value)
        if self.request.image_size and given.path is None and "image_size" not in parameters:
            raise UsageError(
                f"{self.name} takes no image_size: resize images in the function, or give it a "
                "parameter image_size"
            )
        return given

    @cached_property
    def _inner(self) -> Source | None:
        """The source that the function names."""
        from tfprune.data.sources import find_source

        path = self._given.path
        if path is None:
            return None
        if is_file_function(path):
            raise UsageError(f"{self.name} returns {path}, another function: call it there")
        return find_source(path, replace(self.request, options={}))

    @cached_property
    def _read(self) -> dict[str, _Read]:
        reader = _Reader(self.name, int(self.request.cache_mib * _MIB))
        return {split: reader.read(split, value) for split, value in self._given.splits.items()}

    def open(self) -> Opened:
        """The splits, in memory or as streams."""
        from tfprune.data.caching import cached
        from tfprune.data.memory_maps import held
        from tfprune.data.splits import Stream

        origin = f"{self.name}, a function"
        if self._inner is not None:
            self._inner.check()
            opened = self._inner.open()
            return replace(opened, origin=f"{opened.origin}, by the function {self.name}")
        extra = self._given.extra
        options = _ReturnedOptions.of(
            self.name, {key: extra[key] for key in ClassOptions.model_fields if key in extra}
        )
        read = self._read
        own = {split: found.split for split, found in read.items() if found.split is not None}
        raw = {split: found.trees for split, found in read.items() if found.split is None}
        splits: dict[str, Split] = dict(own)
        classes = options.names or ()
        left_out = ""
        if raw:
            found = checked(self.name, raw, options)
            classes, left_out = found.classes, found.left_out
            for split, part in found.parts.items():
                again = read[split].again
                if again is None:
                    splits[split] = held(part.given)
                    continue
                spec = _spec(part.given)
                self._check_numbers_stay(split, raw[split], part.targets)
                splits[split] = Stream(_epochs(again, spec), len(part), spec)
        ordered = {split: splits[split] for split in self._given.splits}
        ordered = cached(ordered, self.request, None, self.name, len(classes))
        self._check_beginning(ordered, classes)
        notes = [found.note for found in read.values() if found.note]
        said = [*dict.fromkeys(notes), left_out]
        return Opened(origin, tuple(classes), ordered, "; ".join(each for each in said if each))

    def _check_numbers_stay(self, split: str, raw: _Trees, targets: Tree) -> None:
        """A stream is cast to the dtypes that were checked; other class numbers it cannot get."""
        from tfprune.data.splits import leaves

        for given, found in zip(leaves(raw[1]), leaves(targets), strict=True):
            text = given.dtype.kind in _TEXT
            whole = given.dtype.kind in _WHOLE and found.ndim == 1
            if text or (whole and not np.array_equal(given.reshape(len(found)), found)):
                raise UsageError(
                    f"{self.name}: {split} is larger than cache_mib={self.request.cache_mib:g} and "
                    "has names as targets: give class numbers from 0 on, and their names as "
                    '"classes"'
                )

    def _check_beginning(self, splits: Mapping[str, Split], classes: Sequence[str]) -> None:
        """Checks what will be held out of a stream: its first examples."""
        from tfprune.data.splits import Stream

        found = self._read.get("train")
        if not classes or found is None or not found.trees:
            return
        labels = found.trees[1]
        if not isinstance(splits["train"], Stream) or not isinstance(labels, np.ndarray):
            return
        labels = labels.reshape(len(labels), -1)[:, 0]
        begin = 0
        for split, share in (("test", TEST_SHARE), ("validation", self.request.validation)):
            if split in splits:
                continue
            count = max(1, round((len(labels) - begin) * share))
            held_out = np.unique(labels[begin : begin + count])
            if len(held_out) < len(classes):
                raise UsageError(
                    f"{self.name}: the first {count:,} examples of train, which become the {split} "
                    f"split, have {len(held_out)} of {len(classes)} classes: return a {split} "
                    "split, or mix the examples"
                )
            begin += count


@dataclass(frozen=True)
class _Given:
    """What a function returned.

    Attributes:
        splits: by name, in any form.
        extra: what else it says of the data.
        path: the path of a folder or file, if it returned one.
    """

    splits: dict[str, Any]
    extra: dict[str, Any]
    path: str | None = None


def _given(name: str, value: Any) -> _Given:
    """Tells splits, and what is said of them, apart."""
    if isinstance(value, str | Path):
        return _Given({}, {}, str(value))
    if isinstance(value, Mapping):
        known = [*SPLITS, *_EXTRA]
        for key in value:
            if key not in known:
                if not any(split in value for split in SPLITS):
                    raise UsageError(
                        f"{name} returns a dict of {few(list(value))}, and no train: return "
                        f'{{"train": ..., "test": ...}}, each {_FORMS}'
                    )
                raise UsageError(f"{name} returns {key!r}: {did_you_mean(str(key), known)}")
        return _named(name, dict(value))
    if any(hasattr(value, split) for split in ("train", "test")):
        found = {key: getattr(value, key) for key in [*SPLITS, *_EXTRA] if hasattr(value, key)}
        # A data set without names of classes has none to check.
        return _named(name, {key: each for key, each in found.items() if _is_given(each)})
    if isinstance(value, tuple | list) and _are_splits(name, value):
        names = ("train", "test") if len(value) == 2 else ("train", "validation", "test")
        return _Given(dict(zip(names, value, strict=True)), {})
    return _Given({"train": value}, {})


def _is_given(value: Any) -> bool:
    return not (value is None or (isinstance(value, tuple) and not value) or callable(value))


def _named(name: str, value: dict[str, Any]) -> _Given:
    splits: dict[str, Any] = {}
    for key, split in SPLITS.items():
        if value.get(key) is not None:
            if split in splits:
                raise UsageError(f"{name} returns the {split} split twice: return it once")
            splits[split] = value[key]
    if "train" not in splits:
        raise UsageError(f'{name} returns no train split: return {{"train": ..., "test": ...}}')
    extra = {key: value[key] for key in _EXTRA if value.get(key) is not None}
    classes = extra.get("classes")
    if classes is not None and not isinstance(classes, int):
        extra["classes"] = [str(each) for each in classes]
    return _Given(splits, extra)


def _are_splits(name: str, value: Sequence[Any]) -> bool:
    """Whether a tuple is of splits, and not (x, y) or (x, y, sample weights)."""
    if len(value) not in (2, 3):
        return False
    if any(_is_array(each) or isinstance(each, Mapping) for each in value):
        return False
    if not all(isinstance(each, tuple | list) for each in value):
        return all(not isinstance(each, tuple | list) for each in value)
    pairs = [each for each in value if len(each) in (2, 3)]
    if len(pairs) < len(value):
        return False
    counts = [{_length(leaf) for leaf in each} for each in value]
    # Several inputs and several targets look like two splits, if all are equally long.
    if len(set().union(*counts)) == 1:
        raise UsageError(
            f"{name} returns a tuple of tuples of equally many examples, which can be (x, y) or "
            '(train, test): return {"train": ..., "test": ...}'
        )
    return all(len(found) == 1 for found in counts)


def _length(tree: Any) -> int:
    if isinstance(tree, Mapping):
        return _length(next(iter(tree.values()), ()))
    if isinstance(tree, tuple | list) and tree and (_is_array(tree[0])):
        return _length(tree[0])
    shape = np.shape(tree) if not hasattr(tree, "shape") else tree.shape
    return int(shape[0]) if len(shape) else 0


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, Mapping)


@dataclass(frozen=True, eq=False)
class _Read:
    """A split that was read once.

    Attributes:
        split: the user's own split.
        trees: inputs, targets and weights; arrays, or arrays without memory in their place.
        count: the number of examples.
        again: reads its batches again, if it is not in memory.
        digest: a hash of what is in memory.
        note: what was done to it, for reports.
    """

    split: Split | None = None
    trees: _Trees = ()
    count: int = 0
    again: Callable[[], Any] | None = None
    digest: str = ""
    note: str = ""


class _Reader:
    """Reads splits in every form.

    Args:
        name: of the function, for messages.
        limit: the most bytes of a split that are taken into memory.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit

    def read(self, split: str, value: Any) -> _Read:
        """Reads a split once.

        Raises:
            UsageError: it has another form, or its batches are not batches.
        """
        import keras
        import tensorflow as tf

        from tfprune.data.splits import Examples, Split

        if isinstance(value, Split):
            return _Read(value, count=len(value))
        if isinstance(value, Examples):
            return self._in_memory(split, (value.inputs, value.targets, value.weights))
        if isinstance(value, tf.data.Dataset):
            if value.cardinality() == tf.data.INFINITE_CARDINALITY:
                raise UsageError(
                    f"{self._name}: {split} repeats without end: leave .repeat() out, since an "
                    "epoch is one pass"
                )
            return self._batches(split, value.as_numpy_iterator, value)
        if isinstance(value, keras.utils.PyDataset):
            count = value.num_batches
            if count is None:
                raise UsageError(f"{self._name}: {split} has no length: give it a num_batches")
            return self._batches(split, lambda: (value[place] for place in range(count)))
        if isinstance(value, Iterator):
            return self._batches(split, lambda: value, once=True)
        if isinstance(value, tuple | list) and len(value) in (2, 3):
            return self._in_memory(split, (*value, None)[:3])
        if callable(value):
            return self._batches(split, lambda: self._generator(split, value))
        raise UsageError(f"{self._name} returns {_called(value)} as {split}: return {_FORMS}")

    def _generator(self, split: str, function: Callable[[], Any]) -> Iterator[Any]:
        made = function()
        if not isinstance(made, Iterator):
            raise UsageError(
                f"{self._name}: the function that is {split} returns {_called(made)}: let it "
                "yield batches"
            )
        return made

    def _in_memory(self, split: str, trees: _Trees) -> _Read:
        inputs, targets, weights = (
            None if tree is None else self._tree(split, tree) for tree in trees
        )
        if targets is None:
            raise UsageError(f"{self._name}: {split} has no targets: return (x, y)")
        return self._done((inputs, targets, weights))

    def _done(self, trees: _Trees, note: str = "") -> _Read:
        from tfprune.data.splits import leaves

        parts = [leaf for tree in trees if tree is not None for leaf in leaves(tree)]
        digest = hashlib.sha256()
        for leaf in parts:
            digest.update(f"{leaf.shape} {leaf.dtype}".encode())
            if leaf.ndim:
                # In parts: an array may lie in a file that is larger than memory.
                for begin in range(0, len(leaf), _ROWS_AT_ONCE):
                    part = leaf[begin : begin + _ROWS_AT_ONCE]
                    digest.update(np.ascontiguousarray(part).tobytes())
        count = len(parts[0]) if parts and parts[0].ndim else 0
        return _Read(None, trees, count, digest=digest.hexdigest(), note=note)

    def _tree(self, split: str, value: Any) -> Tree:
        if isinstance(value, Mapping):
            if not value:
                raise UsageError(f"{self._name}: {split} has an empty dict: give arrays by name")
            return {str(key): self._tree(split, part) for key, part in value.items()}
        if isinstance(value, tuple | list) and any(
            isinstance(part, Mapping) or (_is_array(part) and np.ndim(part)) for part in value
        ):
            return tuple(self._tree(split, part) for part in value)
        return self._array(split, value)

    def _array(self, split: str, value: Any) -> np.ndarray:
        try:
            array = np.asanyarray(value)
        # Ragged lists, sparse tensors: libraries raise what they like.
        except Exception:
            array = np.empty((), object)
        if array.dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if array.dtype.kind in "OST":
            texts = [
                part.decode(errors="replace") if isinstance(part, bytes) else part
                for part in array.reshape(-1).tolist()
            ]
            if not array.ndim or not all(isinstance(part, str) for part in texts):
                raise UsageError(
                    f"{self._name}: {split} has {_called(value)}, of which NumPy makes no array "
                    f"of numbers: return {_FORMS}"
                )
            array = np.array(texts, np.str_).reshape(array.shape)
        return array

    def _batch(self, split: str, number: int, value: Any) -> _Trees:
        where = f"{self._name}: batch {number} of {split}"
        if isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, tuple) or len(value) not in (2, 3):
            raise UsageError(f"{where} is {_called(value)}: give (x, y) or (x, y, sample weights)")
        from tfprune.data.splits import leaves

        trees = tuple(None if tree is None else self._tree(split, tree) for tree in value)
        trees = (*trees, None)[:3]
        parts = [leaf for tree in trees if tree is not None for leaf in leaves(tree)]
        if any(not leaf.ndim for leaf in parts) or len({len(leaf) for leaf in parts}) != 1:
            shapes = ", ".join(str(leaf.shape) for leaf in parts)
            raise UsageError(
                f"{where} has arrays of the shapes {shapes}, which are not batches of equally many "
                "examples: give batches, such as by .batch(32)"
            )
        check_finite(f"{self._name}, batch {number}", {split: trees})
        return trees

    def _batches(
        self,
        split: str,
        again: Callable[[], Iterator[Any]],
        dataset: tf.data.Dataset | None = None,
        once: bool = False,
    ) -> _Read:
        """Reads batches once: into memory while they fit, and counts them to the end."""
        first: _Trees | None = None
        parts: list[_Trees] | None = []
        labels: list[np.ndarray] = []
        size = count = 0
        for number, value in enumerate(self._guarded(split, again)):
            trees = self._batch(split, number, value)
            first = first or trees
            self._check_same(split, number, first, trees)
            length = _length(trees[0])
            size += sum(leaf.nbytes for leaf in _all(trees))
            count += length
            if isinstance(trees[1], np.ndarray):
                labels.append(trees[1])
            if parts is None and _alike(first, trees):
                raise UsageError(
                    f"{self._name}: {split} begins again after {count - length:,} examples: let it "
                    "end, since an epoch is one pass"
                )
            if parts is not None:
                parts.append(trees)
                if size > self._limit:
                    parts = None
            if parts is None and once:
                raise UsageError(
                    f"{self._name}: {split} is a generator of more than {self._limit / _MIB:,.0f} "
                    "MiB, which can be read only once: return the function that makes it, or give "
                    "a larger cache_mib"
                )
        if first is None or not count:
            raise UsageError(f"{self._name}: {split} has no examples: give at least one")
        same = once or self._repeats(split, again, first)
        if parts is not None:
            trees = _joined(parts)
            if same:
                return self._done(trees)
            return self._done(
                self._sorted(split, trees, again),
                f"{split} comes in another order each time: it is in an order of its content",
            )
        if not same:
            raise UsageError(
                f"{self._name}: {split} comes in another order, or with other values, each time it "
                "is read, and is too large for memory: leave its shuffling to tfprune, or give a "
                "larger cache_mib"
            )
        stands = _stand_in(first, count)
        if labels and labels[0].ndim <= 2 and labels[0].dtype.kind in _WHOLE + _TEXT:
            stands = (stands[0], np.concatenate(labels), stands[2])
        source: Callable[[], Any] = (
            (lambda: dataset)
            if dataset is not None
            else lambda: (self._batch(split, place, each) for place, each in enumerate(again()))
        )
        return _Read(None, stands, count, source)

    def _guarded(self, split: str, again: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Batches; what the user's code raises is said in one line."""
        try:
            yield from again()
        except TfpruneError:
            raise
        except Exception as error:
            raise TfpruneError(
                f"{self._name}: reading {split} raises {type(error).__name__} ({one_line(error)}): "
                "correct the function"
            ) from error

    def _check_same(self, split: str, number: int, first: _Trees, trees: _Trees) -> None:
        def described(some: _Trees) -> list[Any]:
            return [
                (leaf.shape[1:], "text" if leaf.dtype.kind in _TEXT else leaf.dtype.name)
                for leaf in _all(some)
            ]

        ours, its = described(first), described(trees)
        if ours != its:
            pairs = [pair for pair in zip(ours, its, strict=False) if pair[0] != pair[1]]
            said = (
                f"examples of the shape and dtype {pairs[0][1]}, and the first batch has "
                f"{pairs[0][0]}"
                if pairs
                else f"{len(its)} arrays, and the first batch has {len(ours)}"
            )
            raise UsageError(
                f"{self._name}: batch {number} of {split} has {said}: give batches of one kind"
            )

    def _repeats(self, split: str, again: Callable[[], Iterator[Any]], first: _Trees) -> bool:
        """Whether a second reading begins as the first did."""
        return _alike(first, self._batch(split, 0, next(iter(self._guarded(split, again)))))

    def _sorted(self, split: str, trees: _Trees, again: Callable[[], Iterator[Any]]) -> _Trees:
        """Examples in an order of their content: a shuffling that has no seed changes nothing."""
        from tfprune.data.splits import mapped

        keys = _keys(trees)
        values = enumerate(self._guarded(split, again))
        second = _joined([self._batch(split, number, value) for number, value in values])
        if sorted(keys) != sorted(_keys(second)):
            raise UsageError(
                f"{self._name}: {split} has other values each time it is read: leave random "
                "changes to augment, or give them a seed"
            )
        order = np.argsort(np.array(keys), kind="stable")
        return tuple(
            None if tree is None else mapped(lambda leaf: leaf[order], tree) for tree in trees
        )


def _called(value: Any) -> str:
    """How messages call a value that is wrong."""
    kind = type(value).__name__
    return "nothing" if value is None else f"{'an' if kind[:1] in 'aeiouAEIOU' else 'a'} {kind}"


def _all(trees: _Trees) -> Iterator[np.ndarray]:
    from tfprune.data.splits import leaves

    for tree in trees:
        if tree is not None:
            yield from leaves(tree)


def _alike(first: _Trees, second: _Trees) -> bool:
    mine, its = list(_all(first)), list(_all(second))
    return len(mine) == len(its) and all(map(np.array_equal, mine, its))


def _joined(parts: list[_Trees]) -> _Trees:
    from tfprune.data.splits import mapped

    columns = zip(*(list(_all(part)) for part in parts), strict=True)
    arrays = iter([np.concatenate(column) for column in columns])
    return tuple(
        None if tree is None else mapped(lambda _: next(arrays), tree) for tree in parts[0]
    )


def _stand_in(first: _Trees, count: int) -> _Trees:
    """Arrays without memory, in place of those of a stream."""
    from tfprune.data.splits import mapped

    def stand_in(leaf: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.zeros((), leaf.dtype), (count, *leaf.shape[1:]))

    return tuple(None if tree is None else mapped(stand_in, tree) for tree in first)


def _keys(trees: _Trees) -> list[str]:
    """A hash of each example."""
    parts = [np.ascontiguousarray(leaf) for leaf in _all(trees)]
    return [
        hashlib.sha256(b"".join(leaf[row].tobytes() for leaf in parts)).hexdigest()
        for row in range(len(parts[0]))
    ]


def _spec(given: _Trees) -> tuple[Tree, ...]:
    import tensorflow as tf

    from tfprune.data.splits import mapped

    return tuple(
        mapped(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), tree) for tree in given
    )


def _epochs(
    again: Callable[[], Any], spec: tuple[Tree, ...]
) -> Callable[[int, int], tf.data.Dataset]:
    """The examples of a stream, with the dtypes of a spec."""
    import tensorflow as tf

    from tfprune.data.splits import filled, leaves

    wanted = [leaf for tree in spec for leaf in leaves(tree)]

    def example(*trees: Tree) -> tuple[Tree, ...]:
        parts = [leaf for tree in trees for leaf in leaves(tree)]
        cast = (
            tf.reshape(tf.cast(leaf, to.dtype), to.shape)
            for leaf, to in zip(parts, wanted, strict=True)
        )
        return filled(spec, cast)

    def epoch(seed: int, number: int) -> tf.data.Dataset:
        batches = again()
        if not isinstance(batches, tf.data.Dataset):
            batches = _from_generator(again)
        return batches.unbatch().map(example, tf.data.AUTOTUNE, deterministic=True)

    return epoch


def _from_generator(again: Callable[[], Iterator[_Trees]]) -> tf.data.Dataset:
    import tensorflow as tf

    from tfprune.data.splits import mapped

    def batches() -> Iterator[tuple[Tree, ...]]:
        for trees in again():
            yield tuple(tree for tree in trees if tree is not None)

    signature = tuple(
        mapped(lambda leaf: tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype), tree)
        for tree in next(batches())
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature)
