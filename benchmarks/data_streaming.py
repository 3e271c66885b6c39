"""Training on a folder of images that are read as they are needed: memory, and images a second.

    python -m benchmarks.data_streaming

Memory: the peak of a process that loads a folder with `data.load`, which decodes every file once,
and trains on it with `training.fit`, against the peak of a process that trains the same model on a
few images in memory.

Speed: `model.fit` on `data.batches` against `model.fit` on what Keras offers. For the folder that
is `keras.utils.image_dataset_from_directory`, and for images in memory the arrays themselves. Short
trainings of each in turn, in one process, so that the machine's drift falls on both.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np

from tfprune.files import write_json, write_text
from tfprune.pipeline import provenance

SIDE = 32
CLASSES = 10
MOST_MIB = 400
LEAST_SPEED = 0.98
_FEW = 1024
# Of the other splits, which the measured training hardly reads.
_OTHERS = 500
_MIB = 2**20


def write_folder(root: Path, count: int, suffix: str) -> None:
    """Writes `train/`, `validation/` and `test/` with images of ten classes; no two are alike."""
    import tensorflow as tf

    encode = tf.io.encode_jpeg if suffix == "jpg" else tf.io.encode_png
    rng = np.random.default_rng(0)
    tints = rng.integers(0, 128, (CLASSES, 1, 1, 3))
    for split, images in (("train", count), ("validation", _OTHERS), ("test", _OTHERS)):
        for label in range(CLASSES):
            (root / split / f"{label}").mkdir(parents=True)
        for number in range(images):
            label = number % CLASSES
            noise = rng.integers(0, 128, (SIDE // 4, SIDE // 4, 3))
            pixels = (np.kron(noise, np.ones((4, 4, 1))) + tints[label]).astype(np.uint8)
            place = root / split / f"{label}" / f"{number:06}.{suffix}"
            place.write_bytes(encode(pixels).numpy())


def net() -> Any:
    """A small CNN: the less a step takes, the more reading shows."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for width in (16, 32):
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def peak_bytes() -> int:
    """The most memory that this process has used.

    Linux keeps the peak of the parent in `ru_maxrss` of a child, so the status file is read.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise click.ClickException("the peak of memory is read from /proc, which Linux has")


def train(folder: str, batch: int) -> None:
    """Trains an epoch in this process, and prints the peak of its memory in bytes.

    Args:
        folder: the images; "" for a few images in memory.
        batch: images of a step.
    """
    from tfprune import data, training

    if folder:
        dataset = data.load(folder)
    else:
        rng = np.random.default_rng(0)
        split = data.Arrays(
            rng.integers(0, 256, (_FEW, SIDE, SIDE, 3)).astype(np.uint8),
            np.arange(_FEW) % CLASSES,
        )
        dataset = data.Dataset("few", tuple(map(str, range(CLASSES))), split, split, split, "few")
    settings = training.Training(epochs=1, batch_size=batch)
    training.fit(net(), dataset, settings, seed=0)
    print(len(dataset.train), peak_bytes())


def peak(folder: Path | None, batch: int, cache: Path) -> tuple[int, int]:
    """The images and the peak, in bytes, of a training in a process of its own."""
    code = f"from benchmarks.data_streaming import train; train({str(folder or '')!r}, {batch})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TFPRUNE_CACHE_DIR": str(cache)},
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise click.ClickException(f"the training failed: {done.stderr[-2000:]}")
    images, most = done.stdout.split()[-2:]
    return int(images), int(most)


def alternated(
    ours: Callable[[int], dict[str, Any]],
    theirs: Callable[[int], dict[str, Any]],
    images: int,
    rounds: int,
    epochs: int,
) -> dict[str, Any]:
    """Images a second of short trainings of each in turn; the first of each traces and is left out.

    Args:
        ours: makes what `fit` takes, from the number of the first epoch.
        theirs: likewise.
        images: of an epoch.
        rounds: trainings that are timed.
        epochs: of each training.
    """
    models = (net(), net())
    speeds: tuple[list[float], list[float]] = ([], [])
    # What other processes take of the machine shows less in the time of the processor.
    costs: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        # Who goes first alternates too.
        for player in (0, 1) if number % 2 else (1, 0):
            begun, worked = time.perf_counter(), time.process_time()
            given = (ours, theirs)[player](number * epochs)
            models[player].fit(**given, epochs=epochs, verbose=0)
            if number:
                speeds[player].append(epochs * images / (time.perf_counter() - begun))
                costs[player].append((time.process_time() - worked) / (epochs * images))
    own, other = map(statistics.median, speeds)
    return {
        "images": images,
        "epochs_of_a_turn": epochs,
        "turns": rounds,
        "tfprune_images_a_second": own,
        "keras_images_a_second": other,
        "ratio_of_medians": own / other,
        "tfprune_processor_us_an_image": 1e6 * statistics.median(costs[0]),
        "keras_processor_us_an_image": 1e6 * statistics.median(costs[1]),
        "ratios_by_turn": [mine / its for mine, its in zip(*speeds, strict=True)],
    }


def ours(split: Any, batch: int, epochs: int) -> Callable[[int], dict[str, Any]]:
    """What `training.fit` gives to `fit`: one stream of all epochs."""
    from tfprune import data

    def given(first: int) -> dict[str, Any]:
        batches = data.batches(split, batch, seed=0, first_epoch=first, epochs=first + epochs)
        steps = data.steps_per_epoch(split, batch)
        return {"x": batches, "steps_per_epoch": steps, "shuffle": False}

    return given


def folder_speed(folder: Path, batch: int, rounds: int, epochs: int) -> dict[str, Any]:
    """The folder, by tfprune and by Keras."""
    import keras

    from tfprune import data

    split = data.load(str(folder)).train
    with contextlib.redirect_stdout(sys.stderr):
        theirs = keras.utils.image_dataset_from_directory(
            folder / "train", batch_size=batch, image_size=(SIDE, SIDE), seed=0
        )
    given = {"x": theirs, "shuffle": False}
    return alternated(ours(split, batch, epochs), lambda _: given, len(split), rounds, epochs)


def memory_speed(images: int, batch: int, rounds: int, epochs: int) -> dict[str, Any]:
    """Images in memory, by tfprune and by Keras."""
    from tfprune import data

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (images, SIDE, SIDE, 3)).astype(np.uint8)
    y = np.arange(images) % CLASSES
    split = data.Arrays(x, y)
    given = {"x": x, "y": y, "batch_size": batch}
    return alternated(ours(split, batch, epochs), lambda _: given, images, rounds, epochs)


@click.command()
@click.option("--images", default=100_000, show_default=True, help="Of the train split.")
@click.option("--in-memory", default=50_000, show_default=True, help="Images of the arrays.")
@click.option("--batch", default=128, show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Trainings of each that are timed.")
@click.option("--epochs", default=3, show_default=True, help="Epochs of such a training.")
@click.option("--suffix", type=click.Choice(["jpg", "png"]), default="jpg", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/data_streaming")
)
def main(
    images: int, in_memory: int, batch: int, rounds: int, epochs: int, suffix: str, output: Path
) -> None:
    """Measure memory and speed of training on a folder of images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch, "photos"), Path(scratch, "cache")
        click.echo(f"writes {images:,} images", err=True)
        write_folder(folder, images, suffix)
        few, empty = peak(None, batch, cache)
        trained, full = peak(folder, batch, cache)
        memory = {
            "images": trained,
            "peak_mib": full / _MIB,
            "images_of_the_empty_training": few,
            "empty_peak_mib": empty / _MIB,
            "difference_mib": (full - empty) / _MIB,
            "most_mib": MOST_MIB,
        }
        click.echo(memory, err=True)
        os.environ["TFPRUNE_CACHE_DIR"] = str(cache)
        speed = {"folder": folder_speed(folder, batch, rounds, epochs)}
        click.echo(speed["folder"], err=True)
        speed["in memory"] = memory_speed(in_memory, batch, rounds, epochs)
        click.echo(speed["in memory"], err=True)
    document = {
        "command": f"python -m benchmarks.data_streaming --images {images} --in-memory {in_memory} "
        f"--batch {batch} --rounds {rounds} --epochs {epochs} --suffix {suffix}",
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "memory": memory,
        "speed": speed,
        "least_speed": LEAST_SPEED,
    }
    write_json(output.with_suffix(".json"), document)
    write_text(output.with_suffix(".md"), text(document))


