"""A finished result is made once; what is under a final name is whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import TfpruneError
from tfprune.pipeline.store import finish, finished, key

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), documents))
def test_a_key_does_not_depend_on_the_order_of_entries(document):
    assert key(document) == key(dict(reversed(document.items())))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), documents), st.integers(), st.integers())
def test_a_changed_value_changes_the_key(document, first, second):
    names = [key({**document, "step": {"epochs": epochs}}) for epochs in (first, second)]
    assert (names[0] == names[1]) == (first == second)


def test_a_finished_result_is_not_made_again(tmp_path):
    made = []

    def make(partial):
        made.append(partial)
        (partial / "file").write_text("content")
        return {"figure": 1}

    folder = tmp_path / "step"
    assert finish(folder, "abc", make) == finish(folder, "abc", make)
    assert len(made) == 1
    assert finished(folder, "abc")
    assert not finished(folder, "other")
    assert (folder / "file").read_text() == "content"


def test_another_identity_replaces_the_result_whole(tmp_path):
    folder = tmp_path / "step"
    finish(folder, "one", lambda partial: (partial / "old").touch() or {})
    finish(folder, "two", lambda partial: (partial / "new").touch() or {})
    assert not (folder / "old").exists()
    assert (folder / "new").exists()


def test_a_failed_attempt_leaves_nothing_under_the_final_name_and_its_work_to_the_next(tmp_path):
    folder = tmp_path / "step"

    def dies(partial):
        (partial / "epoch-1").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish(folder, "abc", dies)
    assert not folder.exists()
    seen = []
    finish(folder, "abc", lambda partial: seen.append((partial / "epoch-1").exists()) or {})
    assert seen == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError, match="cannot be written") as caught:
        finish(tmp_path / "file" / "step", "abc", lambda partial: {})
    assert "\n" not in str(caught.value)
