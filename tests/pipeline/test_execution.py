"""A job does what its step says, with the images that it says."""

from __future__ import annotations

import keras
import pandas as pd
import pytest

from tfprune.errors import TfpruneError
from tfprune.pipeline import Pipeline, execution
from tfprune.pipeline.execution import Executor, _read_model
from tfprune.pipeline.jobs import plan_jobs
from tfprune.pipeline.spec import DataSpec, ModelSpec
from tfprune.pipeline.steps.training import kept_model
from tfprune.pipeline.store import Store


@pytest.mark.parametrize(
    ("ends", "images"),
    [
        ({"kind": "quantize", "images": 33}, 33),
        ({"kind": "quantize", "images": 7, "to": "int16x8"}, 7),
        ({"kind": "export", "formats": ["tflite-int8"], "images": 41}, 41),
        ({"kind": "quantize"}, 200),
        (None, 200),
    ],
)
def test_calibration_sees_as_many_training_images_as_the_step_says(
    ends, images, digits, tmp_path, monkeypatch
):
    """All 200 that there are, where the default is more."""
    chain = ["dense", *(["last"] if ends else [])]
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "formats": ["tflite-int8"],
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {"dense": {"kind": "train", "epochs": 1}, **({"last": ends} if ends else {})},
            "variants": {"it": chain},
        }
    )
    seen = {}

    def export(model, folder, formats, *, representative_data, comparison_data, batch):
        assert batch == 1
        seen[tuple(formats)] = representative_data
        # What calibrates a file does not judge it, and test images do neither.
        assert (comparison_data == digits.validation.sample(256).inputs).all()
        return []

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    monkeypatch.setattr(execution, "export", export)
    monkeypatch.setattr(Executor, "_model", lambda self, job: model)
    delivery = next(job for job in plan_jobs(pipeline, tmp_path, "x") if job.kind == "delivery")
    Executor(pipeline, Store(tmp_path), digits, "commit").do(delivery, None, None, tmp_path)
    ((formats, found),) = seen.items()
    assert formats == tuple(pipeline.delivered("it")[1])
    assert len(found) == images
    assert (found == digits.train.sample(images).inputs).all()


def test_the_batch_goes_to_the_formats_that_have_one(digits, tmp_path, monkeypatch):
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "formats": ["keras"],
            "batch": 4,
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {"dense": {"kind": "train", "epochs": 1}, "int8": {"kind": "quantize"}},
            "variants": {"it": ["dense"], "small": ["dense", "int8"]},
        }
    )
    seen = {}

    def export(model, folder, formats, *, batch, **_):
        seen[formats] = batch
        return []

    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    monkeypatch.setattr(execution, "export", export)
    monkeypatch.setattr(Executor, "_model", lambda self, job: model)
    for number, job in enumerate(plan_jobs(pipeline, tmp_path, "x")):
        if job.kind == "delivery":
            (folder := tmp_path / str(number)).mkdir()
            Executor(pipeline, Store(tmp_path), digits, "commit").do(job, None, None, folder)
    assert seen == {("keras",): 1, ("tflite-int8",): 4}


def test_what_only_tflite_micro_runs_is_not_timed(digits, tmp_path, monkeypatch):
    """Its time on this computer says nothing of a device."""
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "formats": ["tflite-int8", "tflite-lut"],
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {"dense": {"kind": "train", "epochs": 1}},
            "variants": {"it": ["dense"]},
        }
    )
    (timing,) = (job for job in plan_jobs(pipeline, tmp_path, "x") if job.kind == "latency")
    artifacts = [
        {"format": form, "path": f"{form}.file", "accuracy": 1.0} for form in pipeline.formats
    ]
    monkeypatch.setattr(execution, "read_record", lambda *_: {"artifacts": artifacts})
    monkeypatch.setattr(execution, "write_run_manifest", lambda *_: None)
    timed = []

    def time_files(files, *_, **__):
        timed.extend(files)
        return pd.DataFrame()

    monkeypatch.setattr(execution, "time_files", time_files)
    Executor(pipeline, Store(tmp_path), digits, "commit")._time(timing)
    assert timed == ["it/seed-0/tflite-int8.file"]


def test_a_model_that_an_earlier_step_left_and_that_is_gone_or_damaged(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(TfpruneError, match=r"model\.keras is missing: delete its folder"):
        _read_model(path)
    path.write_bytes(b"PK")
    with pytest.raises(TfpruneError, match=r"model\.keras is damaged .*: delete its folder"):
        _read_model(path)


def test_the_origin_of_a_chain_is_new_or_what_its_first_training_kept(tmp_path, monkeypatch):
    """Epoch 0 is the initialisation of a seed; later ones lie in the folder of the first step."""
    pipeline = Pipeline.model_validate(
        {
            "name": "it",
            "data": {"name": "digits"},
            "model": {"name": "vgg"},
            "steps": {name: {"kind": "train", "epochs": 2} for name in ("dense", "more")},
            "variants": {"it": ["dense", "more"]},
        }
    )
    first, second, *_ = plan_jobs(pipeline, tmp_path, "x")
    monkeypatch.setattr(execution, "build_model", lambda spec, dataset, seed: ("new", seed))
    monkeypatch.setattr(execution, "_read_model", lambda path: path)
    executor = Executor(pipeline, Store(tmp_path), None, "commit")
    assert executor._origin(second, 0, 7) == ("new", 7)
    assert executor._origin(second, 1, 7) == kept_model(first.folder, 1)


@pytest.mark.parametrize(
    ("shape", "size"), [((6, 4, 3), (6, 4)), ((6, 4), None), ((6, 4, 3, 1), None)]
)
def test_images_of_a_net_with_an_input_shape_get_its_size(shape, size, monkeypatch):
    class AskedError(Exception):
        pass

    def load_data(*_, usual_size, **__):
        raise AskedError(usual_size)

    monkeypatch.setattr(execution, "load_data", load_data)
    spec = ModelSpec(name="vgg", input_shape=shape)
    with pytest.raises(AskedError) as asked:
        execution.model_with_data(spec, DataSpec(name="photos"))
    assert asked.value.args == (size,)
