"""The names that users write, each with one plain sentence: the only list of them.

Types, the help of the command line, the schema of pipeline files and errors derive from these
tables. The module imports nothing heavy, so all of them answer without Keras.

Example:
    ```python
    from tfprune.vocabulary import FORMATS, SCOPES, explained

    FORMATS["tflite-int8"]  # "TFLite with int8 weights and activations"
    explained(SCOPES)  # "layer (each layer), global (all layers together)"
    ```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

FormatName: TypeAlias = Literal[
    "keras",
    "savedmodel",
    "savedmodel-zst",
    "tflite",
    "tflite-float16",
    "tflite-dynamic",
    "tflite-int8",
    "tflite-int16x8",
    "tflite-sparse",
    "c-array",
    "c-array-float",
    "tflite-lut",
    "c-array-lut",
    "tflite-recipe",
    "onnx",
]
FORMATS: dict[FormatName, str] = {
    "keras": "Keras' own file",
    "savedmodel": "TensorFlow's SavedModel, packed with gzip",
    "savedmodel-zst": "TensorFlow's SavedModel, packed with Zstandard",
    "tflite": "TFLite in float32",
    "tflite-float16": "TFLite with float16 weights",
    "tflite-dynamic": "TFLite with int8 weights and float activations",
    "tflite-int8": "TFLite with int8 weights and activations",
    "tflite-int16x8": "TFLite with int8 weights and int16 activations",
    "tflite-sparse": "TFLite in float32 that stores no zeros",
    "c-array": "the int8 TFLite file as a C array, for microcontrollers",
    "c-array-float": "the float32 TFLite file as a C array, for microcontrollers",
    "tflite-lut": "int8 TFLite whose weights are looked up in tables, for TFLite Micro",
    "c-array-lut": "the same as a C array, for microcontrollers",
    "tflite-recipe": "TFLite quantized by a recipe of ai-edge-quantizer, such as int4 weights",
    "onnx": "ONNX in float32",
}

AnyBatch: TypeAlias = Literal["dynamic"]
BATCHES: dict[AnyBatch, str] = {"dynamic": "any number, which is chosen when the file runs"}
"""The words that a batch of TFLite files can be, beside a number of examples."""
Batch: TypeAlias = int | AnyBatch
DEFAULT_BATCH = 1
"""Devices run one example at a time, and LiteRT.js and compilers take no open batch."""
LARGEST_BATCH = 1 << 16

RUNS_ON: dict[FormatName, str] = {
    "keras": "Keras 3",
    "savedmodel": "TensorFlow and TensorFlow Serving, unpacked",
    "savedmodel-zst": "TensorFlow and TensorFlow Serving, unpacked",
    "tflite": "LiteRT, in browsers too; TFLite Micro where a processor computes in floats",
    "tflite-float16": "LiteRT, which computes in float32; not TFLite Micro",
    "tflite-dynamic": "LiteRT; not TFLite Micro",
    "tflite-int8": "LiteRT, TFLite Micro, and NPUs such as Arm's Ethos-U",
    "tflite-int16x8": "LiteRT, TFLite Micro, and NPUs such as Arm's Ethos-U",
    "tflite-sparse": "LiteRT and tfjs-tflite; not TFLite Micro; LiteRT.js warns in the browser's "
    "console, and may give wrong outputs: measure it with the device wasm; faster on ARM, in "
    "WebAssembly and on x86 without AVX only",
    "c-array": "TFLite Micro, compiled into a program",
    "c-array-float": "TFLite Micro where a processor computes in floats, compiled into a program",
    "tflite-lut": "TFLite Micro; not LiteRT",
    "c-array-lut": "TFLite Micro, compiled into a program",
    "tflite-recipe": "LiteRT; elsewhere what knows the types of the recipe",
    "onnx": "ONNX Runtime, and other runtimes that know its operators",
}
"""Where files of a format run and where not: what their cards say."""

DeliveryName: TypeAlias = Literal["server", "phone", "microcontroller"]
DELIVERIES: dict[DeliveryName, tuple[FormatName, ...]] = {
    "server": ("keras", "savedmodel", "tflite"),
    "phone": ("keras", "tflite", "tflite-float16", "tflite-int8"),
    "microcontroller": ("keras", "tflite", "tflite-int8", "c-array"),
}
"""What a new pipeline can be made for, with the formats that it delivers."""

DEVICES: dict[str, str] = {
    "cpu": "this computer",
    "ethos-u55-N": "an NPU of Arm with N = 32, 64, 128 or 256 MACs a cycle, estimated by Vela",
    "ethos-u65-N": "an NPU of Arm with N = 256 or 512 MACs a cycle, estimated by Vela",
    "ethos-u85-N": "an NPU of Arm with N = 128 to 2048 MACs a cycle, estimated by Vela",
    "tflm": "TFLite Micro, the interpreter of microcontrollers",
    "wasm": "WebAssembly in a browser",
    "android": "a phone that adb reaches",
    "command": "any device, by a command of yours that measures a file",
}
"""The devices that figures are measured on."""

EXECUTORS: dict[str, str] = {
    "local": "this process, one task after the other",
    "processes": "several processes on this machine",
    "ray": "a Ray cluster; needs the extra cluster",
}
"""Where the tasks of a run are done."""

Precision: TypeAlias = Literal["float32", "int16"]
PRECISIONS: dict[Precision, str] = {
    "float32": "weights and activations in float32",
    "int16": "int8 weights and int16 activations",
}
"""What single layers of an int8 file can be kept in."""
KEEPING: tuple[FormatName, ...] = ("tflite-int8", "c-array")
"""The formats whose files can keep layers in another precision."""
RECIPE: FormatName = "tflite-recipe"
"""The format that a recipe of ai-edge-quantizer makes."""

RECIPES: dict[str, str] = {
    "dynamic_wi8_afp32": "int8 weights, activations quantized while it runs",
    "dynamic_wi4_afp32": "int4 weights, activations quantized while it runs",
    "dynamic_wi4b32_afp32": "the same with a scale for each block of 32 weights of a dense layer",
    "weight_only_wi8_afp32": "int8 weights, computed in float32",
    "weight_only_wi4_afp32": "int4 weights, computed in float32",
    "static_wi8_ai8": "int8 weights and activations",
    "static_wi8_ai16": "int8 weights and int16 activations",
}
"""The recipes that ai-edge-quantizer has by name."""

Quantization: TypeAlias = Literal["float16", "dynamic", "int8", "int16x8"]
QUANTIZATIONS: dict[Quantization, FormatName] = {
    "float16": "tflite-float16",
    "dynamic": "tflite-dynamic",
    "int8": "tflite-int8",
    "int16x8": "tflite-int16x8",
}
"""The quantizations of TFLite, with the format that each is exported as."""

ImportanceName: TypeAlias = Literal[
    "l1", "l2", "lasso", "bn_gamma", "geometric_median", "taylor", "random"
]
IMPORTANCES: dict[ImportanceName, str] = {
    "l1": "the sum of a filter's absolute weights",
    "l2": "the Euclidean norm of a filter's weights",
    "lasso": "the norm that group lasso shrinks",
    "bn_gamma": "the absolute gamma of the BatchNorm that follows",
    "geometric_median": "the distances to the other filters of the layer",
    "taylor": "the change of the loss without the filter, to first order; needs labelled examples",
    "random": "chance, as a baseline",
}
NEED_DATA: frozenset[ImportanceName] = frozenset({"taylor"})
"""The importances that look at labelled examples."""

CountedTarget: TypeAlias = Literal["filters", "macs", "params", "dead"]
MeasuredTarget: TypeAlias = Literal["latency", "milliseconds", "bytes"]
DeviceTarget: TypeAlias = Literal["cycles", "sram", "flash"]
TargetName: TypeAlias = CountedTarget | MeasuredTarget | DeviceTarget
COUNTED_TARGETS: dict[CountedTarget, str] = {
    "filters": "the share of the filters to keep",
    "macs": "the share of the multiply-accumulates to keep",
    "params": "the share of the parameters to keep",
    "dead": "removes only what contributes nothing",
}
"""The targets of filter pruning that are counted on the model."""
MEASURED_TARGETS: dict[MeasuredTarget, str] = {
    "latency": "the share of the time to keep: TFLite's on this machine, or a device's",
    "milliseconds": "the time of one image: TFLite's on this machine, or a device's",
    "bytes": "the size of the exported file",
}
"""The targets of filter pruning that are measured on exported files."""
DEVICE_TARGETS: dict[DeviceTarget, str] = {
    "cycles": "the share of the device's cycles to keep",
    "sram": "the share of the device's on-chip memory to keep, at its peak; or bytes: 64 KiB",
    "flash": "the share of the device's storage to keep; or bytes: 64 KiB",
}
"""The targets of filter pruning that only a device tells, whose compiler estimates them."""
SIZED_TARGETS: frozenset[TargetName] = frozenset({"sram", "flash"})
"""The targets that are a share, or a number of bytes."""

MeasuredFormat: TypeAlias = Literal["tflite", "tflite-int8"]
"""The formats whose files are measured for a target."""

Scope: TypeAlias = Literal["layer", "global"]
SCOPES: dict[Scope, str] = {
    "layer": "each layer",
    "global": "all layers together",
}

WeightScope: TypeAlias = Literal["layer", "global", "erk"]
WEIGHT_SCOPES: dict[WeightScope, str] = {
    "layer": SCOPES["layer"],
    "global": SCOPES["global"],
    "erk": "each layer at a rate of its own, higher in larger layers",
}
"""The scopes of single weights; the last is Erdős-Rényi-Kernel (Evci et al. 2020)."""

Selection: TypeAlias = Literal["magnitude", "random"]
SELECTIONS: dict[Selection, str] = {
    "magnitude": "the smallest weights",
    "random": "weights drawn by chance",
}

Policy: TypeAlias = Literal["xnnpack"]
POLICIES: dict[Policy, str] = {
    "xnnpack": "1x1 convolutions that XNNPACK runs sparse, on phones and in browsers",
}
"""Which layers are worth pruning for what runs them."""

ClusterScope: TypeAlias = Literal["layer", "channel"]
CLUSTER_SCOPES: dict[ClusterScope, str] = {
    "layer": "one set of values for each layer",
    "channel": "one set of values for each output channel",
}

ClusterStart: TypeAlias = Literal["linear", "density", "k-means++"]
CLUSTER_STARTS: dict[ClusterStart, str] = {
    "linear": "evenly spaced from the smallest weight to the largest",
    "density": "at quantiles of the weights",
    "k-means++": "drawn with the seed",
}
"""Where k-means begins."""

WeightTypeName: TypeAlias = Literal["int8", "int4"]
WEIGHT_TYPES: dict[WeightTypeName, str] = {
    "int8": "255 values a channel",
    "int4": "15 values a channel, stored as bytes",
}
"""How a quantization-aware model rounds its kernels."""

INTEGER_WEIGHTS = {
    "tflite-dynamic",
    "tflite-int8",
    "tflite-int16x8",
    "tflite-lut",
    "c-array",
    "c-array-lut",
    RECIPE,
}
"""The formats that round weights to 8 bits."""

QUANTIZER = "ai_edge_quantizer"
"""The package that writes files whose layers differ in precision; the extra quantizer has it."""

ActivationTypeName: TypeAlias = Literal["int8", "int16"]
ACTIVATION_TYPES: dict[ActivationTypeName, str] = {
    "int8": "256 values of each range",
    "int16": "65,535 values of each range, for tflite-int16x8; needs the extra quantizer",
}
"""How a quantization-aware model rounds what its layers give."""

RangeName: TypeAlias = Literal["moving", "learnt"]
RANGES: dict[RangeName, str] = {
    "moving": "averages of the extremes of training batches",
    "learnt": "trained like weights",
}
"""Where a quantization-aware model has the ranges of its activations from."""

PATTERNS: dict[str, str] = {
    "N:M": "of M consecutive inputs at most N are not zero, such as 2:4",
    "AxB": "blocks of A inputs by B outputs become zero together, such as 1x4",
}


def explained(table: Mapping[Any, str]) -> str:
    """Names with their sentences, for a help text: "layer (each layer), global (...)"."""
    return ", ".join(f"{name} ({sentence})" for name, sentence in table.items())


def read_pattern(text: str) -> str | tuple[int, int]:
    """Reads a pattern as pipelines and the command line write it.

    `read_pattern("2:4")` is "2:4", and `read_pattern("1x4")` is (1, 4): as `PruneWeights` takes
    them.

    Raises:
        ValueError: the text is not a pattern.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})([:x])([1-9]\d{0,3})", text)
    if found:
        first, last = int(found[1]), int(found[3])
        if found[2] == "x":
            return first, last
        if first < last:
            return text
    raise ValueError(f"{text!r} is not a pattern: write N:M such as 2:4, or AxB such as 1x4")
