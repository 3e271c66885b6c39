"""A function in a user's file is called with what it names, and what cannot be is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tfprune import TfpruneError, UsageError, functions

SOURCE = """
import math

RATE = 3

def plain(width, depth=2):
    return width, depth

def anything(**options):
    return options

def told(input_shape, classes=None, *, seed=9):
    return input_shape, classes, seed

def nothing():
    return 1

def fails(width):
    return 1 // (width - width)

def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., functions.FileFunction]]:
    """Writes a file of functions, and forgets it afterwards."""

    def write(function: str, source: str = SOURCE) -> functions.FileFunction:
        (tmp_path / "functions_of_mine.py").write_text(source)
        return functions.file_function(f"{tmp_path}/functions_of_mine.py:{function}")

    yield write
    functions.imported_files().pop("functions_of_mine", None)
    sys.modules.pop("functions_of_mine", None)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.py:f", True),
        ("dir/a.py:f", True),
        ("a:b.py:f", True),
        ("a.py", False),
        ("mnist:3.0.1", False),
        ("a.pyc:f", False),
        ("a.py:dir/f", False),
    ],
)
def test_the_form_of_a_name_tells_a_function(name: str, is_one: bool) -> None:
    assert functions.is_file_function(name) is is_one


@pytest.mark.parametrize("name", ["a.py:", "a.py:1f", "a.py:f()", "a.py"])
def test_another_form_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"is not of the form FILE\.py:FUNCTION"):
        functions.file_function(name)


def test_options_come_before_defaults_and_both_before_the_functions_own(written) -> None:
    assert functions.call(written("plain"), {"width": 3}, {"depth": 4, "seed": 1}) == (3, 4)
    assert functions.call(written("plain"), {"width": 3, "depth": 5}, {"depth": 4}) == (3, 5)
    told = {"input_shape": (4,), "classes": 7, "seed": 1}
    assert functions.call(written("told"), {}, told) == ((4,), 7, 1)
    assert functions.call(written("told"), {"seed": 2}, {"input_shape": (4,)}) == ((4,), None, 2)


def test_what_data_tell_is_no_option_of_a_function_that_takes_any(written) -> None:
    assert functions.call(written("anything"), {"a": 1}, {"input_shape": (4,)}) == {"a": 1}


@pytest.mark.parametrize(
    ("function", "options", "message", "kind"),
    [
        ("plain", {}, "needs width: give --option width=", UsageError),
        ("plain", {"widht": 3}, "unknown option 'widht' of .*: did you mean 'width'", UsageError),
        ("nothing", {"a": 3}, "unknown option 'a' of .*: it takes no arguments", UsageError),
        ("plian", {}, "has no function 'plian': did you mean 'plain'", UsageError),
        ("RATE", {}, "has no function, but a value, 'RATE'", UsageError),
        ("fails", {"width": 1}, r"raises ZeroDivisionError \(.*\) in line 19: corr", TfpruneError),
        ("leaves", {}, r"raises SystemExit \(3\) in line 22", TfpruneError),
    ],
)
def test_what_cannot_be_called_is_one_line(written, function, options, message, kind) -> None:
    reference = written(function)
    with pytest.raises(kind, match=message) as error:
        functions.call(reference, options)
    assert type(error.value) is kind
    assert str(reference.file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_changed_is_not_taken_for_what_it_was(written) -> None:
    functions.call(written("nothing"), {})
    with pytest.raises(UsageError, match="it changed since it was imported: start Python again"):
        functions.call(written("nothing", SOURCE.replace("return 1", "return 2")), {})
