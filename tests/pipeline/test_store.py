"""A finished result is made once; what is under a final name is whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfprune.errors import TfpruneError
from tfprune.files import document_hash
from tfprune.pipeline.store import SCRATCH, Store, is_finished

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), documents))
def test_a_key_does_not_depend_on_the_order_of_entries(document):
    assert document_hash(document) == document_hash(dict(reversed(document.items())))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), documents), st.integers(), st.integers())
def test_a_changed_value_changes_the_key(document, first, second):
    names = [document_hash({**document, "step": {"epochs": epochs}}) for epochs in (first, second)]
    assert (names[0] == names[1]) == (first == second)


def test_a_finished_result_is_not_made_again(tmp_path):
    made = []

    def make(partial):
        made.append(partial)
        (partial / "file").write_text("content")
        return {"figure": 1}

    folder = tmp_path / "step"
    assert Store(tmp_path).finish(folder, "abc", make) == Store(tmp_path).finish(
        folder, "abc", make
    )
    assert len(made) == 1
    assert is_finished(folder, "abc")
    assert not is_finished(folder, "other")
    assert (folder / "file").read_text() == "content"


def test_another_identity_replaces_the_result_whole(tmp_path):
    folder = tmp_path / "step"
    Store(tmp_path).finish(folder, "one", lambda partial: (partial / "old").touch() or {})
    Store(tmp_path).finish(folder, "two", lambda partial: (partial / "new").touch() or {})
    assert not (folder / "old").exists()
    assert (folder / "new").exists()


def test_a_failed_attempt_leaves_nothing_under_the_final_name_and_its_work_to_the_next(tmp_path):
    folder = tmp_path / "step"

    def dies(partial):
        (partial / "epoch-1").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).finish(folder, "abc", dies)
    assert not folder.exists()
    seen = []
    Store(tmp_path).finish(
        folder, "abc", lambda partial: seen.append((partial / "epoch-1").exists()) or {}
    )
    assert seen == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "step"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TfpruneError, match="cannot be written") as caught:
        Store(tmp_path / "file").finish(tmp_path / "file" / "step", "abc", lambda partial: {})
    assert "\n" not in str(caught.value)


def test_two_processes_make_a_result_once_and_the_second_waits(tmp_path):
    """The first holds the lock for a while; the second finds what it made."""
    code = """
import sys, time
from pathlib import Path
from tfprune.pipeline.store import Store

def make(partial):
    with Path("made").open("a") as file:
        file.write(sys.argv[1])
    time.sleep(1.0)
    return {"by": sys.argv[1]}

store = Store(Path("run"), say=lambda line: print(line, flush=True))
print(store.finish(Path("run/steps/dense"), "abc", make)["by"], flush=True)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    first = (tmp_path / "made").read_text()
    assert first in ("a", "b")
    assert [lines[-1] for lines in said] == [first, first]
    waited = said[1 if first == "a" else 0]
    assert waited == ["waiting for another run to make steps/dense", first]


def test_a_killed_process_holds_no_lock_and_its_session_is_not_going_on(tmp_path):
    code = """
import time
from pathlib import Path
from tfprune.pipeline.store import Store

store = Store(Path("."))
with store.session(), store.lock("x", ""):
    print("locked", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    store = Store(tmp_path)
    assert len(store.sessions()) == 1
    process.kill()
    process.communicate()
    assert store.sessions() == []
    said = []
    with Store(tmp_path, said.append).lock("x", "waiting"):
        pass
    assert said == []


def test_what_a_step_resumes_from_is_no_part_of_its_result(tmp_path):
    def make(partial):
        (partial / SCRATCH / "deep").mkdir(parents=True)
        (partial / SCRATCH / "deep" / "epoch.npz").write_bytes(b"x")
        (partial / "model.keras").write_bytes(b"model")
        return {}

    Store(tmp_path).finish(tmp_path / "steps" / "it", "one", make)
    assert {path.name for path in (tmp_path / "steps" / "it").iterdir()} == {
        "model.keras",
        "record.json",
    }


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"identity": 3}', "{", "[" * 100_000])
def test_a_damaged_record_is_not_taken_for_a_result_and_not_thrown_away(tmp_path, text):
    folder = tmp_path / "steps" / "it"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(text)
    with pytest.raises(TfpruneError, match=r"record\.json is damaged.*: delete it and run again"):
        Store(tmp_path).finish(folder, "one", lambda partial: {})
    assert (folder / "record.json").read_text() == text
    (folder / "record.json").unlink()
    assert Store(tmp_path).finish(folder, "one", lambda partial: {}) == {"identity": "one"}
