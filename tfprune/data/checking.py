"""Checks that examples can be trained on, before the first epoch; class numbers from names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tfprune.data.caching import remembered
from tfprune.data.splits import TEST_SHARE, Examples, Tree, filled, leaves, mapped
from tfprune.errors import UsageError, shorten
from tfprune.validation import describe_error

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""The splits by the names that they have in folders and files."""

_ROWS_AT_ONCE = 4096
_SHOWN = 3
_TEXT = "US"
_WHOLE = "iu"
_NUMBERS = "biuf"
_HASH_BITS = 64

Share = Annotated[float, Field(ge=0)]


class Options(BaseModel):
    """Options of a source; a subclass lists them.

    Example:
        ```python
        class FolderOptions(Options):
            channels: Literal[1, 3] | None = None


        FolderOptions.of("photos", {"channels": 3}).channels  # 3
        ```
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def of(cls: type[Chosen], name: str, given: Mapping[str, Any]) -> Chosen:
        """Reads the options of a data set.

        Raises:
            UsageError: an option is unknown or has a wrong value.
        """
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            said = describe_error(error, cls)
            raise UsageError(f"the data options of {name}: {said}") from None


Chosen = TypeVar("Chosen", bound=Options)


class ClassOptions(Options):
    """How targets are classes.

    Attributes:
        classes: names of classes in the order of their numbers, or how many there are; True:
            integers are names of classes, in order; False: integers are numbers to predict.
        allow_missing_classes: whether a class may have no example in a split.
        where: what messages call such an option.
    """

    where: ClassVar[str] = "the data option"

    classes: bool | Annotated[int, Field(ge=2)] | list[str] | None = None
    allow_missing_classes: bool = False

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of classes, if they are given."""
        if isinstance(self.classes, bool) or self.classes is None:
            return None
        if isinstance(self.classes, int):
            return tuple(map(str, range(self.classes)))
        return tuple(self.classes)


def hash_split(name: str, shares: Sequence[float]) -> str:
    """The split of an example, by a hash of its name: another example moves none.

    Example:
        >>> [hash_split(f"cats/{i}.jpg", (0.8, 0.1, 0.1)) for i in range(3)]
        ['train', 'validation', 'train']

    Args:
        name: such as the path of a file relative to its data set.
        shares: of train, validation and test.
    """
    place = hash_place(name) * sum(shares)
    for split, share in zip(("train", "validation", "test"), shares, strict=True):
        if place < share:
            return split
        place -= share
    return "train"


def hash_place(name: str, salt: str = "") -> float:
    """A number from 0 to 1 that a name always gets, the same on every machine.

    Example:
        >>> hash_place("cats/1.jpg") == hash_place("cats/1.jpg")
        True
    """
    # macOS writes accents as characters of their own.
    text = unicodedata.normalize("NFC", salt + name)
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[: _HASH_BITS // 8], "big") / 2**_HASH_BITS


def default_shares(validation: float) -> tuple[float, float, float]:
    """Shares of train, validation and test: a tenth is the test split.

    Example:
        >>> default_shares(0.1)
        (0.81, 0.09, 0.1)

    Args:
        validation: share of what is not the test split.
    """
    rest = 1 - TEST_SHARE
    return round(rest * (1 - validation), 9), round(rest * validation, 9), TEST_SHARE


def check_classes(
    name: str,
    counts: Mapping[str, np.ndarray],
    classes: Sequence[str],
    options: ClassOptions,
    hashed: bool = False,
) -> str:
    """Checks that each split has examples of each class.

    Example:
        ```python
        check_classes("photos", {"train": np.array([3, 5])}, ("cat", "dog"), ClassOptions())
        ```

    Args:
        name: what messages call the data set.
        counts: of each split, the number of examples of each class.
        classes: their names.
        options: whether classes may be missing.
        hashed: whether hashes chose the splits: of few examples, some class may then have none in
            the validation or the test split, which nobody can help.

    Returns:
        What is missing and may be, for reports.

    Raises:
        UsageError: there is one class, or a class is missing in a split.
    """
    if len(classes) < 2:
        only = f" ({classes[0]})" if classes else ""
        raise UsageError(
            f"{name} has only one class{only}: a classifier needs examples of two or more"
        )
    said = []
    for split, found in counts.items():
        missing = [each for each, count in zip(classes, found, strict=True) if not count]
        if not missing:
            continue
        shown = few(missing)
        if not found.any():
            raise UsageError(f"{name} has no examples for its {split} split: add some")
        if not options.allow_missing_classes and not (hashed and split != "train"):
            raise UsageError(
                f"{name} has no example of {'classes' if len(missing) > 1 else 'class'} {shown} in "
                f"its {split} split: add examples, or set {options.where} "
                "allow_missing_classes = true"
            )
        said.append(f"the {split} split has no example of {shown}")
    return "; ".join(said)


def few(names: Sequence[Any], most: int = _SHOWN) -> str:
    """The first of some names, and how many there are.

    Example:
        >>> few(["a", "b", "c", "d"], most=2)
        'a, b, ... (4)'
    """
    shown = ", ".join(shorten(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names):,})"


