"""What goes wrong, said in one line: what, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_BOLD = re.compile(r"\x1b\[\d*m")
_TRACED = re.compile(r'in user code:|File "|(\w+: )?Exception encountered when calling ')


class TfpruneError(Exception):
    """A failure whose message a user can act on.

    The message is one line that says what is wrong, where, and what to do. Commands print it
    without a traceback and exit with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        # A name in it may hold a line break, or what a terminal takes for a command.
        super().__init__("".join(each if each.isprintable() else " " for each in str(message)))


class UsageError(TfpruneError, ValueError):
    """The caller asked for something that cannot be, such as a target outside 0..1."""

    exit_code = 2


def did_you_mean(word: str, choices: Iterable[str], otherwise: str | None = None) -> str:
    """What to do about a word that is none of `choices`.

    Args:
        word: what was given.
        choices: what there is.
        otherwise: said where none of the choices is near; if not given, all are listed.
    """
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return otherwise or f"choose one of {', '.join(choices)}"


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message that says something, cut to `limit` characters.

    TensorFlow begins with a traceback of its own, and Keras with the layer that was called.
    """
    lines = [_BOLD.sub("", line).strip() for line in str(error).splitlines()]
    said = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line and not _TRACED.match(line) and not before.startswith('File "')
    ]
    line = (said or [line for line in lines if line] or [type(error).__name__])[0]
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
