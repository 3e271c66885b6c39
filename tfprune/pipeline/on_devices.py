"""Measures what a run delivered on devices: as a job of the run, or later for its report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tfprune.devices import Device
from tfprune.devices.measuring import entries, measure_on
from tfprune.errors import UsageError
from tfprune.files import document_hash, read_json, write_json
from tfprune.pipeline import provenance
from tfprune.pipeline.spec import DeviceSpec
from tfprune.pipeline.store import Store
from tfprune.report.run import DEVICES, RUN, Delivery, device_title, read_run

# Change whenever a measurement would give another result for the same device and files.
REVISION = 1


def identity(device: DeviceSpec, measured: Iterable[Sequence[str]]) -> str:
    """The hash of all that a measurement depends on.

    Args:
        device: where.
        measured: of what: lists that name each artifact, or what it was made from.
    """
    # Without defaults, as for steps; another label is another folder.
    table = device.model_dump(mode="json", exclude_defaults=True, exclude={"optional"})
    # It is measured later, once what it needs is installed.
    without = {"missing": True} if device.optional and device.missing() else {}
    return document_hash(
        {
            "revision": REVISION,
            "device": table,
            "measured": [list(each) for each in measured],
            **without,
        }
    )


def told_by(
    device: Device,
    title: str,
    directory: Path,
    deliveries: Iterable[tuple[Path, dict[str, Any]]],
    seed: int,
) -> dict[str, Any]:
    """The record of what a device tells of the artifacts of a seed, in the formats that it runs.

    Args:
        device: where they are measured.
        title: what tables call it.
        directory: of the run.
        deliveries: the folder and the record of each delivered variant.
        seed: of all of them.

    Raises:
        TfpruneError: the device fails, or a file is missing.
    """
    rows = [
        (record["variant"], each["format"], each["sha256"], folder / each["path"])
        for folder, record in deliveries
        for each in record["artifacts"]
        if each["format"] in device.formats
    ]
    told = entries(measure_on([path for *_, path in rows], [device]))
    measured = [
        {
            **entry,
            "variant": variant,
            "format": form,
            "sha256": sha256,
            "artifact": path.relative_to(directory).as_posix(),
            "device": title,
        }
        for (variant, form, sha256, path), entry in zip(rows, told, strict=True)
    ]
    return {"measured": measured, "seed": seed, "machine": provenance.machine()}


def left_out(missing: str, seed: int) -> dict[str, Any]:
    """The record of an optional device that needs what is not installed.

    Args:
        missing: see `DeviceSpec.missing`.
        seed: of the run.
    """
    return {"measured": [], "missing": missing, "seed": seed, "machine": provenance.machine()}


def measure_run(directory: Path, devices: Sequence[Device]) -> None:
    """Measures a run on devices that its pipeline does not name; its report shows them later.

    Example:
        ```python
        measure_run(Path("saved_models/digits"), [find_device("cpu", threads=2)])
        write_report(Path("saved_models/digits"))
        ```

    What is measured already is not measured again.

    Args:
        directory: of a run.
        devices: where; each is checked before the first one measures.

    Raises:
        UsageError: the pipeline of the run names a device so already, with other options; or what
            a device needs is not installed.
        TfpruneError: a device fails, or the directory cannot be written.
    """
    run = read_run(directory)
    own = {
        device_title(each): DeviceSpec.model_validate(each)
        for each in run.record["pipeline"].get("devices", [])
    }
    later: list[tuple[Device, DeviceSpec]] = []
    for device in devices:
        spec = DeviceSpec.model_validate(device.model_dump(mode="json", exclude_defaults=True))
        if spec.title not in own:
            later.append((device, spec))
        elif spec.find() != own[spec.title].find():
            raise UsageError(
                f"the pipeline of {directory} has a device {spec.title!r} with other options: "
                "change them there"
            )
        device.check()
    store = Store(directory, lambda line: None)
    by_seed: dict[int, list[Delivery]] = {}
    for delivery in run.deliveries:
        by_seed.setdefault(delivery.seed, []).append(delivery)
    for device, spec in later:
        for seed, deliveries in by_seed.items():
            told = [(each.folder, each.record) for each in deliveries]
            files = [
                [record["variant"], each["path"], each["sha256"]]
                for _, record in told
                for each in record["artifacts"]
            ]
            make = partial(_told, device, spec.title, directory, told, seed)
            folder = directory / DEVICES / spec.title / f"seed-{seed}"
            store.finish(folder, identity(spec, files), make)
    with store.lock("run", "waiting for another run to write its record"):
        record = read_json(directory / RUN)
        tables = [spec.model_dump(mode="json", exclude_none=True) for _, spec in later]
        asked = {device_title(each) for each in tables}
        before = record.get("devices", [])
        kept = [each for each in before if device_title(each) not in asked]
        write_json(directory / RUN, {**record, "devices": [*kept, *tables]})


def _told(
    device: Device,
    title: str,
    directory: Path,
    deliveries: Iterable[tuple[Path, dict[str, Any]]],
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    return told_by(device, title, directory, deliveries, seed)
