"""Splits by name never change; classes get the numbers that users expect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune import UsageError
from tfprune.data.checking import (
    ClassOptions,
    check_classes,
    class_numbers,
    default_shares,
    hash_place,
    hash_split,
)


def test_the_place_of_a_name_is_the_same_for_ever():
    # Other values would move examples from the train split of old results to the test split.
    assert hash_place("cats/1.jpg") == pytest.approx(0.8705236232212309, abs=1e-15)
    assert hash_place("cafe\u0301.jpg") == hash_place("caf\u00e9.jpg")
    assert 0 <= hash_place("\udcff.png") < 1


@settings(max_examples=30, deadline=None)
@given(st.text(), st.floats(0.01, 0.99))
def test_the_test_split_is_the_same_whatever_is_held_out(name, validation):
    before = hash_split(name, default_shares(0.1)) == "test"
    assert (hash_split(name, default_shares(validation)) == "test") == before
    assert hash_split(name, (1, 0, 0)) == "train"
    assert hash_split(name, (0, 0, 3)) == "test"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=3))
def test_names_and_numbers_go_both_ways(labels):
    column = np.array(labels)
    classes, numbers = class_numbers("data", {"train": column}, ClassOptions())
    assert [classes[number] for number in numbers["train"]] == labels
    assert list(classes) == sorted(set(labels))


def test_classes_that_are_missing_are_said_where_they_may_be():
    counts = {"train": np.array([2, 2]), "test": np.array([0, 3])}
    classes = ("cat", "dog")
    with pytest.raises(UsageError, match="no example of class cat in its test split"):
        check_classes("data", counts, classes, ClassOptions())
    for said in (
        check_classes("data", counts, classes, ClassOptions(allow_missing_classes=True)),
        check_classes("data", counts, classes, ClassOptions(), hashed=True),
    ):
        assert said == "the test split has no example of cat"
    with pytest.raises(UsageError, match="in its train split"):
        check_classes("data", {"train": counts["test"]}, classes, ClassOptions(), hashed=True)
