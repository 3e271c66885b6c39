"""The kinds of devices, and how a name is found among them. To add one, write its module here."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import ValidationError

from tfprune.devices.base import Device
from tfprune.errors import UsageError, did_you_mean, one_line
from tfprune.validation import describe_error
from tfprune.vocabulary import DEVICES

# Modules of this package with subclasses of `Device`; those that name a key are kinds.
MODULES = ("cpu", "ethos_u", "tflm", "wasm", "android", "command")


def kinds() -> tuple[type[Device], ...]:
    """The classes of all kinds, in the order of `MODULES`."""
    found = []
    for name in MODULES:
        module = importlib.import_module(f"tfprune.devices.{name}")
        found += [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, Device) and "key" in vars(each)
        ]
    return tuple(found)


def find_kind(name: str) -> type[Device]:
    """The kind of device that a name is of.

    Raises:
        UsageError: it is of none.
    """
    for kind in kinds():
        if kind.takes(name):
            return kind
    raise UsageError(f"device {name!r} is unknown: {did_you_mean(name, DEVICES)}")


def missing(kind: type[Device]) -> str:
    """What a kind of device without required options still needs here; empty where that is nothing.

    Args:
        kind: see `kinds`.

    Returns:
        One line that says how to install it.
    """
    try:
        find_device(kind.one_of()).check()
    # A broken package may raise anything.
    except Exception as error:
        return one_line(error)
    return ""


def find_device(name: str, **options: Any) -> Device:
    """The device of a name.

    Example:
        ```python
        find_device("cpu", threads=4)
        ```

    Args:
        name: a key of `tfprune.vocabulary.DEVICES`, with a number where the key has an N.
        **options: of this kind of device.

    Raises:
        UsageError: the name or an option is unknown, or a value is out of range.
    """
    kind = find_kind(name)
    try:
        return kind.model_validate({"name": name, **options})
    except ValidationError as error:
        raise UsageError(f"device {name}: {describe_error(error, kind)}") from error
