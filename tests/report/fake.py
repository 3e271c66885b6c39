"""Runs that were never run: folders with the records that a report is read from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfprune.files import RECORD, read_json, sha256, write_json

LAYERS = {"conv1": 144, "conv2": 2304, "logits": 320}
FILES = {
    "keras": "model.keras",
    "savedmodel": "model.savedmodel.tar.gz",
    "tflite": "model.tflite",
    "tflite-int8": "model.int8.tflite",
}
TRAIN = {
    "kind": "train",
    "epochs": 4,
    "batch_size": 64,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "weight_decay": 0.001,
    "augment": ["flip"],
}
PRUNE = {
    **TRAIN,
    "kind": "prune",
    "sparsity": 0.8,
    "scope": "layer",
    "begin": 0.0,
    "end": 0.5,
    "warmup_epochs": 0.0,
}
SLIM = {
    "kind": "slim",
    "filters": None,
    "macs": 0.5,
    "params": None,
    "dead": False,
    "importance": "l2",
    "round_to": 1,
}
SPECIFICATIONS = {"dense": TRAIN, "sparse": PRUNE, "slim": SLIM, "finetune": TRAIN}
CHAINS = {
    "dense": ["dense"],
    "sparse": ["dense", "sparse"],
    "slim": ["dense", "slim", "finetune"],
}
SESSION = {
    "command": "tfprune run pipelines/fake.toml",
    "commit": "0123456789ab",
    "versions": {"python": "3.11.7", "keras": "3.15.1"},
    "machine": {"processor": "Abacus", "cores": 2, "memory_gib": 4.0, "system": "Linux x86_64"},
    "seeds": [0],
    "begun": "2026-01-02T03:04:05+00:00",
    "ended": "2026-01-02T03:14:05+00:00",
}


def accuracy(place: int, seed: int) -> float:
    """The dense variant is right on 95%, each further one on half a point less."""
    return 0.95 - 0.005 * place + 0.01 * seed


def fake_run(
    directory: Path,
    chains: Mapping[str, Sequence[str]] = CHAINS,
    *,
    seeds: Sequence[int] = (0,),
    formats: Sequence[str] = ("keras", "tflite"),
    own_formats: Mapping[str, Sequence[str]] | None = None,
    latency: bool = True,
    sessions: Sequence[Mapping[str, Any]] = (SESSION,),
    name: str = "fake",
    data: str = "digits: 100 train, 20 validation, 200 test images",
    figure: Callable[[int, int], float] = accuracy,
    history: Callable[[str, int], Mapping[str, list[float]] | None] | None = None,
    devices: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes a run whose figures follow from the place of a variant and the seed.

    Variants whose chain has a step "slim" have half of everything, those with a step "sparse" a
    fifth of their weights; steps are those of `SPECIFICATIONS`, or any of another name. Devices are
    tables of a pipeline with the key `told`, from (variant, format, seed) to what each tells.
    """
    history = history or _history
    for seed in seeds:
        timed = []
        for place, (variant, steps) in enumerate(chains.items()):
            folder = directory / variant / f"seed-{seed}"
            folder.mkdir(parents=True)
            kept = 0.5 if "slim" in steps else 1.0
            density = 0.2 if "sparse" in steps else 1.0
            _sparsity(folder / "sparsity.csv", kept, density)
            total = round(kept * sum(LAYERS.values()))
            artifacts = []
            for rank, form in enumerate((own_formats or {}).get(variant, formats)):
                path = folder / FILES[form]
                path.write_text(f"{variant} {seed} {form}")
                artifacts.append(
                    {
                        "format": form,
                        "path": path.name,
                        "sha256": sha256(path),
                        "bytes_raw": 4096 * kept,
                        "bytes_gzip": round(4000 * kept * density) - 100 * rank - place,
                        "accuracy": figure(place, seed),
                        "loss": 0.25 + 0.01 * place,
                        "test_images": 200,
                        "test_seconds": 0.5,
                        "parameters": total,
                        "nonzero_parameters": round(total * density),
                    }
                )
                timed.append(
                    {
                        "runtime": path.relative_to(directory).as_posix(),
                        "median_ms": kept / (rank + 1),
                    }
                )
            _record(
                folder,
                {
                    "variant": variant,
                    "seed": seed,
                    "steps": [_step(directory, step, seed, history) for step in steps],
                    "macs": 1_000_000 * kept,
                    "artifacts": artifacts,
                },
            )
        for device in devices:
            title = device.get("label", device["name"])
            measured = [
                {
                    "variant": variant,
                    "format": form,
                    "artifact": f"{variant}/seed-{seed}/{FILES[form]}",
                    "sha256": sha256(directory / variant / f"seed-{seed}" / FILES[form]),
                    "device": title,
                    "estimated": False,
                    "refusal": "",
                    "figures": {},
                    **device["told"](variant, form, seed),
                }
                for variant in chains
                for form in (own_formats or {}).get(variant, formats)
            ]
            place = directory / "devices" / title / f"seed-{seed}"
            _record(place, {"seed": seed, "measured": measured})
        if latency:
            _record(directory / "latency" / f"seed-{seed}", {"latency": timed})
    known = {step: SPECIFICATIONS.get(step, {"kind": step}) for c in chains.values() for step in c}
    (directory / "run.json").write_text(
        json.dumps(
            {
                "name": name,
                "pipeline": {
                    "name": name,
                    "data": {"name": "digits"},
                    "model": {"name": "vgg", "options": {"width": 4}},
                    "steps": known,
                    "variants": {key: list(chain) for key, chain in chains.items()},
                    "devices": [
                        {key: value for key, value in device.items() if key != "told"}
                        for device in devices
                    ],
                },
                "seeds": list(seeds),
                "data": data,
                "sessions": list(sessions),
            }
        )
    )
    return directory