@dataclass(frozen=True)
class Checked:
    """Examples that can be trained on.

    Attributes:
        classes: the name of each label; empty if the only target is not a class number.
        parts: examples by split. Class numbers are int64 (n,).
        left_out: what is missing and may be, for reports.
    """

    classes: tuple[str, ...]
    parts: dict[str, Examples]
    left_out: str = ""


def checked(
    name: str,
    given: Mapping[str, tuple[Tree, Tree, Tree]],
    options: ClassOptions,
    key: str | None = None,
    hashed: bool = False,
) -> Checked:
    """Checks examples in memory, and makes class numbers of names.

    Example:
        ```python
        found = checked("data", {"train": (x, np.array(["cat", "dog"]), None)}, ClassOptions())
        found.classes, found.parts["train"].targets  # ("cat", "dog"), [0, 1]
        ```

    Args:
        name: what messages call the data set.
        given: trees of arrays (n, ...) by split: inputs, targets and sample weights or None.
        options: how targets are classes.
        key: a hash of arrays that are larger than memory: that their numbers are finite is
            remembered.
        hashed: see `check_classes`.

    Raises:
        UsageError: an array is not of numbers, holds NaN, has no examples, or another length or
            shape than it should; a label is outside of the classes; or see `check_classes`.
    """
    parts = {
        split: tuple(
            None if tree is None else _named_leaves(name, split, role, tree)
            for role, tree in zip(("inputs", "targets", "weights"), trees, strict=True)
        )
        for split, trees in given.items()
    }
    for split, trees in parts.items():
        _check_lengths(name, split, trees)
    _check_alike(name, parts)

    def finite() -> dict[str, np.ndarray]:
        check_finite(name, parts)
        return {"finite": np.array(True)}

    if key is None:
        finite()
    else:
        remembered("checks", key, finite)
    targets = {split: leaves(trees[1]) for split, trees in parts.items()}
    classes, numbers = _class_numbers(name, targets, options)
    said = ""
    if classes and all(found[0].ndim == 1 for found in numbers.values()):
        counts = {
            split: np.bincount(found[0], minlength=len(classes)) for split, found in numbers.items()
        }
        said = check_classes(name, counts, classes, options, hashed)
    done = {}
    for split, (inputs, tree, weights) in parts.items():
        done[split] = Examples(inputs, filled((tree,), iter(numbers[split]))[0], weights)
    return Checked(classes, done, said)


def _place(role: str, path: str, split: str) -> str:
    return f"the {role}{path} of {split}"


def _paths(tree: Tree, path: str = "") -> list[str]:
    """How messages call each array of a tree."""
    if isinstance(tree, Mapping):
        return [p for key, part in tree.items() for p in _paths(part, f"{path} {key!r}")]
    if isinstance(tree, tuple | list):
        return [p for place, part in enumerate(tree) for p in _paths(part, f"{path} {place + 1}")]
    return [path]


def _named_leaves(name: str, split: str, role: str, tree: Tree) -> Tree:
    """The tree, whose arrays have a dtype that can be trained on."""
    paths = iter(_paths(tree))

    def leaf(array: np.ndarray) -> np.ndarray:
        where = f"{name}: {_place(role, next(paths), split)}"
        allowed = _NUMBERS + (_TEXT if role == "targets" else "")
        if array.dtype.kind not in allowed:
            raise UsageError(f"{where} have the dtype {array.dtype}: give numbers")
        if array.ndim == 0:
            raise UsageError(f"{where} are a single number: give an array with one row an example")
        if not len(array):
            raise UsageError(f"{where} have no examples: give at least one")
        if role == "targets" and array.dtype.kind in _TEXT + _WHOLE and array.shape[1:] == (1,):
            # Class numbers are a vector.
            return array.reshape(len(array))
        return array.astype(np.uint8) if array.dtype.kind == "b" else array

    return mapped(leaf, tree)


