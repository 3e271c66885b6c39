"""Counts multiply-accumulates as tfprune does, and as TensorFlow's profiler does, and compares.

The profiler counts floating-point operations of a traced graph: two for each multiply-accumulate of
a matrix product or a convolution. What it counts besides, such as additions, normalisation and
pooling, is not a multiply-accumulate by the convention of the pruning literature and is left out.
Every net of the zoo takes part, and three of `keras.applications`.

    python -m benchmarks.macs
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import keras
import pandas as pd
import tensorflow as tf

import tfprune
from tfprune import zoo
from tfprune.files import write_json, write_text
from tfprune.measure import layer_table
from tfprune.pipeline import provenance
from tfprune.quiet import quiet

# The operations that multiply with a kernel.
PRODUCTS = (
    "MatMul",
    "BatchMatMulV2",
    "Conv2D",
    "Conv2DBackpropInput",
    "Conv3D",
    "DepthwiseConv2dNative",
)
SIZE = 96
ZOO: dict[str, Callable[[], keras.Model]] = {
    name: partial(zoo.build, name, (32, 32, 3), 10) for name in zoo.NAMES
}
APPLICATIONS: dict[str, Callable[[], keras.Model]] = {
    name: partial(getattr(keras.applications, name), weights=None, input_shape=(SIZE, SIZE, 3))
    for name in ("ResNet50", "MobileNetV2", "EfficientNetB0")
}


def profiled_operations(model: keras.Model) -> dict[str, int]:
    """Floating-point operations of one example by type of operation, as the profiler counts them.

    Args:
        model: One with one input of a fixed size.
    """
    (x,) = model.inputs
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((1, *x.shape[1:]), x.dtype)
    )
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    with quiet():
        root = profiler.profile(traced.graph, cmd="op", options=options.with_empty_output().build())
    return dict(_by_type(root))


def _by_type(node: Any) -> Iterator[tuple[str, int]]:
    """Types of operation hang on each other in a chain; a node's total is its rest's too."""
    below = sum(child.total_float_ops for child in node.children)
    if node.total_float_ops > below:
        yield node.name, node.total_float_ops - below
    for child in node.children:
        yield from _by_type(child)


def profiled_macs(model: keras.Model) -> int:
    """Multiply-accumulates of one example by TensorFlow's profiler.

    Args:
        model: One with one input of a fixed size.
    """
    counted = profiled_operations(model)
    return sum(counted.get(name, 0) for name in PRODUCTS) // 2


def row(name: str, model: keras.Model) -> dict[str, Any]:
    """What is counted of one model."""
    operations = profiled_operations(model)
    products = sum(operations.get(each, 0) for each in PRODUCTS)
    table = layer_table(model)
    return {
        "model": name,
        "input": " x ".join(map(str, model.inputs[0].shape[1:])),
        "parameters": model.count_params(),
        "parameters_by_layer": int(table["parameters"].iloc[-1]),
        "macs": tfprune.macs(model),
        "macs_by_layer": int(table["macs"].iloc[:-1].sum()),
        "profiler_macs": products // 2,
        "profiler_other_flops": sum(operations.values()) - products,
    }


def equal(found: dict[str, Any]) -> bool:
    """Whether all who counted agree."""
    work = {found[each] for each in ("macs", "macs_by_layer", "profiler_macs")}
    return len(work) == 1 and found["parameters"] == found["parameters_by_layer"]


def report(document: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = document["rows"]
    shown = pd.DataFrame(
        {
            "model": each["model"],
            "input": each["input"],
            "parameters": f"{each['parameters']:,}",
            "MACs": f"{each['macs']:,}",
            "profiler, operations / 2": f"{each['profiler_macs']:,}",
            "its other operations": f"{each['profiler_other_flops'] / (2 * each['macs']):.2%}",
            "equal": "yes" if equal(each) else "NO",
        }
        for each in rows
    )
    facts = {key: document[key] for key in ("command", "commit", "versions", "machine")}
    columns = ["left", "left", *["right"] * 4, "left"]
    return (
        "# Multiply-accumulates, counted twice\n\n"
        "`tfprune.macs` and `tf.compat.v1.profiler`, whose floating-point operations of "
        f"{', '.join(PRODUCTS)} are halved. Its other operations (additions, normalisation, "
        "pooling) are not multiply-accumulates by convention; their share of its matrix products "
        "and convolutions is listed. Random weights.\n\n"
        f"{sum(map(equal, rows))} of {len(rows)} models are equal, as are the sums over "
        "`layer_table`.\n\n"
        f"{shown.to_markdown(index=False, colalign=columns, disable_numparse=True)}\n\n"
        f"## How this was made\n\n```json\n{json.dumps(facts, indent=2)}\n```\n"
    )


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*ZOO, *APPLICATIONS]))
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/macs"))
def macs(names: tuple[str, ...], output: Path) -> None:
    """Count the MACs of the nets NAMES, or all; exit 1 where tfprune and TensorFlow differ."""
    models = {**ZOO, **APPLICATIONS}
    rows = []
    for name in names or models:
        keras.backend.clear_session()
        rows.append(row(name, models[name]()))
        click.echo(f"{name}: {'equal' if equal(rows[-1]) else 'DIFFERENT'}", err=True)
    document = {
        "command": " ".join(["python -m benchmarks.macs", *names]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    write_text(output.with_suffix(".md"), report(document))
    sys.exit(not all(map(equal, rows)))


if __name__ == "__main__":
    macs()
