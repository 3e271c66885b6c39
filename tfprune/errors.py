"""What goes wrong, said in one line: what, where, and what to do."""

from __future__ import annotations


class TfpruneError(Exception):
    """A failure whose message a user can act on.

    The message is one line that says what is wrong, where, and what to do. Commands print it
    without a traceback and exit with `exit_code`.
    """

    exit_code = 1


class UsageError(TfpruneError, ValueError):
    """The caller asked for something that cannot be, such as a target outside 0..1."""

    exit_code = 2