def text(document: dict[str, Any]) -> str:
    """The results in Markdown."""
    memory = document["memory"]
    rows = "\n".join(
        f"| {name} | {each['images']:,} | {each['tfprune_images_a_second']:,.0f} "
        f"| {each['keras_images_a_second']:,.0f} | {each['ratio_of_medians']:.3f} "
        f"| {each['tfprune_processor_us_an_image']:.0f} "
        f"| {each['keras_processor_us_an_image']:.0f} |"
        for name, each in document["speed"].items()
    )
    return (
        "# Streamed data: memory and speed\n\n"
        f"Images of {SIDE}x{SIDE}x3 in a folder; a small CNN. A training on {memory['images']:,} "
        f"images used {memory['peak_mib']:,.0f} MiB at most, and one on "
        f"{memory['images_of_the_empty_training']:,} images in memory "
        f"{memory['empty_peak_mib']:,.0f} MiB: {memory['difference_mib']:,.0f} MiB more (allowed: "
        f"{memory['most_mib']}).\n\n"
        "Images a second, medians of short trainings in turn. Keras reads the folder with "
        "`image_dataset_from_directory`, and the arrays with `fit`. The ratio should be "
        f"{document['least_speed']} or more. The last columns are microseconds of processors for "
        "an image, all cores together.\n\n"
        "| data | images | tfprune | Keras | ratio | tfprune, µs | Keras, µs |\n"
        "|:--|--:|--:|--:|--:|--:|--:|\n"
        f"{rows}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n"
    )


if __name__ == "__main__":
    main()
