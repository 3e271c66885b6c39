"""A result in a shared store is made once for all machines; what is not whole is not used."""

from __future__ import annotations

import errno
import functools
import io
import os
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.pipeline.test_executors import _pipeline, _same, net  # noqa: F401
from tests.pipeline.test_jobs_schedule import _job
from tests.searching.small import small
from tfprune.errors import TfpruneError, UsageError
from tfprune.pipeline import working
from tfprune.pipeline.execution import Executor
from tfprune.pipeline.executors import Execution, ProcessWorkers, order_for
from tfprune.pipeline.jobs import Job, plan_jobs
from tfprune.pipeline.runner import exchange, forecast, open_store, run
from tfprune.pipeline.shared import SUFFIX, SharedStore
from tfprune.pipeline.store import Store
from tfprune.report import comparison, read_run
from tfprune.searching import search

fsspec = pytest.importorskip("fsspec", reason="needs the extra cluster")

NAME = f"step/dense/seed-0-abc{SUFFIX}"
CONTENT = bytes(range(256)) * 40


def _made(folder: Path) -> dict[str, int]:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(CONTENT)
    return {"figure": 1}


def _nothing(folder: Path) -> dict[str, int]:
    raise AssertionError("it is made again")


def _finish(run: Path, shared: SharedStore, make=_made, identity: str = "abc"):
    folder = run / "steps" / f"dense-{identity}"
    return Store(run, shared=shared).finish(folder, identity, make, NAME)


@pytest.fixture(params=["path", "file", "memory"])
def shared(request, tmp_path):
    address = {
        "path": f"{tmp_path}/kept",
        "file": f"file://{tmp_path}/kept",
        "memory": f"memory://{tmp_path.name}",
    }[request.param]
    return SharedStore(address, "it")


@pytest.fixture
def kept(tmp_path):
    """A shared store in a folder, and a result in it."""
    found = SharedStore(tmp_path / "kept", "it")
    _finish(tmp_path / "first", found)
    return found


def _object(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "it" / NAME


def test_what_one_machine_made_another_one_fetches(shared, tmp_path):
    shared.check()
    assert shared.names() == {}
    record = _finish(tmp_path / "one", shared)
    assert list(shared.names()) == [NAME]
    assert _finish(tmp_path / "other", shared, _nothing) == record
    folder = tmp_path / "other" / "steps"
    assert (folder / "dense-abc" / "deep" / "weights").read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["dense-abc"]


def test_runs_of_other_names_see_nothing_of_it(kept, tmp_path):
    assert SharedStore(tmp_path / "kept", "other").names() == {}


def test_equal_results_are_equal_objects(kept, tmp_path):
    before = _object(tmp_path).read_bytes()
    kept.put(tmp_path / "first" / "steps" / "dense-abc", NAME)
    assert _object(tmp_path).read_bytes() == before


def test_an_object_has_another_name_where_a_step_before_it_has():
    """Records name the steps before them, and an identity does not."""

    def after(name: str) -> Job:
        first = replace(_job(0, None), name=name, identity="same")
        return replace(_job(1, None), after=first)

    assert after("dense").shared_name != after("base").shared_name
    assert after("dense").shared_name == after("dense").shared_name
    assert replace(after("dense"), kind="latency").shared_name is None


def test_a_killed_put_leaves_no_object(tmp_path, monkeypatch):
    shared = SharedStore(tmp_path / "kept", "it")

    def dies(self, local, remote, **_):
        Path(remote).write_bytes(Path(local).read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fsspec.get_filesystem_class("file"), "put_file", dies)
        with pytest.raises(KeyboardInterrupt):
            _finish(tmp_path / "first", shared)
    assert shared.names() == {}
    # What was made is not made again, and is put now.
    _finish(tmp_path / "first", shared, _nothing)
    assert list(shared.names()) == [NAME]


def test_a_put_that_fails_is_a_warning_and_the_result_stays(tmp_path, monkeypatch):
    shared = SharedStore(tmp_path / "kept", "it")

    def full(self, local, remote, **_):
        Path(remote).write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fsspec.get_filesystem_class("file"), "put_file", full)
    with pytest.warns(UserWarning, match="cannot be written .No space left.*is kept in") as told:
        record = _finish(tmp_path / "first", shared)
    assert len(told) == 1
    assert record["figure"] == 1
    assert [path for path in (tmp_path / "kept").rglob("*") if path.is_file()] == []


