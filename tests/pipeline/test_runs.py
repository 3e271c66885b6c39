"""Runs are listed as they are; what something refers to is never freed."""

from __future__ import annotations

import shutil

import pytest

from tfprune.errors import TfpruneError
from tfprune.files import RECORD, read_json, sha256, write_json
from tfprune.pipeline.runner import run
from tfprune.pipeline.runs import collect, list_runs
from tfprune.pipeline.store import Store


@pytest.fixture
def mine(tiny_run, tmp_path):
    """A copy of a finished run, to do with as one likes."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")


def test_a_finished_run_a_stopped_one_and_one_that_goes_on(mine):
    row = list_runs(mine.parent).iloc[0]
    assert (row["run"], row.state, row.done, row.tasks) == ("tiny", "finished", 9, 9)
    assert (row.variants, row.seeds) == (3, 1)
    assert row.begun <= row.ended
    assert row.bytes == sum(path.stat().st_size for path in mine.rglob("*") if path.is_file())
    shutil.rmtree(mine / "dense")
    assert list_runs(mine.parent).iloc[0].state == "stopped"
    with Store(mine).session():
        assert list_runs(mine.parent).iloc[0].state == "running"


def test_a_run_of_another_version_is_listed_and_not_freed(mine):
    record = read_json(mine / "run.json")
    record["pipeline"]["steps"]["dense"]["kind"] = "unheard-of"
    write_json(mine / "run.json", record)
    row = list_runs(mine.parent).iloc[0]
    assert (row.state, row.done, row.tasks) == ("unknown", 0, 0)
    with pytest.raises(TfpruneError) as caught:
        collect(mine, delete=True)
    assert str(caught.value) == (
        f"{mine / 'run.json'} is of another version of tfprune: run its pipeline again"
    )


def test_a_directory_without_runs_has_an_empty_list(tmp_path):
    assert list(list_runs(tmp_path).columns)[:2] == ["run", "state"]
    assert list_runs(tmp_path).empty


def test_nothing_of_a_finished_run_is_garbage(mine):
    assert collect(mine, delete=True) == []


def test_what_nothing_refers_to_goes_and_the_run_stays_finished(mine, tiny_pipeline):
    orphan = shutil.copytree(next((mine / "steps").glob("slim-*")), mine / "steps" / "slim-0000")
    begun = mine / "steps" / ".dense-1111-1111.partial"
    (begun / "scratch").mkdir(parents=True)
    (mine / ".partial-abc").mkdir()
    before = {path: sha256(path) for path in mine.rglob("model*") if orphan not in path.parents}
    only_looked = collect(mine, delete=False)
    assert {each.path for each in only_looked} == {orphan, begun, mine / ".partial-abc"}
    assert orphan.exists()
    freed = collect(mine, delete=True)
    assert sum(each.bytes for each in freed) >= (mine / "steps").stat().st_size
    assert not orphan.exists()
    assert not begun.exists()
    assert {path: sha256(path) for path in mine.rglob("model*")} == before
    said = []
    run(tiny_pipeline, out=mine.parent, say=said.append)
    assert said == []


def test_what_was_begun_for_the_pipeline_is_kept(mine):
    from tfprune.pipeline.jobs import plan_jobs
    from tfprune.pipeline.spec import Pipeline
    from tfprune.pipeline.store import partial

    record = read_json(mine / "run.json")
    pipeline = Pipeline.model_validate(record["pipeline"])
    task = plan_jobs(pipeline, mine, record["data_sha256"])[0]
    begun = partial(task.folder, task.identity)
    shutil.move(task.folder, begun)
    (begun / RECORD).unlink()
    assert begun not in {each.path for each in collect(mine, delete=True)}
    assert begun.exists()


def test_a_run_that_goes_on_is_not_touched(mine):
    (mine / "steps" / "slim-0000").mkdir()
    with Store(mine).session(), pytest.raises(TfpruneError) as caught:
        collect(mine, delete=True)
    assert str(caught.value) == f"{mine} is being run: wait until it ends, then free it"
    assert (mine / "steps" / "slim-0000").exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "steps" / "mine").mkdir(parents=True)
    with pytest.raises(TfpruneError) as caught:
        collect(tmp_path, delete=True)
    assert str(caught.value) == (
        f"{tmp_path} is not a run: give a folder such as saved_models/digits"
    )
    assert (tmp_path / "steps" / "mine").exists()


def test_a_damaged_run_is_listed_with_what_is_wrong_and_hides_no_other(mine):
    other = shutil.copytree(mine, mine.parent / "other")
    for text, said in (
        ("{}", "pipeline is missing"),
        ("[]", "is not a table"),
        ("{", "is damaged"),
    ):
        (other / "run.json").write_text(text)
        table = list_runs(mine.parent).set_index("run")
        assert table.loc["tiny", "state"] == "finished"
        assert table.loc["other", "state"] == "damaged"
        assert said in table.loc["other", "note"]
        with pytest.raises(TfpruneError, match=r"other/run\.json is damaged"):
            collect(other, delete=True)
    (other / "run.json").unlink()
    assert "run.json is missing" in list_runs(mine.parent).set_index("run").loc["other", "note"]
    with pytest.raises(TfpruneError, match=r"run\.json is missing"):
        collect(other, delete=True)


def test_a_record_that_nobody_can_read_frees_nothing(mine):
    (mine / "steps" / "slim-0000").mkdir()
    for path in (mine / "dense/seed-0/record.json", next(mine.glob("steps/dense-*")) / RECORD):
        whole = path.read_text()
        path.write_text("{}")
        if "seed-0" in str(path):
            with pytest.raises(TfpruneError, match=r"record\.json is damaged"):
                collect(mine, delete=True)
        assert list_runs(mine.parent).iloc[0].state == "damaged"
        assert (mine / "steps" / "slim-0000").exists()
        path.write_text(whole)


def test_without_the_hash_of_its_images_nothing_of_a_run_is_garbage(mine):
    record = read_json(mine / "run.json")
    del record["data_sha256"]
    write_json(mine / "run.json", record)
    with pytest.raises(TfpruneError, match="data_sha256 is missing"):
        collect(mine, delete=True)
    assert list_runs(mine.parent).iloc[0].state == "unknown"


def test_one_seed_of_several_is_a_run_that_was_stopped(mine):
    record = read_json(mine / "run.json")
    record["pipeline"]["seeds"] = [0, 1]
    write_json(mine / "run.json", record)
    row = list_runs(mine.parent).iloc[0]
    assert row.state == "stopped"
    assert row.tasks > row.done


def test_steps_of_a_delivery_that_the_pipeline_no_longer_has_stay(mine):
    record = read_json(mine / "run.json")
    del record["pipeline"]["variants"]["both"]
    write_json(mine / "run.json", record)
    assert collect(mine, delete=True) == []
    # With the delivery go its steps: learn, slim, and the second sparse.
    shutil.rmtree(mine / "both")
    assert len(collect(mine, delete=False)) == 3
