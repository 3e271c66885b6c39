"""The table of reliability is what the tests say."""

from __future__ import annotations

import pytest

from tests import reliability


def test_the_table_is_that_of_the_tests(request: pytest.FixtureRequest) -> None:
    items = request.config.stash[reliability.COLLECTED]
    if not reliability.is_whole(items):
        pytest.skip("only some test modules were collected: run all of them")
    found = reliability.DOCUMENT.read_text(encoding="utf-8")
    assert found == reliability.written(reliability.table(items)), "run `make reliability`"
