"""The vocabulary has one sentence for each name, and names what the library has."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_args

import pytest

from tfprune import slimming, vocabulary
from tfprune.devices import DEVICE_FORMATS
from tfprune.filters.importance import IMPORTANCE
from tfprune.formats import FORMATS
from tfprune.vocabulary import explained, read_pattern
from tfprune.weights.patterns import parse

TABLES = {
    vocabulary.FormatName: vocabulary.FORMATS,
    vocabulary.Quantization: vocabulary.QUANTIZATIONS,
    vocabulary.ImportanceName: vocabulary.IMPORTANCES,
    vocabulary.CountedTarget: vocabulary.COUNTED_TARGETS,
    vocabulary.MeasuredTarget: vocabulary.MEASURED_TARGETS,
    vocabulary.DeviceTarget: vocabulary.DEVICE_TARGETS,
    vocabulary.Scope: vocabulary.SCOPES,
    vocabulary.WeightScope: vocabulary.WEIGHT_SCOPES,
    vocabulary.Selection: vocabulary.SELECTIONS,
}


@pytest.mark.parametrize("literal", TABLES)
def test_every_name_of_a_type_has_its_sentence(literal):
    assert get_args(literal) == tuple(TABLES[literal])


def test_the_library_has_what_is_named():
    assert set(vocabulary.FORMATS) == set(FORMATS)
    assert set(vocabulary.QUANTIZATIONS.values()) <= set(FORMATS)
    assert tuple(vocabulary.IMPORTANCES) == tuple(IMPORTANCE)
    targets = (
        *vocabulary.COUNTED_TARGETS,
        *vocabulary.MEASURED_TARGETS,
        *vocabulary.DEVICE_TARGETS,
    )
    assert set(targets) <= set(inspect.signature(slimming.plan).parameters)
    assert set(DEVICE_FORMATS) <= set(FORMATS)


def test_names_are_explained_in_a_sentence():
    assert explained({"a": "the first", "b": "the last"}) == "a (the first), b (the last)"


@pytest.mark.parametrize(("text", "pattern"), [("2:4", "2:4"), ("1x4", (1, 4)), ("16x1", (16, 1))])
def test_patterns_are_those_of_the_library(text, pattern):
    assert read_pattern(text) == pattern
    assert parse(pattern) is not None


@pytest.mark.parametrize("text", ["", "4:2", "2:2", "0x4", "2/4", "2:4 ", "-1:4", "2:4:8", "1x0"])
def test_what_is_not_a_pattern_is_refused(text):
    with pytest.raises(ValueError, match="is not a pattern: write N:M such as 2:4"):
        read_pattern(text)


def test_it_imports_nothing_heavy():
    code = (
        "import sys, tfprune.vocabulary; "
        "print({'keras', 'numpy', 'pandas', 'pydantic', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