def _check_lengths(name: str, split: str, trees: Sequence[Tree]) -> None:
    lengths = {
        _place(role, path, split): len(leaf)
        for role, tree in zip(("inputs", "targets", "weights"), trees, strict=True)
        if tree is not None
        for path, leaf in zip(_paths(tree), leaves(tree), strict=True)
    }
    (first, count), *others = lengths.items()
    for other, length in others:
        if length != count:
            raise UsageError(
                f"{name}: {first} are {count:,} and {other} are {length:,}: give equally many"
            )


def _check_alike(name: str, parts: Mapping[str, Sequence[Tree]]) -> None:
    """Checks that all splits have the same inputs, targets and weights."""
    (first, trees), *others = parts.items()
    for split, found in others:
        for role, tree, other in zip(("inputs", "targets", "weights"), trees, found, strict=True):
            # Weights of one split alone are a way to train, and nothing is amiss.
            if role == "weights" and (tree is None or other is None):
                continue
            if _paths(tree) != _paths(other):
                raise UsageError(
                    f"{name}: the {role} of {split} are not named or counted as those of {first}: "
                    "give the same in every split"
                )
            for path, leaf, its in zip(_paths(tree), leaves(tree), leaves(other), strict=True):
                if leaf.shape[1:] != its.shape[1:]:
                    raise UsageError(
                        f"{name}: {_place(role, path, split)} have the shape {its.shape[1:]}, and "
                        f"{_place(role, path, first)} {leaf.shape[1:]}: give one shape"
                    )
                # Bytes are pixels of 0 to 255, and fractions often of 0 to 1; floats are all alike.
                kinds = {leaf.dtype.kind, its.dtype.kind}
                same = leaf.dtype == its.dtype or kinds == {"f"}
                if (kinds & set(_TEXT) and kinds - set(_TEXT)) or (role == "inputs" and not same):
                    raise UsageError(
                        f"{name}: {_place(role, path, split)} have the dtype {its.dtype}, and "
                        f"{_place(role, path, first)} {leaf.dtype}: give one dtype"
                    )


def check_finite(name: str, parts: Mapping[str, Sequence[Tree]]) -> None:
    """Checks that no array holds NaN or infinity, and that weights are not negative.

    Example:
        ```python
        check_finite("data", {"train": (np.array([[np.nan]]), np.array([0]), None)})
        # UsageError: data: the inputs of train hold NaN or infinity in 1 of 1 examples, ...
        ```

    Args:
        name: what messages call the data set.
        parts: trees of arrays by split: inputs, targets and weights; None is passed over.

    Raises:
        UsageError: one does.
    """
    for split, trees in parts.items():
        for role, tree in zip(("inputs", "targets", "weights"), trees, strict=False):
            if tree is None:
                continue
            for path, leaf in zip(_paths(tree), leaves(tree), strict=True):
                _check_numbers(f"{name}: {_place(role, path, split)}", role, leaf)


def _check_numbers(where: str, role: str, leaf: np.ndarray) -> None:
    wrong = np.zeros(0, np.int64)
    negative = 0
    if isinstance(leaf, np.ndarray) and leaf.size and not any(leaf.strides):
        # It stands in for examples that are not in memory.
        return
    for begin in range(0, len(leaf), _ROWS_AT_ONCE):
        part = leaf[begin : begin + _ROWS_AT_ONCE]
        if leaf.dtype.kind == "f":
            bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
            wrong = np.concatenate([wrong, begin + np.flatnonzero(bad)])
        if role == "weights":
            negative += int((part < 0).sum())
    if len(wrong):
        raise UsageError(
            f"{where} hold NaN or infinity in {len(wrong):,} of {len(leaf):,} examples, the first "
            f"in row {wrong[0]:,} from 0: correct them or leave these examples out"
        )
    if negative:
        raise UsageError(f"{where} hold {negative:,} negative numbers: give 0 or more")


def _class_numbers(
    name: str, targets: Mapping[str, list[np.ndarray]], options: ClassOptions
) -> tuple[tuple[str, ...], dict[str, list[np.ndarray]]]:
    """Names of classes, and targets with class numbers instead of names."""
    several = len(next(iter(targets.values()))) > 1
    done: dict[str, list[np.ndarray]] = {split: [] for split in targets}
    classes: tuple[str, ...] = ()
    for place in range(len(next(iter(targets.values())))):
        leaf = {split: found[place] for split, found in targets.items()}
        if several and next(iter(leaf.values())).dtype.kind in _WHOLE:
            # They may be classes or numbers to predict; nothing depends on it here.
            names, numbers = classes, leaf
        else:
            names, numbers = class_numbers(name, leaf, options)
        if not several:
            classes = names
        for split, found in numbers.items():
            done[split].append(found)
    if several and options.names is not None:
        raise UsageError(
            f"{name} has several targets, and {options.where} classes names those of one: leave it "
            "out"
        )
    return classes, done