def _record(folder: Path, record: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record))


def _sparsity(path: Path, kept: float, density: float) -> None:
    rows, sums = ["layer,weight,size,zeros,sparsity"], [0, 0]
    for layer, size in LAYERS.items():
        there = round(size * kept)
        zeros = round(there * (1 - density))
        rows.append(f"{layer},kernel,{there},{zeros},{zeros / there}")
        sums = [sums[0] + there, sums[1] + zeros]
    rows.append(f"total,,{sums[0]},{sums[1]},{sums[1] / sums[0]}")
    path.write_text("\n".join(rows) + "\n")


def stop_early(directory: Path, step: str, *, best_epoch: int, seed: int = 0) -> None:
    """Changes the record of a step to that of a training whose best epoch was not the last."""
    (path,) = directory.glob(f"steps/{step}-{seed:012x}/{RECORD}")
    write_json(path, {**read_json(path), "best_epoch": best_epoch})


def _history(step: str, seed: int) -> Mapping[str, list[float]] | None:
    if step == "slim":
        return None
    epochs = range(1, 5)
    said = {
        "epoch": [float(epoch) for epoch in epochs],
        "accuracy": [1 - 0.5 / epoch for epoch in epochs],
        "val_accuracy": [0.95 - 0.4 / epoch + 0.01 * seed for epoch in epochs],
        "loss": [1.0 / epoch for epoch in epochs],
        "val_loss": [1.2 / epoch for epoch in epochs],
    }
    return {**said, "sparsity": [0.2, 0.6, 0.8, 0.8]} if step == "sparse" else said


def _step(directory: Path, step: str, seed: int, history: Callable[..., Any]) -> str:
    name = f"{step}-{seed:012x}"
    specification = SPECIFICATIONS.get(step, {"kind": step, "ratio": 0.5})
    record: dict[str, Any] = {
        "step": step,
        "specification": specification,
        "seed": seed,
        "seconds": 2.0 + seed,
    }
    if said := history(step, seed):
        epochs = len(next(iter(said.values())))
        record |= {"epochs": epochs, "seconds_per_epoch": 0.5, "history": said}
    if step == "slim":
        record |= {
            "removed": {"conv1": 3, "conv2": 4},
            "validation_accuracy": {"before": 0.9, "removed": 0.4, "recalibrated": 0.7},
        }
    _record(directory / "steps" / name, record)
    return name
