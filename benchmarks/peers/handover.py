"""Hands a trained Keras ResNet over to the peers: its weights, its answers, and the data.

The answers on some test images let a peer prove that it computes the same function before it
prunes anything.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np

import tfprune
from tfprune import data

PROBES = 256


def handed_over(model: keras.Model, dataset: data.Dataset) -> dict[str, np.ndarray]:
    """Arrays by name: `LAYER/WEIGHT` for each weight, and the images, labels and answers."""
    probes = np.asarray(dataset.test.inputs[:PROBES], np.float32)
    weights = {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight)
        for layer in model.layers
        for weight in layer.weights
    }
    normalize = model.get_layer("normalize")
    channels = probes.shape[-1]
    return {
        **weights,
        "normalize/scale": np.broadcast_to(np.float32(normalize.scale), channels),
        "normalize/offset": np.broadcast_to(np.float32(normalize.offset), channels),
        "train_x": np.asarray(dataset.train.inputs, np.uint8),
        "train_y": np.asarray(dataset.train.labels, np.int64),
        "test_x": np.asarray(dataset.test.inputs, np.uint8),
        "test_y": np.asarray(dataset.test.labels, np.int64),
        "probe_logits": np.asarray(model.predict(probes, verbose=0)),
        "macs": np.array(tfprune.macs(model)),
    }


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("into", type=click.Path(path_type=Path))
@click.option("--data", "name", default="cifar10", show_default=True)
@click.option("--data-dir", envvar="TFDS_DATA_DIR")
@click.option("--limit", type=int, help="Images of each split, to try it out.")
def handover(model: Path, into: Path, name: str, data_dir: str | None, limit: int | None) -> None:
    """Write MODEL, a ResNet of the zoo, with its data INTO an .npz file."""
    dataset = data.load(name, data_dir, limit=limit)
    np.savez(into, **handed_over(tfprune.load(model), dataset))
    click.echo(into)


if __name__ == "__main__":
    handover()
