"""Times the evaluation of a TFLite file against the calls of its interpreter alone.

Three things are timed in turn in one process, on the same random pixels:

- `evaluate`: what `tfprune.measure.evaluate` takes, with everything that belongs to it: making
  interpreters, trying whether the graph takes batches, quantizing, copying, the accuracy;
- `alone`: the sum of `Interpreter.invoke` of every image, one by one, in one thread, with nothing
  else counted;
- `together`: the same with as many threads as `evaluate` uses, each with an interpreter and a share
  of the images of its own: the wall-clock time until the last thread is done, minus what its
  copying to and from the interpreter took. `alone` over `together` is the speed-up that this
  machine really gives to that many threads, which is less than their number where cores share what
  they compute with.

The overhead is `evaluate` over `alone` divided by the number of threads (what a machine with so
many whole cores would allow), and over `alone` divided by the measured speed-up. On a machine that
does other things besides, only the processor's time counts: that of all threads of `evaluate`, over
that of the calls one by one.

    python -m benchmarks.evaluation
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter

import tfprune
from tfprune import zoo
from tfprune.cli import options
from tfprune.files import write_json, write_text
from tfprune.formats import load
from tfprune.formats.tflite import quantize, worker_count
from tfprune.measure import evaluate
from tfprune.pipeline import provenance
from tfprune.vocabulary import Batch

SHAPE = (32, 32, 3)
FORMATS = ("tflite", "tflite-int8")
CLAIM = 1.2


# Of which one call takes some ten microseconds: what Python adds to it shows.
TINY = "tiny"


def exported(name: str, directory: Path, batch: Batch) -> dict[str, Path]:
    """A net of the zoo, or a tiny one, as TFLite files, by format."""
    images = np.random.default_rng(0).integers(0, 256, (50, *SHAPE), dtype=np.uint8)
    if name == TINY:
        layers = [keras.layers.Conv2D(4, 3, strides=2, activation="relu") for _ in range(2)]
        last = [keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input(SHAPE), *layers, *last])
    else:
        model = zoo.build(name, SHAPE, 10)
    artifacts = tfprune.export(model, directory, FORMATS, images, batch=batch)
    return {each.format: each.path for each in artifacts}


def invokes(
    content: bytes, images: np.ndarray, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that the interpreter takes for all images, one by one, copying left out."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    total = 0.0
    for image in images:
        interpreter.set_tensor(details["index"], quantize(image[None], details))
        begun = clock()
        interpreter.invoke()
        total += clock() - begun
    return total


def in_threads(content: bytes, images: np.ndarray, threads: int) -> float:
    """Seconds of the slowest of several threads, each with a share of the images."""
    shares = np.array_split(images, threads)
    with ThreadPoolExecutor(threads) as pool:
        return max(pool.map(lambda share: invokes(content, share), shares))


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call."""
    begun = clock()
    call()
    return clock() - begun


def measured(path: Path, images: np.ndarray, labels: np.ndarray, rounds: int) -> dict[str, Any]:
    """Seconds of each round, and their ratios."""
    content, threads = path.read_bytes(), worker_count()

    def whole() -> Any:
        return evaluate(load(path), (images, labels))

    calls: dict[str, Callable[[], float]] = {
        "evaluate": lambda: timed(whole),
        "alone": lambda: invokes(content, images),
        "together": lambda: in_threads(content, images, threads),
        "evaluate_processor": lambda: timed(whole, time.process_time),
        "alone_processor": lambda: invokes(content, images, time.thread_time),
    }
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(-1, rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            took = calls[name]()
            # The first round warms up.
            if round_ >= 0:
                seconds[name].append(took)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    speedup = median["alone"] / median["together"]
    return {
        "threads": threads,
        "seconds": seconds,
        "median_seconds": median,
        "measured_speedup": speedup,
        "over_invokes_by_threads": median["evaluate"] / (median["alone"] / threads),
        "over_invokes_by_measured_speedup": median["evaluate"] / median["together"],
        "processor_over_invokes": median["evaluate_processor"] / median["alone_processor"],
    }


def report(document: dict[str, Any]) -> str:
    """The result as Markdown."""
    shown = pd.DataFrame(
        {
            "model": each["model"],
            "format": each["format"],
            "evaluate, s": f"{each['median_seconds']['evaluate']:.2f}",
            "invokes one by one, s": f"{each['median_seconds']['alone']:.2f}",
            "threads": each["threads"],
            "speed-up of threads": f"{each['measured_speedup']:.2f}x",
            "over invokes / threads": f"{each['over_invokes_by_threads']:.2f}x",
            "over invokes / speed-up": f"{each['over_invokes_by_measured_speedup']:.2f}x",
            "processor's time": f"{each['processor_over_invokes']:.2f}x",
        }
        for each in document["rows"]
    )
    within = sum(each["over_invokes_by_measured_speedup"] <= CLAIM for each in document["rows"])
    facts = {key: document[key] for key in ("command", "commit", "versions", "machine")}
    columns = ["left", "left", *["right"] * 7]
    return (
        "# Evaluating TFLite files\n\n"
        f"{document['images']:,} images of 32 x 32 x 3, random pixels, median of "
        f"{document['rounds']} rounds in turn. `evaluate` is all of `tfprune.measure.evaluate`, "
        "loading included; the invokes are the interpreter's calls for every image one by one in "
        "one thread, copying left out. Their sum is divided by the number of threads that "
        "`evaluate` uses, and by the speed-up that so many threads really bring here. Processor's "
        "time: that of all threads of `evaluate`, over that of the calls.\n\n"
        f"{within} of {len(shown)} within {CLAIM}x of the invokes at the measured speed-up.\n\n"
        f"{shown.to_markdown(index=False, colalign=columns, disable_numparse=True)}\n\n"
        f"## How this was made\n\n```json\n{json.dumps(facts, indent=2)}\n```\n"
    )


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*zoo.NAMES, TINY]))
@options.batch
@click.option("--images", default=10_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/evaluation")
)
def evaluation(
    names: tuple[str, ...], batch: Batch, images: int, rounds: int, output: Path
) -> None:
    """Time the evaluation of the nets NAMES (vgg, resnet20 and tiny) in every TFLite format."""
    chosen = names or ("vgg", "resnet20", TINY)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, 10, images)
    rows = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for form, path in exported(name, Path(folder), batch).items():
                rows.append({"model": name, "format": form})
                rows[-1].update(measured(path, pixels, labels, rounds))
                click.echo(f"{name} {form}: {rows[-1]['median_seconds']}", err=True)
    document = {
        "command": " ".join(
            [
                "python -m benchmarks.evaluation",
                *names,
                f"--batch {batch} --images {images} --rounds {rounds}",
            ]
        ),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "images": images,
        "rounds": rounds,
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    text = report(document)
    write_text(output.with_suffix(".md"), text)
    click.echo(text)


if __name__ == "__main__":
    evaluation()
