"""Writes a document as TOML, as pipeline files have it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 98


def to_toml(document: Mapping[str, Any], heading: str = "") -> str:
    """A document as TOML: first what has no keys, then one table after the other.

    Example:
        >>> print(to_toml({"name": "a", "steps": {"x-0.5": {"macs": 0.5}}}))
        name = "a"
        <BLANKLINE>
        [steps."x-0.5"]
        macs = 0.5

    Args:
        document: texts, numbers, booleans, lists and dicts of them; None is left out.
        heading: a comment at the top.
    """
    lines = [f"# {line}" for line in textwrap.wrap(heading, _WIDTH - 2)]
    _table(document, (), lines)
    return "\n".join(lines).strip() + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    plain = {key: value for key, value in table.items() if not _is_table(value, path)}
    if path and (plain or not table):
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items() if value is not None]
    for key, value in table.items():
        if key not in plain:
            _table(value, (*path, key), lines)


def _is_table(value: Any, path: tuple[str, ...]) -> bool:
    # Deeper ones, such as the options of a net, stand in one line.
    return isinstance(value, Mapping) and (not path or path == ("steps",))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(
            f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None
        )
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # TOML's strings are those of JSON, but for the one control character that JSON lets pass.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
