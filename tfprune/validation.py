"""What pydantic found wrong with a file's tables, said in one line."""

from __future__ import annotations

import codecs
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tfprune.errors import TfpruneError, UsageError, did_you_mean

_TABLE_EXPECTED = ("model_type", "model_attributes_type", "dict_type")
# Longer values are cut: one line is for reading.
_SHOWN = 60
_MOST_BYTES = 2**20
_DEEPEST = 64


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file, with or without a byte order mark.

    Raises:
        TfpruneError: it cannot be read.
        UsageError: it is no TOML, or larger or deeper than what people write.
    """
    try:
        with path.open("rb") as file:
            # A pipe says nothing of its size, and a wrong file may have no end.
            text = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise TfpruneError(f"{path} cannot be read ({said}): check the path") from error
    if len(text) > _MOST_BYTES:
        raise UsageError(
            f"{path} has more than {_MOST_BYTES:,} bytes: give a TOML file that a person wrote"
        )
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path} is not valid TOML (it is UTF-16): save it as UTF-8")
    try:
        document = tomllib.loads(text.decode("utf-8-sig"))
    # A number of too many digits is a ValueError, brackets without end exhaust the parser.
    except (ValueError, RecursionError) as error:
        said = "it nests too deeply" if isinstance(error, RecursionError) else _one_line(error)
        raise UsageError(f"{path} is not valid TOML ({said}): correct it there") from error
    if _nests_deeper(document, _DEEPEST):
        raise UsageError(f"{path} nests deeper than {_DEEPEST} tables: correct it there")
    return document


def _nests_deeper(document: Any, levels: int) -> bool:
    """Whether tables and lists lie within each other more than so many times."""
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


def one_line(error: ValidationError, root: type[BaseModel], within: str = "") -> str:
    """The first mistake of a document: its key, what is wrong, and what is allowed there.

    Args:
        error: what `root.model_validate` raised.
        root: the model of the whole document; its fields are what misspelt keys are compared with.
        within: the key path that the document itself lies at, such as `budget`.

    Returns:
        One line without the file's name, such as `steps.dense.epoch is unknown: did you mean
        'epochs'?`. Entries of a list are counted from 1: `rules#2.accuracy.min`.
    """
    # A misspelt key is also a missing one; the misspelling is what to mend.
    first, *others = sorted(
        error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"
    )
    said = _said(dict(first), root, within)
    return said + (f" (and {len(others)} more)" if others else "")


def _said(first: dict[str, Any], root: type[BaseModel], within: str) -> str:
    kind, location = first["type"], tuple(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    shown, here = _followed(root, location)
    where = _joined([within, *shown] if within else shown)
    if kind == "extra_forbidden":
        _, table = _followed(root, location[:-1])
        return f"{where} is unknown: {did_you_mean(str(location[-1]), _fields(table))}"
    if kind == "missing":
        return f"{where} is missing: add it"
    if kind == "union_tag_not_found":
        key, tags = _tags(here)
        return f"{where}.{key} is missing: choose one of {', '.join(tags)}"
    if kind == "union_tag_invalid":
        key, tags = _tags(here)
        tag = str(first["ctx"]["tag"])
        return f"{where}.{key} = {_cut(repr(tag))} is unknown: {did_you_mean(tag, tags)}"
    if kind == "value_error":
        # Our own validators say which keys they mean.
        return f"{where}: {message}" if where else message
    value = _cut(_shown(first["input"]))
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
        return f"{where} = {value} is unknown: {did_you_mean(str(first['input']), choices)}"
    if kind in _TABLE_EXPECTED:
        return f"{where} = {value} is no table: write {{ key = value }}"
    return f"{where} = {value}: {message}"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:
        # Python writes no number of more than some thousand digits.
        return "a number of too many digits"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _joined(parts: list[str]) -> str:
    """Key paths with dots, places in lists with a number sign."""
    shown = (part if part.startswith("#") else f".{part}" for part in map(_cut, parts))
    return "".join(shown).lstrip(".")


def _followed(kind: Any, location: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """Walks from a model to the type at a location of pydantic's.

    Returns:
        The parts of the location that the file has too, and the type; None where it is unknown.
    """
    shown: list[str] = []
    for part in location:
        if part == "[key]":  # pydantic's word for "the key itself", which stands before it
            continue
        union = _union(kind)
        if len(union) > 1 and (chosen := [each for each in union if part in _names(each, kind)]):
            # Between a value and its keys pydantic puts which member of a union it chose.
            kind = chosen[0]
            continue
        shown.append(f"#{part + 1}" if isinstance(part, int) else str(part))
        kind = _inside(kind, part)
    return shown, kind


def _bare(kind: Any) -> Any:
    """A type without what `Annotated` and `| None` add."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    members = _union(kind)
    return _bare(members[0]) if members and len(members) == 1 else kind


def _union(kind: Any) -> list[Any]:
    """The members of a union, None left out; empty for any other type."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    return [each for each in get_args(kind) if each is not type(None)]


def _inside(kind: Any, part: int | str) -> Any:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        # Pydantic takes a field's discriminator out of its annotation.
        return None if field is None else Annotated[field.annotation, field]
    arguments = [each for each in get_args(kind) if each is not Ellipsis]
    return arguments[-1] if get_origin(kind) in (dict, list, tuple) and arguments else None


def _fields(table: Any) -> list[str]:
    table = _bare(table)
    return list(table.model_fields) if hasattr(table, "model_fields") else []


def _discriminators(kind: Any) -> Iterator[str]:
    while get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        for note in notes:
            if isinstance(note, FieldInfo) and isinstance(note.discriminator, str):
                yield note.discriminator


def _tags(union: Any) -> tuple[str, list[str]]:
    """The key that tells the members of a union apart, and what it may be."""
    key = next(_discriminators(union), "kind")
    return key, [str(tag) for each in _union(union) for tag in _names(each, union)]


def _names(member: Any, union: Any) -> tuple[Any, ...]:
    """What pydantic calls a member of a union in a location: its tag, else its type."""
    bare = _bare(member)
    for key in _discriminators(union):
        literal = _bare(bare.model_fields[key].annotation)
        if get_origin(literal) is Literal:
            return get_args(literal)
    return (getattr(bare, "__name__", str(bare)),)
