"""Whether integer files compute what quantization-aware models compute, net by net.

    python -m benchmarks.quantize_aware --output benchmarks/results/quantize_aware.json

Each net is trained for a few epochs on scikit-learn's digits, scaled to the size that it takes,
made quantization-aware and trained on. Then its file and the model answer on all test images: the
file with XNNPACK's kernels, and with TFLite's own, whose integer multipliers are others. Nets that
the file has already are left out when the command runs again at the same commit.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import tfprune
from tfprune import data, zoo
from tfprune.files import read_json, write_json, write_text
from tfprune.formats import load
from tfprune.formats.tflite import quantize
from tfprune.pipeline import provenance

_CLASSES = 10
_FORMATS = {"int8": "tflite-int8", "int16": "tflite-int16x8"}


# Name: side of the images, channels, and options of the net. Others of the zoo take 16x16x1.
_LARGER: dict[str, tuple[int, int, dict[str, Any]]] = {
    "MobileNetV2": (32, 3, {"alpha": 0.35, "weights": "random"}),
    "EfficientNetB0": (32, 3, {"weights": "random"}),
}


def _build(name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> keras.Model:
    model = zoo.build(name, shape, _CLASSES, seed=0, **options)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            # The 0.99 and 0.999 of large nets need more steps than there are here.
            layer.momentum = 0.9
    return model


def _examples(split: data.Split, side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    some = split.sample(len(split))
    images = np.asarray(some.inputs, np.float32)
    times = -(-side // images.shape[1])
    images = images.repeat(times, 1).repeat(times, 2)[:, :side, :side]
    return images.repeat(channels, -1) if images.shape[-1] == 1 else images, some.targets


def without_xnnpack(path: Path, images: np.ndarray) -> np.ndarray:
    """The outputs of an int8 file by TFLite's own kernels.

    Args:
        path: of the file.
        images: float32.
    """
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    ((given,), (gives,)) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    found = []
    # Reshapes of a file may hold its batch.
    for image in quantize(images, given):
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(gives["index"])[0].astype(np.float32))
    scale, zero = gives["quantization"]
    return (np.stack(found) - zero) * scale


def compared(
    name: str, epochs: int, weights: str, activations: str, limit: int | None, folder: Path
) -> dict[str, Any]:
    """Trains one net, and compares its file with it.

    Args:
        name: of the zoo.
        epochs: of the float model; the quantization-aware one trains for one.
        weights: see `tfprune.quantize_aware`.
        activations: see `tfprune.quantize_aware`.
        limit: of the images.
        folder: where the file goes.
    """
    digits = data.load("digits", limit=limit)
    side, channels, options = _LARGER.get(name, (16, 1, {}))
    x, y = _examples(digits.train, side, channels)
    test_x, test_y = _examples(digits.test, side, channels)
    keras.utils.set_random_seed(0)
    model = _build(name, (side, side, channels), options)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    aware = tfprune.quantize_aware(model, x, weights=weights, activations=activations)
    aware.optimizer.learning_rate = 1e-4
    aware.fit(x, y, batch_size=32, verbose=0)
    (artifact,) = tfprune.export(aware, folder, [_FORMATS[activations]], comparison_data=test_x)
    runtime = load(artifact.path)
    of_file = runtime.predict(test_x)
    of_model, of_float = (each.predict(test_x, verbose=0) for each in (aware, model))
    row = {"net": name, "weights": weights, "activations": activations}
    # XNNPACK has no kernels for int16.
    others = {}
    if activations == "int8":
        of_others = without_xnnpack(artifact.path, test_x)
        others = {
            "agreement_without_xnnpack": float(np.mean(of_others.argmax(1) == of_model.argmax(1))),
            "without_xnnpack": float(np.mean(of_others.argmax(1) == test_y)),
        }
    step = runtime.outputs[0].scale
    return {
        **row,
        "images": len(test_x),
        "float": float(np.mean(of_float.argmax(1) == test_y)),
        "aware": float(np.mean(of_model.argmax(1) == test_y)),
        "file": float(np.mean(of_file.argmax(1) == test_y)),
        "agreement": float(np.mean(of_file.argmax(1) == of_model.argmax(1))),
        "largest_difference_steps": round(float(np.abs(of_file - of_model).max() / step), 3),
        **others,
    }


def report(document: dict[str, Any]) -> str:
    """The document as Markdown.

    Args:
        document: as it is in the file.
    """
    table = pd.DataFrame(document["rows"]).round(4)
    return (
        "# Integer files and their quantization-aware models\n\n"
        f"`{document['command']}`, commit {document['commit']}. Nets trained for "
        f"{document['epochs']} epochs on scikit-learn's digits and for one quantization-aware; "
        "weak ones on purpose: close scores show differences. Agreement: the share of test images "
        "of which file and model name the same class. Accuracy: float, of the quantization-aware "
        "model, of the file with XNNPACK, and without it.\n\n"
        f"{table.to_markdown(index=False)}\n"
    )


def main() -> None:
    """Compares the nets that are named, and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", help="all by default")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", default="int8", choices=["int8", "int4"])
    parser.add_argument("--activations", default="int8", choices=list(_FORMATS))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", type=Path, help="a JSON file; a table goes beside it")
    given = parser.parse_args()
    # Before the first write, which would make the tree differ from the commit.
    document: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.quantize_aware", *sys.argv[1:]]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "epochs": given.epochs,
        "limit": given.limit,
        "rows": [],
    }
    if given.output and given.output.exists():
        former = read_json(given.output)
        same = all(former[key] == document[key] for key in ("commit", "epochs", "limit"))
        document = former if same else document
    done = {(row["net"], row["weights"], row["activations"]) for row in document["rows"]}
    for name in given.nets or [*zoo.NAMES, *_LARGER]:
        if (name, given.weights, given.activations) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = compared(
                name, given.epochs, given.weights, given.activations, given.limit, Path(folder)
            )
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        document["rows"].append(row)
        keras.backend.clear_session()
        if given.output:
            write_json(given.output, document)
            write_text(given.output.with_suffix(".md"), report(document))


if __name__ == "__main__":
    main()