def class_numbers(
    name: str, targets: Mapping[str, np.ndarray], options: ClassOptions
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of classes, and class numbers int64 (n,) of each split.

    Example:
        >>> class_numbers("data", {"train": np.array(["dog", "cat"])}, ClassOptions())
        (('cat', 'dog'), {'train': array([1, 0])})

    Args:
        name: what messages call the data set.
        targets: by split; texts or integers (n,) or (n, 1) are classes, anything else is not.
        options: what the user says about classes.

    Returns:
        Names; none if the targets are not classes. Then they come back as they are.

    Raises:
        UsageError: a label is outside of the classes, or integers do not count from 0.
    """
    first = next(iter(targets.values()))
    text = first.dtype.kind in _TEXT
    flat = first.ndim == 1 or first.shape[1:] == (1,)
    if text and not flat:
        raise UsageError(f"{name} has texts of the shape {first.shape[1:]}: give one an example")
    if not text and (first.dtype.kind not in _WHOLE or not flat or options.classes is False):
        if options.classes not in (None, False) and flat:
            raise UsageError(
                f"{name} has targets of the dtype {first.dtype}, which are not classes: give "
                f"integers or texts, or leave {options.where} classes out"
            )
        if not text and first.dtype.kind in _WHOLE and flat:
            return (), {split: found.astype(np.float32) for split, found in targets.items()}
        if flat or options.names is None:
            return (), dict(targets)
        for split, found in targets.items():
            _check_named(name, split, found, options.names)
        return options.names, dict(targets)
    if text and options.classes is False:
        raise UsageError(f"{name} has texts as targets, which are not numbers: leave classes out")
    columns = {split: found.reshape(len(found)) for split, found in targets.items()}
    values = {split: np.unique(column) for split, column in columns.items()}
    if text or options.classes is True:
        # Texts, and integers that stand for names.
        order = values.get("train", next(iter(values.values())))
        known = list(options.names) if options.names is not None else [str(v) for v in order]
        place = {label: number for number, label in enumerate(known)}
        for split, found in values.items():
            _check_known(name, split, [str(v) for v in found if str(v) not in place], known)
        numbers = {
            split: np.array([place[str(v)] for v in values[split]], np.int64)[
                np.searchsorted(values[split], column)
            ]
            for split, column in columns.items()
        }
        return tuple(known), numbers
    highest = max(int(found[-1]) for found in values.values())
    lowest = min(int(found[0]) for found in values.values())
    if options.names is not None:
        count = len(options.names)
        for split, found in values.items():
            outside = [int(v) for v in found if not 0 <= v < count]
            _check_known(name, split, outside, [f"0 to {count - 1}"])
        return options.names, {split: c.astype(np.int64) for split, c in columns.items()}
    trained = values.get("train", next(iter(values.values())))
    top = int(trained[-1])
    gap = lowest < 0 or len(trained) < top + 1
    if gap and not (lowest >= 0 and options.allow_missing_classes):
        absent = next((n for n in range(len(trained)) if n not in trained), top)
        raise UsageError(
            f"{name} has integers from {lowest:,} to {highest:,} as targets, which do not count "
            f"classes from 0 ({'none is ' + str(absent) if lowest >= 0 else 'some are negative'}): "
            f"set {options.where} classes = false if they are numbers to predict, classes = true "
            "if they are names of classes"
        )
    for split, found in values.items():
        if split != "train":
            _check_known(name, split, [int(v) for v in found if v > top], [f"0 to {top} in train"])
    known = list(map(str, range(top + 1)))
    return tuple(known), {split: c.astype(np.int64) for split, c in columns.items()}


def _check_named(name: str, split: str, targets: np.ndarray, names: Sequence[str]) -> None:
    """Checks targets that are not one class number an example, whose classes have names."""
    if targets.ndim == 2:
        if targets.shape[1] != len(names):
            raise UsageError(
                f"{name} has {targets.shape[1]} targets an example, and the data option classes "
                f"names {len(names)}: name each"
            )
    # Masks in files have classes of their own.
    elif isinstance(targets, np.ndarray) and targets.dtype.kind in _WHOLE:
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= len(names):
            _check_known(name, split, [low if low < 0 else high], [f"0 to {len(names) - 1}"])


def _check_known(name: str, split: str, outside: Sequence[Any], known: Iterable[str]) -> None:
    if outside:
        raise UsageError(
            f"{name} has labels in {split} that are outside of its classes ({few(outside)}; the "
            f"classes are {few(list(known))}): correct them, or list all in the data option classes"
        )
