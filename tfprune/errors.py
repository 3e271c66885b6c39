"""Errors whose messages are one line: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable

_BOLD = re.compile(r"\x1b\[\d*m")
_TRACED = re.compile(r'in user code:|File "|(\w+: )?Exception encountered when calling ')


class TfpruneError(Exception):
    """A failure that a user can act on.

    Example:
        ```python
        raise TfpruneError(f"{path} is empty: save or copy the model again")
        ```

    The message is one line that says what is wrong, where, and what to do. Commands print it
    without a traceback and exit with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        # A name in the message may contain line breaks or control sequences of terminals.
        super().__init__("".join(char if char.isprintable() else " " for char in str(message)))


class UsageError(TfpruneError, ValueError):
    """An impossible request, such as a target outside 0..1.

    Example:
        ```python
        raise UsageError(f"macs={macs} is not a share to keep: give a number in 0..1")
        ```
    """

    exit_code = 2


class RefusedError(TfpruneError):
    """What came out cannot be used: a training that diverged, a file that does not agree.

    It says nothing of what else is tried, so `tfprune.search` goes on without that trial.

    Example:
        ```python
        raise RefusedError("the loss became nan in epoch 3: lower learning_rate")
        ```
    """


class OpenSizeError(UsageError):
    """Images that vary in size, and no size was asked for."""


def check_package(what: str, package: str, extra: str) -> None:
    """Checks that an optional package is installed.

    Example:
        ```python
        check_package("device tflm", "tflite_micro", "tflm")
        ```

    Args:
        what: needs it, for the message.
        package: as it is imported.
        extra: of tfprune, that installs it.

    Raises:
        UsageError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{what} needs {package}: pip install 'tfprune[{extra}]'")


def did_you_mean(word: str, choices: Iterable[str], otherwise: str | None = None) -> str:
    """Advice for a word that is not one of the choices.

    Example:
        ```python
        did_you_mean("widht", ["blocks", "width"])  # "did you mean 'width'?"
        did_you_mean("zzz", ["blocks", "width"])  # "choose one of blocks, width"
        ```

    Args:
        word: the unknown word.
        choices: the known words.
        otherwise: the advice if no choice is similar; None lists all choices.
    """
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return otherwise or f"choose one of {', '.join(choices)}"


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first informative line of an error's message, cut to `limit` characters.

    Example:
        ```python
        one_line(ValueError("bad shape"))  # "bad shape"
        ```

    It skips the traceback with which TensorFlow begins a message, and the name of the called layer
    with which Keras does.
    """
    lines = [_BOLD.sub("", line).strip() for line in str(error).splitlines()]
    informative = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line and not _TRACED.match(line) and not before.startswith('File "')
    ]
    line = (informative or [line for line in lines if line] or [type(error).__name__])[0]
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def shorten(text: str, limit: int = 60) -> str:
    """Cuts a text, such as a value that a message quotes, to `limit` characters.

    Example:
        ```python
        shorten("x" * 100)  # 57 times "x" and "..."
        ```
    """
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