def _tar(path: Path, **members: bytes | str) -> None:
    """An archive of files, and of links where a member is a text."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                file.addfile(member)
            else:
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.find(CONTENT[:64]) + 10
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut": _cut,
    "flipped": _flipped,
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"<html>not found</html>"),
    "no record": lambda path: _tar(path, **{"result/weights": CONTENT}),
    "no result": lambda path: _tar(path, **{"other/record.json": b'{"identity": "abc"}'}),
    "another": lambda path: _tar(path, **{"result/record.json": b'{"identity": "other"}'}),
    "no identity": lambda path: _tar(path, **{"result/record.json": b"[]"}),
    "escaping": lambda path: _tar(
        path, **{"result/record.json": b'{"identity": "abc"}', "../../../escaped": b"x"}
    ),
    "link": lambda path: _tar(
        path, **{"result/record.json": b'{"identity": "abc"}', "result/deep": "/etc"}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_object_is_told_in_one_line_and_made_anew(damage, kept, tmp_path):
    damage(_object(tmp_path))
    with pytest.warns(UserWarning, match=f"{NAME} .*: its result is made anew") as told:
        record = _finish(tmp_path / "other", kept)
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    assert record["figure"] == 1
    assert not list(tmp_path.rglob("escaped"))
    # It is whole again.
    assert _finish(tmp_path / "third", kept, _nothing) == record


def test_a_damaged_object_is_told_once_where_a_run_looks_twice(kept, tmp_path):
    _cut(_object(tmp_path))
    store = Store(tmp_path / "other", shared=kept)
    folder = tmp_path / "other" / "steps" / "dense-abc"
    with pytest.warns(UserWarning, match="made anew") as told:
        assert not store.fetch(folder, "abc", NAME)
        store.finish(folder, "abc", _made, NAME)
    assert len(told) == 1


def test_what_a_killed_attempt_left_goes_when_the_result_arrives(kept, tmp_path):
    run = tmp_path / "other"

    def dies(folder: Path) -> dict[str, int]:
        (folder / "epoch-1").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(run).finish(run / "steps" / "dense-abc", "abc", dies)
    _finish(run, kept, _nothing)
    assert [path.name for path in (run / "steps").iterdir()] == ["dense-abc"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere://runs", "Protocol not known: nowhere"),
        ("s3://bucket/runs", "needs a package that is not here .*s3fs"),
        ("ftp://me:secret@host/runs", "holds a password"),
        ("s3:/bucket/runs", "is not an address"),
        ("s3://[bucket", "cannot be|needs a package"),
        ("", "--store is empty"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_line(address, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=said) as caught:
        SharedStore(address, "it")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_disk_that_is_full_leaves_the_object_as_it_is(tmp_path, monkeypatch):
    shared = SharedStore(tmp_path / "shared", "it")
    (folder := tmp_path / "done").mkdir()
    (folder / "model.txt").write_text("whole")
    shared.put(folder, "it.tar.gz")
    (room := tmp_path / "room").mkdir()

    def full(archive, directory):
        error = OSError(errno.ENOSPC, "No space left on device")
        raise TfpruneError(f"{archive} is damaged") from error

    with monkeypatch.context() as patched:
        patched.setattr("tfprune.pipeline.shared.unpack", full)
        with pytest.raises(OSError, match="No space left"):
            shared.get("it.tar.gz", room)
    (again := tmp_path / "again").mkdir()
    assert (shared.get("it.tar.gz", again) / "model.txt").read_text() == "whole"


def test_a_file_system_that_does_not_replace_is_refused_at_the_start(tmp_path, monkeypatch):
    shared = SharedStore(tmp_path / "shared", "it")
    monkeypatch.setattr(shared._files, "mv", lambda one, other: None)
    with pytest.raises(TfpruneError, match="cannot be replaced by a file under another name"):
        shared.check()


def test_a_missing_fsspec_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[cluster\]'"):
        SharedStore(tmp_path, "it")


def test_memory_of_one_process_is_no_store_for_others(tmp_path):
    with pytest.raises(UsageError, match="is memory of this process"):
        open_store(tmp_path / "it", print, "memory://runs", Execution("processes", workers=2))


@pytest.mark.parametrize("execution", [None, Execution("processes", workers=1)])
def test_a_store_that_cannot_be_written_is_refused_before_the_first_training(
    execution, tiny_pipeline, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("keras.Model.fit", None)
    with pytest.raises(TfpruneError, match=r"cannot be written .*give --store") as caught:
        run(
            tiny_pipeline,
            out=tmp_path / "runs",
            store=tmp_path / "file" / "kept",
            execution=execution,
        )
    assert "\n" not in str(caught.value)


def _timeless(directory):
    """What a run tells without what was measured on the machine that asks."""
    return comparison(read_run(directory)).drop(columns="latency_ms")


def test_a_run_elsewhere_makes_nothing_that_the_store_has(
    tiny_run, tiny_pipeline, tmp_path, monkeypatch
):
    asked = functools.partial(run, tiny_pipeline, only=["sparse"], store=tmp_path / "kept")
    shutil.copytree(tiny_run, tmp_path / "first" / "tiny")
    said: list[str] = []
    asked(out=tmp_path / "first", say=said.append)
    # Two steps and the variant, which were finished before there was a store.
    assert [line for line in said if line.startswith("3 finished tasks put into")]
    ahead = forecast(
        tiny_pipeline, out=tmp_path / "second", only=["sparse"], store=tmp_path / "kept"
    )
    assert list(ahead.state) == ["in the store"] * 3 + ["to do"]
    assert (ahead.seconds[:3] == 0).all()
    assert (ahead.bytes[:3] > 0).all()
    assert not (tmp_path / "second").exists()

    monkeypatch.setattr(Executor, "_step", None)
    monkeypatch.setattr(Executor, "_deliver", None)
    said.clear()
    second = asked(out=tmp_path / "second", say=said.append)
    assert [line for line in said if line.startswith("3 finished tasks fetched from")]
    table = _timeless(tiny_run)
    expected = table[table.variant == "sparse"].reset_index(drop=True)
    assert _timeless(second).reset_index(drop=True).equals(expected)
    said.clear()
    asked(out=tmp_path / "second", say=said.append)
    assert said == []


def _order(directory: Path, pipeline, store: Path | None):
    address = None if store is None else SharedStore(store, directory.name).address
    table = pipeline.model_dump(mode="json", exclude={"training", "rounds", "sweep"})
    return order_for(directory, "no-such-session", address, table, None, "images", "commit")


def test_a_worker_without_the_folder_of_the_run_needs_a_store(net, tmp_path, monkeypatch):  # noqa: F811
    directory = tmp_path / "elsewhere" / "spread"
    with pytest.raises(TfpruneError, match="share under the same path, or --store"):
        working._directory(_order(directory, _pipeline(net), None), "here")
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "cache"))
    order = _order(directory, _pipeline(net), tmp_path / "kept")
    own = working._directory(order, "here")
    assert own.is_relative_to(tmp_path / "cache")
    # Its shared store and that of the planning process are the same.
    assert own.name == directory.name
    assert not directory.exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(TfpruneError, match="give TFPRUNE_CACHE_DIR"):
        working._directory(order, "here")


def test_a_worker_with_another_file_of_the_model_refuses_to_work(
    net,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    pipeline = _pipeline(net)
    jobs = plan_jobs(pipeline, tmp_path, "images")
    here = SimpleNamespace(pipeline=pipeline, store=Store(tmp_path))
    monkeypatch.setattr(working, "_executor", lambda order: here)
    order = _order(tmp_path, pipeline, None)
    working._identities.cache_clear()
    for job in jobs:
        working._check_inputs(order, job)
    net.write_text(net.read_text() + "# changed\n")
    working._identities.cache_clear()
    with pytest.raises(TfpruneError, match="has other files of the model") as caught:
        working._check_inputs(order, jobs[0])
    assert "\n" not in str(caught.value)


class _Machines(ProcessWorkers):
    """Each process is a machine: it sees neither the folder of the run nor that of another."""

    room: Path

    def begin(self, place, order, links):
        nowhere = self.room / "not-here"
        moved = replace(order, directory=str(nowhere / "spread"), place=str(nowhere))
        super().begin(place, moved, links)

    def _started(self, slot):
        os.environ["TFPRUNE_CACHE_DIR"] = str(self.room / f"machine-{slot}")
        return super()._started(slot)


@pytest.mark.slow
def test_two_machines_without_a_shared_folder_give_the_files_of_one_process(
    net,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(_Machines, "room", tmp_path, raising=False)
    monkeypatch.setattr(Execution, "start", lambda self: _Machines(self.workers, 0))
    alone = run(_pipeline(net), out=tmp_path / "alone")
    pipeline = _pipeline(net, kills=str(tmp_path / "killed"), spared=os.getpid())
    # What is done already is put into the store, from where workers fetch it.
    first = run(pipeline, out=tmp_path / "runs", only=["dense"], seeds=[0])
    shutil.rmtree(first / "dense")
    said: list[str] = []
    spread = run(
        pipeline,
        out=tmp_path / "runs",
        execution=Execution("processes", workers=2),
        store=tmp_path / "kept",
        say=said.append,
    )
    assert len([line for line in said if line.startswith("done, ")]) == 7
    assert [line for line in said if "its worker is gone" in line]
    _same(alone, spread)
    assert {path.name for path in tmp_path.glob("machine-*")} == {"machine-0", "machine-1"}
    made = [len(list(tmp_path.glob(f"machine-{slot}/**/record.json"))) for slot in (0, 1)]
    # Neither machine has all eight results.
    assert all(0 < count < 8 for count in made)


@pytest.mark.slow
def test_a_worker_whose_put_fails_is_told_and_its_result_is_put_by_the_next_run(
    net,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setenv("TFPRUNE_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(_Machines, "room", tmp_path, raising=False)
    monkeypatch.setattr(Execution, "start", lambda self: _Machines(self.workers, 0))
    asked = functools.partial(
        run,
        _pipeline(net),
        out=tmp_path / "runs",
        only=["dense"],
        seeds=[0],
        execution=Execution("processes", workers=1),
        store=tmp_path / "kept",
    )
    steps = tmp_path / "kept" / "spread" / "step"
    steps.parent.mkdir(parents=True)
    # Where a folder must be.
    steps.touch()
    with (
        pytest.warns(UserWarning, match="cannot be written"),
        pytest.raises(TfpruneError, match=r"is not in file:.*a warning says why"),
    ):
        asked()
    steps.unlink()
    (made,) = tmp_path.glob("machine-0/**/steps/*/model.keras")
    before = made.stat().st_mtime_ns
    asked()
    assert made.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_search_elsewhere_trains_nothing_that_the_store_has(tmp_path, monkeypatch):
    first = search(small(), out=tmp_path / "first", store=tmp_path / "kept")
    monkeypatch.setattr(Executor, "_step", None)
    said: list[str] = []
    second = search(small(), out=tmp_path / "second", store=tmp_path / "kept", say=said.append)
    assert [line for line in said if "expected: the dense model is there" in line]
    assert [each.variant for each in second.tried] == [each.variant for each in first.tried]
    assert second.winner.variant == first.winner.variant


def test_what_only_the_run_has_is_put_and_what_only_the_store_has_is_fetched(kept, tmp_path):
    first = replace(_job(0, None), folder=tmp_path / "run" / "a", identity="a")
    second = replace(_job(1, None), folder=tmp_path / "run" / "b", identity="b")
    third = replace(_job(2, None), folder=tmp_path / "run" / "c", identity="c")
    store = Store(tmp_path / "run", shared=kept)
    Store(tmp_path / "run").finish(first.folder, "a", _made)
    Store(tmp_path / "else").finish(tmp_path / "else" / "b", "b", _made)
    kept.put(tmp_path / "else" / "b", second.shared_name)
    said: list[str] = []
    exchange([first, second, third], store, said.append)
    assert [line.split(" /")[0].split(" file:")[0] for line in said] == [
        "1 finished tasks fetched from",
        "1 finished tasks put into",
    ]
    assert first.shared_name in kept.names()
    assert second.finished
    assert not third.finished
    said.clear()
    exchange([first, second, third], store, said.append)
    assert said == []
