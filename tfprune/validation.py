"""Reads TOML files, and describes pydantic's errors about them in one line."""

from __future__ import annotations

import codecs
import math
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tfprune.errors import TfpruneError, UsageError, did_you_mean, shorten

_TABLE_EXPECTED = ("model_type", "model_attributes_type", "dict_type")

_MOST_BYTES = 2**20
_DEEPEST = 64


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file, with or without a byte order mark.

    Example:
        ```python
        read_toml(Path("pipelines/digits.toml"))["steps"]
        ```

    Raises:
        TfpruneError: the file cannot be read.
        UsageError: the file is not TOML, or is larger or deeper than files that a person writes.
    """
    try:
        with path.open("rb") as file:
            # A pipe has no size, and a wrong file may have no end.
            text = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TfpruneError(f"{path} cannot be read ({reason}): check the path") from error
    if len(text) > _MOST_BYTES:
        raise UsageError(
            f"{path} has more than {_MOST_BYTES:,} bytes: give a TOML file that a person wrote"
        )
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path} is not valid TOML (it is UTF-16): save it as UTF-8")
    try:
        document = tomllib.loads(text.decode("utf-8-sig"))
    # A number with too many digits is a ValueError, and deep nesting a RecursionError.
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else _one_line(error)
        raise UsageError(f"{path} is not valid TOML ({reason}): correct it there") from error
    if _nests_deeper(document, _DEEPEST):
        raise UsageError(f"{path} nests deeper than {_DEEPEST} tables: correct it there")
    return document


_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}


def read_size(size: Any) -> Any:
    """Bytes of a text such as `30 KiB`; what is not a text is returned as it is.

    Example:
        ```python
        read_size("1.5 MB")  # 1500000.0
        ```

    Raises:
        ValueError: the text is not a size.
    """
    if not isinstance(size, str):
        return size
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", size)
    if not parts:
        raise ValueError(
            f'{size!r} is not a size: give bytes, or text such as "30 KiB" or "1.5 MB"'
        )
    number, unit = parts.groups()
    if unit not in _UNITS:
        # Mistakes in a unit are mostly mistakes in its case.
        near = {known.lower(): known for known in _UNITS}.get(unit.lower(), unit)
        raise ValueError(f"{size!r} has the unknown unit {unit!r}: {did_you_mean(near, _UNITS)}")
    return float(number) * _UNITS[unit]


def read_share_or_size(value: Any) -> float:
    """A share, 0 to 1, or a number of bytes, from a number or a text.

    Example:
        ```python
        read_share_or_size(0.5)  # 0.5, a share
        read_share_or_size("64 KiB")  # 65536.0, bytes
        ```

    Raises:
        ValueError: it is neither.
    """
    given = value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = read_size(value)
            # A byte or less with a unit is no share.
            if isinstance(value, int | float) and value <= 1:
                value = math.nan
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Part of a byte is a share with a wrong point, such as 1.5 for 0.15.
    if not number or not (0 < value <= 1 or (1 < value < math.inf and value == int(value))):
        raise ValueError(
            f"{given!r} is not a share and not a size: give a share in 0..1, whole bytes, or text "
            'such as "64 KiB"'
        )
    return float(value)


def _nests_deeper(document: Any, levels: int) -> bool:
    """Whether tables and lists are nested deeper than a number of levels."""
    layer = [document]
    for _ in range(levels + 1):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(layer)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def describe_error(error: ValidationError, root: type[BaseModel], within: str = "") -> str:
    """Describes the first mistake of a document: its key, what is wrong, and what is allowed.

    Example:
        ```python
        try:
            Training.model_validate({"epochs": 3, "optimiser": "sgd"})
        except pydantic.ValidationError as error:
            describe_error(error, Training)  # "optimiser is unknown: did you mean 'optimizer'?"
        ```

    Args:
        error: the error of `root.model_validate`.
        root: the model of the whole document; misspelt keys are compared with its fields.
        within: the key path of the document inside another one, such as `budget`.

    Returns:
        One line without the name of the file. Entries of a list are counted from 1:
        `rules#2.accuracy.min`.
    """
    # A misspelt key is often also a missing one, so misspellings come first.
    first, *others = sorted(
        error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden"
    )
    description = _describe(dict(first), root, within)
    return description + (f" (and {len(others)} more)" if others else "")


def _describe(first: dict[str, Any], root: type[BaseModel], within: str) -> str:
    kind, location = first["type"], tuple(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    shown, expected = _resolve(root, location)
    where = _joined([within, *shown] if within else shown)
    if kind == "extra_forbidden":
        _, table = _resolve(root, location[:-1])
        return f"{where} is unknown: {did_you_mean(str(location[-1]), _fields(table))}"
    if kind == "missing":
        return f"{where} is missing: add it"
    if kind == "union_tag_not_found":
        key, tags = _tags(expected)
        return f"{where}.{key} is missing: choose one of {', '.join(tags)}"
    if kind == "union_tag_invalid":
        key, tags = _tags(expected)
        tag = str(first["ctx"]["tag"])
        return f"{where}.{key} = {shorten(repr(tag))} is unknown: {did_you_mean(tag, tags)}"
    if kind == "value_error":
        # The validators of tfprune name the keys themselves.
        return f"{where}: {message}" if where else message
    value = shorten(_shown(first["input"]))
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
        return f"{where} = {value} is unknown: {did_you_mean(str(first['input']), choices)}"
    if kind in _TABLE_EXPECTED:
        return f"{where} = {value} is not a table: write {{ key = value }}"
    return f"{where} = {value}: {message}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:
        # Python does not print numbers of more than a few thousand digits.
        return "a number of too many digits"


def _joined(parts: list[str]) -> str:
    """A key path: keys separated by dots, and positions in lists with a number sign."""
    shown = (part if part.startswith("#") else f".{part}" for part in map(shorten, parts))
    return "".join(shown).lstrip(".")


def _resolve(kind: Any, location: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """Finds the type at a location that pydantic reports.

    Returns:
        The parts of the location that are keys of the file, and the type; None if it is unknown.
    """
    shown: list[str] = []
    for part in location:
        if part == "[key]":  # pydantic adds it if the key itself, the part before, is wrong
            continue
        union = _union(kind)
        members = [member for member in union if part in _tag_names(member, kind)]
        if len(union) > 1 and members:
            # Between a value and its keys, pydantic adds the member of the union that it chose.
            kind = members[0]
            continue
        shown.append(f"#{part + 1}" if isinstance(part, int) else str(part))
        kind = _item_type(kind, part)
    return shown, kind


def _strip_annotations(kind: Any) -> Any:
    """A type without `Annotated` and `| None`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    members = _union(kind)
    return _strip_annotations(members[0]) if members and len(members) == 1 else kind


