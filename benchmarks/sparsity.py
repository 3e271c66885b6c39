"""Weight pruning by tfprune and by tfmot's wrapper: accuracy and size at equal sparsity.

One VGG, built alike in Keras 3 and in tf_keras, is trained dense in Keras 3 for each seed. From
these weights both tools prune to each sparsity with the same schedule, optimizer, learning rates,
batches and augmentation, and train on for as many epochs. What was measured is kept row by row, so
that a study that was stopped goes on.

`tfprune, again` is the control: the same training from weights that differ by a millionth. What it
differs by from `tfprune` is what any second training differs by; a difference to tfmot that is not
larger says nothing about the tools.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

import tfprune
from benchmarks.runs import spread
from tfprune import data
from tfprune.files import write_json, write_text
from tfprune.pipeline import provenance
from tfprune.training.schedule import default_frequency, polynomial_decay

AGAIN = "tfprune, again"
TOOLS = {"tfprune": keras, AGAIN: keras, "tfmot": tf_keras}
AUGMENT = ("flip", "crop")


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common.

    Attributes:
        dense: epochs of the dense net.
        epochs: epochs while pruning.
        width: filters of the first block.
        batch: images of a step.
        sparsities: what is pruned to.
        sizes: whether files are written and measured too.
    """

    dense: int
    epochs: int
    width: int
    batch: int
    sparsities: tuple[float, ...]
    sizes: bool = True


def vgg(module: Any, width: int) -> Any:
    """Six convolutions with BatchNorm, in three blocks; takes normalised images, gives logits."""
    layers = module.layers
    stack = [layers.Input((32, 32, 3))]
    for block in range(3):
        for _ in range(2):
            filters = width * 2**block
            stack += [
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                layers.BatchNormalization(momentum=0.9),
                layers.ReLU(),
            ]
        stack.append(layers.MaxPooling2D())
    return module.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def trained(
    module: Any,
    model: Any,
    dataset: data.Dataset,
    seed: int,
    batch: int,
    epochs: int,
    rate: float,
    more: list,
) -> None:
    """Trains a model of either Keras in place."""
    normalised = _normalising(dataset)
    steps = data.steps_per_epoch(dataset.train, batch)
    schedule = module.optimizers.schedules.CosineDecay(rate, epochs * steps)
    model.compile(
        module.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
        module.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        data.batches(dataset.train, batch, seed=seed, epochs=epochs, augment=AUGMENT).map(
            lambda images, labels: (normalised(images), labels)
        ),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=more,
    )


def _normalising(dataset: data.Dataset) -> Callable[[Any], Any]:
    # Outside the model: tfmot's wrapper refuses a Normalization layer.
    mean, deviation = data.statistics(dataset.train)
    return lambda images: (tf.cast(images, tf.float32) - mean) / deviation


def pruned(
    tool: str, model: Any, dataset: data.Dataset, sparsity: float, seed: int, setting: Setting
) -> Any:
    """The model, pruned to a sparsity while it trained on."""
    total = setting.epochs * data.steps_per_epoch(dataset.train, setting.batch)
    frequency = default_frequency(0, total // 2)
    # The end is an update for tfmot as well, which reaches its target only then.
    end = total // 2 // frequency * frequency
    schedule = polynomial_decay(0.0, sparsity, begin=0, end=end, frequency=frequency)
    how = (dataset, seed, setting.batch, setting.epochs, 0.05)
    if TOOLS[tool] is keras:
        trained(keras, model, *how, [tfprune.PruneWeights(schedule)])
        return model
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    step = tfmot.sparsity.keras.UpdatePruningStep()
    trained(tf_keras, wrapped, *how, [step])
    return tfmot.sparsity.keras.strip_pruning(wrapped)


def figures(model: Any, dataset: data.Dataset, sizes: bool) -> dict[str, float]:
    """Test accuracy, zeros and, if asked for, the compressed size of the TFLite file."""
    split, normalised = dataset.test, _normalising(dataset)
    logits = np.concatenate(
        [
            np.asarray(model(normalised(split.inputs[start : start + 1000])))
            for start in range(0, len(split), 1000)
        ]
    )
    kernels = [each for each in model.get_weights() if each.ndim > 1]
    found = {
        "accuracy": float(np.mean(logits.argmax(-1) == split.labels)),
        "sparsity": float(sum((w == 0).sum() for w in kernels) / sum(w.size for w in kernels)),
    }
    if sizes:
        found["tflite_gzip"] = len(gzip.compress(tflite(model), 9, mtime=0))
    return found


def tflite(model: Any) -> bytes:
    """The model as float TFLite."""
    if isinstance(model, keras.Model):
        with tempfile.TemporaryDirectory() as folder:
            return tfprune.export(model, folder, formats=["tflite"])[0].path.read_bytes()
    serve = tf.function(lambda x: model(x, training=False))
    shape = tf.TensorSpec((1, 32, 32, 3), tf.float32)
    concrete = serve.get_concrete_function(shape)
    converted: bytes = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model).convert()
    return converted


