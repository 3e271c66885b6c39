from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.pipeline import provenance


@given(st.lists(st.text(min_size=1), max_size=4))
def test_a_command_is_taken_again_by_a_shell(arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["/a folder/tfprune", *arguments])
        assert shlex.split(provenance.command()) == ["tfprune", *arguments]