def _union(kind: Any) -> list[Any]:
    """The members of a union without None; empty for any other type."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    return [member for member in get_args(kind) if member is not type(None)]


def _item_type(kind: Any, part: int | str) -> Any:
    kind = _strip_annotations(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        # Pydantic removes the discriminator from the annotation of a field.
        return None if field is None else Annotated[field.annotation, field]
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    return arguments[-1] if get_origin(kind) in (dict, list, tuple) and arguments else None


def _fields(table: Any) -> list[str]:
    table = _strip_annotations(table)
    return list(table.model_fields) if hasattr(table, "model_fields") else []


def _discriminators(kind: Any) -> Iterator[str]:
    while get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        for note in notes:
            if isinstance(note, FieldInfo) and isinstance(note.discriminator, str):
                yield note.discriminator


def _tags(union: Any) -> tuple[str, list[str]]:
    """The key that distinguishes the members of a union, and its possible values."""
    key = next(_discriminators(union), "kind")
    return key, [str(tag) for member in _union(union) for tag in _tag_names(member, union)]


def _tag_names(member: Any, union: Any) -> tuple[Any, ...]:
    """The names of a member of a union in pydantic's locations: its tags, or else its type."""
    bare = _strip_annotations(member)
    for key in _discriminators(union):
        literal = _strip_annotations(bare.model_fields[key].annotation)
        if get_origin(literal) is Literal:
            return get_args(literal)
    return (getattr(bare, "__name__", str(bare)),)
