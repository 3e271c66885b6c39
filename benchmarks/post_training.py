"""What helps integers without training: `python -m benchmarks.post_training RESNET8.h5`.

The reference ResNet-8 of MLPerf Tiny on CIFAR-10's test images, and two nets of the zoo that are
trained on the digits here, each in int8 and with int4 weights: as it is, equalised, with biases
corrected, both, and with the layer that costs the most in float32.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import tfprune
from tfprune import data, training, zoo
from tfprune.data import Dataset
from tfprune.formats import load
from tfprune.measure import evaluate
from tfprune.report import render

_CALIBRATION, _CHOSEN_ON = 500, 500
_EPOCHS = 15


def main() -> None:
    """Prints a table with one row for each net and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("resnet8", nargs="?", help="the reference model, an .h5 file")
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    given = parser.parse_args()
    digits = data.load("digits")
    keras.utils.set_random_seed(0)
    nets = {}
    for name in ("mobilenetv1", "vgg"):
        net = zoo.build(name, digits.image_shape, len(digits.classes), width=8)
        training.fit(net, digits, training.Training(epochs=_EPOCHS), seed=0)
        nets[f"{name}, width 8, digits"] = net, digits
    if given.resnet8:
        cifar = data.load("cifar10", data_dir=given.data_dir)
        nets["ResNet-8, CIFAR-10"] = (tfprune.load(given.resnet8), cifar)
    rows = [row for title, each in nets.items() for row in _rows(title, *each)]
    print(render(pd.DataFrame(rows)), end="")


def _rows(title: str, model: keras.Model, dataset: Dataset) -> list[dict[str, str]]:
    images = dataset.train.sample(_CALIBRATION).inputs
    chosen_on = dataset.validation.sample(_CHOSEN_ON)
    try:
        even = tfprune.equalize(model)
    except tfprune.UsageError:
        # ReLU6 and sums let no scale pass.
        even = None
    worst = tfprune.precision(model, chosen_on, images)["layer"][0]
    rows = []
    for kind, bits in (("int8", 8), ("int4 weights", 4)):
        ways = {
            "as it is": (model, None),
            "biases corrected": (tfprune.correct_biases(model, images, bits=bits), None),
        }
        if even is not None:
            ways["equalised"] = even, None
            ways["both"] = tfprune.correct_biases(even, images, bits=bits), None
        if bits == 8:
            ways[f"{worst} in float32"] = (model, {worst: "float32"})
        for way, (net, keep) in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                row = {"net": title, "file": kind, "way": way}
                try:
                    path = _exported(net, Path(folder), images, bits, keep)
                except tfprune.TfpruneError as error:
                    row["accuracy"] = "refused"
                    print(f"{row}: {error}", flush=True)
                else:
                    found = evaluate(load(path), dataset.test)
                    row |= {"accuracy": f"{found.value:.2%}", "loss": f"{found.loss:.4f}"}
                    print(row, flush=True)
            rows.append(row)
    whole = evaluate(load(model), dataset.test)
    first = {"net": title, "file": "float32", "way": "as it is"}
    return [
        {**first, "accuracy": f"{whole.value:.2%}", "loss": f"{whole.loss:.4f}"},
        *rows,
    ]


def _exported(
    model: keras.Model,
    folder: Path,
    images: np.ndarray,
    bits: int,
    keep: dict[str, str] | None,
) -> Path:
    if bits == 4:
        (file,) = tfprune.export(
            model, folder, ["tflite-recipe"], images, recipe="weight_only_wi4_afp32", name="net"
        )
    else:
        (file,) = tfprune.export(model, folder, ["tflite-int8"], images, keep=keep, name="net")
    return file.path


if __name__ == "__main__":
    main()