def study(dataset: data.Dataset, seeds: list[int], setting: Setting, log: Path) -> None:
    """Writes a line to `log` for each training that it has no line of yet."""
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {(row["tool"], row["seed"], row["target"]) for row in done}
    todo = [(tool, target) for target in setting.sparsities for tool in TOOLS]
    for seed in seeds:
        if {(tool, seed, target) for tool, target in todo} | {("dense", seed, 0.0)} <= known:
            continue
        start = _dense(dataset, seed, setting, log.with_suffix(f".seed-{seed}.weights.h5"))
        rows = [("dense", 0.0), *todo]
        for tool, target in rows:
            if (tool, seed, target) in known:
                continue
            keras.utils.set_random_seed(seed)
            model = vgg(TOOLS.get(tool, keras), setting.width)
            weights = start.get_weights()
            model.set_weights(_moved(weights) if tool == AGAIN else weights)
            if tool == "dense":
                # As many epochs as the pruned ones have.
                trained(keras, model, dataset, seed, setting.batch, setting.epochs, 0.05, [])
            else:
                model = pruned(tool, model, dataset, target, seed, setting)
            row = {
                "tool": tool,
                "seed": seed,
                "target": target,
                **figures(model, dataset, setting.sizes),
            }
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            click.echo(row)


def _moved(weights: list[np.ndarray]) -> list[np.ndarray]:
    """Weights that differ by about a millionth of themselves."""
    rng = np.random.default_rng(1)
    return [(w * (1 + 1e-6 * rng.standard_normal(w.shape))).astype(w.dtype) for w in weights]


def _dense(dataset: data.Dataset, seed: int, setting: Setting, kept: Path) -> keras.Model:
    """The dense net that all start from, trained once."""
    keras.utils.set_random_seed(seed)
    model = vgg(keras, setting.width)
    if kept.exists():
        model.load_weights(kept)
    else:
        trained(keras, model, dataset, seed, setting.batch, setting.dense, 0.1, [])
        model.save_weights(kept)
    return model


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample deviation over seeds, one row for each tool and sparsity."""
    grouped = rows.groupby(["target", "tool"], sort=False)
    measured = [name for name in ("accuracy", "sparsity", "tflite_gzip") if name in rows]
    table = grouped[measured].mean()
    table["accuracy"] = [
        f"{100 * mean:.2f} ± {100 * deviation:.2f}"
        for mean, deviation in zip(
            grouped["accuracy"].mean(), grouped["accuracy"].std(ddof=1), strict=True
        )
    ]
    table["seeds"] = grouped.size()
    tfmot = rows.query("tool == 'tfmot'").set_index(["target", "seed"])["accuracy"]
    for key, group in grouped:
        keys = [tuple(each) for each in group[["target", "seed"]].to_numpy()]
        paired = 100 * (group["accuracy"].to_numpy() - tfmot.reindex(keys).to_numpy())
        if key[1] not in ("dense", "tfmot") and not np.isnan(paired).any():
            table.loc[key, "against tfmot"] = spread(pd.Series(paired))
    return table.reset_index().fillna("")


@click.command()
@click.option("--data-dir", envvar="TFDS_DATA_DIR")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--dense", default=12, show_default=True, help="Epochs of the dense net.")
@click.option("--epochs", default=6, show_default=True, help="Epochs while pruning.")
@click.option("--width", default=16, show_default=True, help="Filters of the first block.")
@click.option("--batch", default=128, show_default=True, help="Images of a step.")
@click.option("--sparsities", default="0.5,0.75,0.9,0.95", show_default=True)
@click.option("--sizes/--no-sizes", default=True, help="Whether files are measured too.")
@click.option("--limit", type=int, help="Images of each split, to try it out.")
@click.option("--log", type=click.Path(path_type=Path), default=Path("sparsity.jsonl"))
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/sparsity")
)
def main(
    data_dir: str | None,
    seeds: str,
    dense: int,
    epochs: int,
    width: int,
    batch: int,
    sparsities: str,
    sizes: bool,
    limit: int | None,
    log: Path,
    output: Path,
) -> None:
    """Compare tfprune's weight pruning with tfmot's on CIFAR-10."""
    dataset = data.load("cifar10", data_dir, limit=limit)
    targets = tuple(float(target) for target in sparsities.split(","))
    setting = Setting(dense, epochs, width, batch, targets, sizes)
    study(dataset, [int(seed) for seed in seeds.split(",")], setting, log)
    rows = pd.DataFrame([json.loads(line) for line in log.read_text().splitlines()])
    document = {
        "command": shlex.join(["python", "-m", "benchmarks.sparsity", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "versions": {**provenance.versions(), "tf_keras": tf_keras.__version__},
        "machine": provenance.machine(),
        "data": dataset.note,
        "setting": asdict(setting),
        "rows": rows.to_dict("records"),
    }
    write_json(output.with_suffix(".json"), document)
    write_text(
        output.with_suffix(".md"),
        "# tfprune and tfmot at equal sparsity\n\n"
        f"VGG of width {width}, {dataset.note}. Dense for {dense} epochs, then {epochs} with "
        f"pruning by the same polynomial schedule over the first half, batches of {batch}; test "
        "accuracy in percent, mean ± sample deviation over seeds; differences, in percentage "
        "points, are of equal seeds; gzip -9 of the float TFLite file. "
        f"`{AGAIN}` is the same training from weights that differ by a millionth: what it differs "
        "by from `tfprune` is what any second training differs by.\n\n"
        f"{summary(rows).to_markdown(index=False, floatfmt='.4g')}\n\n"
        f"`{document['command']}` at {document['commit']}; {document['machine']}\n",
    )


if __name__ == "__main__":
    main()
