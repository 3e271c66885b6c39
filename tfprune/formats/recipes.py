"""TFLite files as Google's ai-edge-quantizer writes them: layers of their own precision, recipes.

It quantizes a float32 file, operator by operator. TensorFlow's converter cannot leave single
operators out of an int8 file: of several nets it then wrote files that no interpreter takes.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import TfpruneError, UsageError, check_package, did_you_mean, one_line
from tfprune.files import existing
from tfprune.formats.runtime import Feeds, plain_name
from tfprune.formats.signature import tensor_names
from tfprune.formats.source import Ends
from tfprune.formats.tflite_ranges import computed_floats, cut_off, wider_weights
from tfprune.model.graph import named_layers, path_matches
from tfprune.model.quantized_layers import LEAST_RANGE
from tfprune.quiet import quiet
from tfprune.vocabulary import PRECISIONS, QUANTIZER, RECIPES

# The entries of a recipe: what ai-edge-quantizer reads from JSON.
Recipe = list[dict[str, Any]]
_NOTHING = "no_quantize"
_MIN_MAX = "min_max_uniform_quantize"
_LARGEST_RECIPE = 2**20
# More of an operator's names say nothing new.
_LONGEST_SCOPE = 9_000


def check_keep(model: keras.Model, keep: Mapping[str, str]) -> dict[str, str]:
    """The precision of each layer that is named.

    Example:
        ```python
        check_keep(model, {"logits": "float32", "stem*": "int16"})
        ```

    Args:
        model: whose layers these are.
        keep: names, paths or globs to a name in `tfprune.vocabulary.PRECISIONS`; the first that
            fits a layer counts.

    Returns:
        Paths of layers to precisions.

    Raises:
        UsageError: a name fits no layer, or a precision is unknown.
    """
    layers = named_layers(model)
    found: dict[str, str] = {}
    for pattern, precision in keep.items():
        if precision not in PRECISIONS:
            raise UsageError(
                f"keep: {precision!r} is not a precision: {did_you_mean(precision, PRECISIONS)}"
            )
        fitting = [path for path in layers if path_matches(path, pattern)]
        if not fitting:
            hint = did_you_mean(pattern, layers, "see `tfprune inspect`")
            raise UsageError(f"keep: model {model.name!r} has no layer {pattern!r}: {hint}")
        found.update({path: precision for path in fitting if path not in found})
    return found


def operators_of(content: bytes, model: keras.Model) -> dict[str, list[str]]:
    """The operators of a float32 file that each layer of its model became.

    Example:
        ```python
        operators_of(content, model)  # {"conv": ["net_1/relu_1/Relu;net_1/conv_1/…"], …}
        ```

    A convolution, the BatchNorm behind it and a ReLU are one operator, which then belongs to each
    of the three layers. An operator without the name of a layer belongs to the output that it
    makes, or else to the layers of the operator before it.

    Args:
        content: the file.
        model: that it was converted from.

    Returns:
        Paths of layers to names of operators, both in the order of the file; layers without an
        operator of their own are left out.
    """
    root = schema.Model.GetRootAs(content, 0)
    graph = root.Subgraphs(0)
    known: dict[str, list[str]] = {}
    for path in named_layers(model):
        known.setdefault(plain_name(path.rpartition("/")[2]), []).append(path)
    ends = _output_layers(root, model)
    makers: dict[int, list[str]] = {}
    found: dict[str, list[str]] = {}
    for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
        places = [int(place) for place in operator.OutputsAsNumpy()]
        name = ";".join(graph.Tensors(place).Name().decode(errors="replace") for place in places)
        layers = _named(name, known)
        if not layers:
            read = [int(place) for place in operator.InputsAsNumpy()]
            known_before = [
                *(ends[place] for place in places if place in ends),
                *(makers[place] for place in read if place in makers),
            ]
            layers = known_before[0] if known_before else []
        makers.update(dict.fromkeys(places, layers))
        for layer in layers:
            found.setdefault(layer, []).append(name)
    return found


def _named(name: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The paths of the layers that an operator's name tells, without those of its constants."""
    found: dict[str, None] = {}
    for whole in name.split(";"):
        parts = whole.split("/")
        for depth, part in enumerate(parts[1:], 1):
            paths = known.get(_plain_part(part, known, counted=_is_counted(parts[0])), ())
            within = [path for path in paths if _lies_in(path, parts[:depth])]
            # Outside and in a nested model, layers may have the same name.
            deepest = max((path.count("/") for path in within), default=0)
            fitting = [path for path in within if path.count("/") == deepest]
            found.update(dict.fromkeys(fitting))
            if fitting:
                # What follows is inside the layer: a BatchNorm has an "add_1", too.
                break
    return list(found)


def _plain_part(part: str, known: Mapping[str, Any], *, counted: bool) -> str:
    """The name of a layer in a part of a name, behind which the export may have counted."""
    without = re.sub(r"_\d+$", "", part)
    if part in known and not (counted and without in known):
        return part
    # "conv_1" of "conv"; of a layer "conv_1" it is "conv_1_1", or "conv_1_2" beside "conv".
    return without


def _is_counted(model_part: str) -> bool:
    return re.search(r"_\d+$", model_part) is not None


def _lies_in(path: str, parts: Sequence[str]) -> bool:
    """Whether the nested models of a path are among the parts of a name."""
    outer = path.split("/")[:-1]
    names = {re.sub(r"_\d+$", "", part) for part in parts} | set(parts)
    return all(plain_name(each) in names for each in outer)


def _output_layers(root: Any, model: keras.Model) -> dict[int, list[str]]:
    """The layers that make the outputs of a file, by the number of the tensor."""
    paths = {id(layer): path for path, layer in named_layers(model).items()}
    signature = root.SignatureDefs(0) if root.SignatureDefsLength() else None
    if signature is None:
        return {}
    made = dict(zip(tensor_names(model)[1], model.outputs, strict=True))
    found = {}
    for output in (signature.Outputs(i) for i in range(signature.OutputsLength())):
        tensor = made.get(output.Name().decode())
        if tensor is not None:
            path = paths.get(id(tensor._keras_history.operation))
            if path is not None:
                found[int(output.TensorIndex())] = [path]
    return found


def integer_recipe(
    kept: Mapping[str, str] = {},
    io: Ends = "int8",
    activation_bits: int = 8,
    float_ends: Iterable[str] = (),
) -> Recipe:
    """int8 throughout, but for some operators.

    Args:
        kept: names of operators to their precision.
        io: whether the file takes and gives integers, or float32.
        activation_bits: 8, or 16 for int16 activations with int8 weights.
        float_ends: names of the inputs and outputs that are float32 in any case.
    """
    entries = [_static(".*", activation_bits)]
    if io == "float":
        entries += [_plain(".*", "INPUT"), _plain(".*", "OUTPUT")]
    for name in float_ends:
        entries += [_plain(_exactly(name), "INPUT"), _plain(_exactly(name), "OUTPUT")]
    return entries + [_kept(name, precision) for name, precision in kept.items()]


def alone_recipe(names: Sequence[str]) -> Recipe:
    """Only some operators in int8, all else in float32."""
    return [_static(_exactly(name), 8) for name in names]


def _kept(name: str, precision: str) -> dict[str, Any]:
    return _plain(_exactly(name), "*") if precision == "float32" else _static(_exactly(name), 16)


def _exactly(name: str) -> str:
    # ai-edge-quantizer ends each name with a semicolon.
    return f"^{re.escape(name[:_LONGEST_SCOPE])}{';?$' if len(name) < _LONGEST_SCOPE else ''}"


def _static(regex: str, activation_bits: int) -> dict[str, Any]:
    return {
        "regex": regex,
        "operation": "*",
        "algorithm_key": _MIN_MAX,
        "op_config": {
            "activation_tensor_config": {
                "num_bits": activation_bits,
                # int16 is symmetric in LiteRT's kernels, int8 is not.
                "symmetric": activation_bits == 16,
                "granularity": "TENSORWISE",
                "dtype": "INT",
            },
            "weight_tensor_config": {
                "num_bits": 8,
                "symmetric": True,
                "granularity": "CHANNELWISE",
                "dtype": "INT",
            },
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
            "skip_checks": False,
            "min_weight_elements": 0,
        },
    }


def _plain(regex: str, operation: str) -> dict[str, Any]:
    return {
        "regex": regex,
        "operation": operation,
        "algorithm_key": _NOTHING,
        "op_config": {"compute_precision": "FLOAT"},
    }


def read_recipe(recipe: str | Path | Recipe) -> Recipe:
    """A recipe of ai-edge-quantizer, checked by it.

    Example:
        ```python
        read_recipe("dynamic_wi4_afp32")
        read_recipe("mine.json")
        ```

    Args:
        recipe: a name in `tfprune.vocabulary.RECIPES`, the path of a JSON file, or its content.

    Raises:
        UsageError: there is no such recipe, it is not one, or ai-edge-quantizer is not installed.
    """
    check_package("a recipe", QUANTIZER, "quantizer")
    from ai_edge_quantizer import recipe as named
    from ai_edge_quantizer.recipe_manager import RecipeManager

    if isinstance(recipe, str) and recipe in RECIPES:
        entries = getattr(named, recipe)()
    elif isinstance(recipe, str | Path):
        entries = _from_file(recipe)
    else:
        entries = recipe
    manager = RecipeManager()
    try:
        with quiet():
            manager.load_quantization_recipe(entries)
            manager.need_calibration()
    # Entries of strangers may lack anything.
    except Exception as error:
        raise UsageError(
            f"the recipe {_shown(recipe)} is not one of ai-edge-quantizer "
            f"({type(error).__name__}: {one_line(error)}): give a list of entries with regex, "
            "operation, algorithm_key and op_config"
        ) from error
    return list(entries)


def _shown(recipe: Any) -> str:
    return str(recipe) if isinstance(recipe, str | Path) else "given"


def _from_file(recipe: str | Path) -> Any:
    if not Path(recipe).exists() and Path(recipe).suffix != ".json":
        raise UsageError(
            f"recipe {str(recipe)!r} is unknown: {did_you_mean(str(recipe), RECIPES)}; or give a "
            "JSON file"
        )
    path = existing(recipe)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_RECIPE + 1)
        if len(text) > _LARGEST_RECIPE:
            raise ValueError(f"more than {_LARGEST_RECIPE:,} bytes")
        return json.loads(text)
    # A number with too many digits is a ValueError, and deep nesting a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read as a recipe ({one_line(error)}): give a JSON file"
        ) from error


def needs_calibration(recipe: Recipe) -> bool:
    """Whether a recipe sets ranges of activations from examples."""
    from ai_edge_quantizer.recipe_manager import RecipeManager

    manager = RecipeManager()
    with quiet():
        manager.load_quantization_recipe(recipe)
        return bool(manager.need_calibration())


class FloatFile:
    """A float32 file that is quantized by recipes, calibrated once for all of them.

    Example:
        ```python
        FloatFile(content, examples).quantized(integer_recipe({"net/logits/MatMul": "float32"}))
        ```

    Args:
        content: the file.
        examples: batches by the names of its inputs, which set the ranges of activations; None
            where no recipe needs any, or where `ranges` tells them.
        ranges: of its tensors by their names, in place of what examples would show.
    """

    def __init__(
        self,
        content: bytes,
        examples: Callable[[], Iterator[Feeds]] | None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        check_package("precision of single layers", QUANTIZER, "quantizer")
        self._content = content
        self._examples = examples
        self._ranges: Any = ranges and {
            name: {"min": np.full(1, low, np.float32), "max": np.full(1, high, np.float32)}
            for name, (low, high) in ranges.items()
        }

    def quantized(self, recipe: Recipe) -> bytes:
        """The file as a recipe wants it.

        Raises:
            UsageError: the recipe needs examples, and there are none.
            TfpruneError: ai-edge-quantizer cannot write it.
        """
        from ai_edge_quantizer.quantizer import Quantizer

        calibrates = needs_calibration(recipe)
        if calibrates and self._examples is None and self._ranges is None:
            raise UsageError(
                "the recipe needs representative_data: give some hundred training examples"
            )
        try:
            with quiet(), _quiet_bars():
                quantizer = Quantizer(self._content, recipe)
                ranges = self._ranges if calibrates else None
                if self._examples is not None and calibrates:
                    ranges = self._calibrated(quantizer, recipe, self._examples)
                content = self._written(quantizer, ranges)
                if ranges is not None and (cut := cut_off(content)):
                    wider = {
                        name: {"min": -largest, "max": largest}
                        for name, largest in wider_weights(self._content, cut).items()
                    }
                    content = self._written(Quantizer(self._content, recipe), {**ranges, **wider})
        # It raises what it likes where an operator cannot have what the recipe says.
        except Exception as error:
            raise TfpruneError(
                f"ai-edge-quantizer cannot write the file ({type(error).__name__}: "
                f"{one_line(error)}): change the recipe, or keep other layers"
            ) from error
        return content

    def _written(self, quantizer: Any, ranges: Any) -> bytes:
        return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)

    def _calibrated(
        self, quantizer: Any, recipe: Recipe, examples: Callable[[], Iterator[Feeds]]
    ) -> Any:
        """What ai-edge-quantizer calls the calibration result: the range of each tensor."""
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer.calibrator import Calibrator
        from ai_edge_quantizer.recipe_manager import RecipeManager
        from ai_edge_quantizer.utils.qsv_utils import min_max_update

        signatures = Interpreter(model_content=self._content).get_signature_list()
        data = {next(iter(signatures)): list(examples())}
        if not {each["algorithm_key"] for each in recipe} <= {_MIN_MAX, _NOTHING}:
            # Other algorithms look at more than ranges.
            return quantizer.calibrate(data)
        if self._ranges is None:
            # Extremes, as TensorFlow's converter takes them: the moving averages that are the
            # default cut off what single examples have. Of all operators, so that each recipe
            # finds its own.
            everything = RecipeManager()
            everything.load_quantization_recipe(integer_recipe())
            calibrator = Calibrator(self._content, qsv_update_func=min_max_update)
            calibrator.calibrate(data, everything)
            self._ranges = calibrator.get_model_qsvs()
            for name in computed_floats(self._content) & self._ranges.keys():
                found = self._ranges[name]
                if found and np.all(found["max"] - found["min"] < LEAST_RANGE):
                    # XNNPACK refuses the steps of a range that is empty.
                    found["max"] = found["min"] + np.float32(LEAST_RANGE)
        return self._ranges


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Lets ai-edge-quantizer draw no progress bars; `quiet` leaves sys.stderr alone."""
    import os
    import sys

    kept = sys.stderr
    with open(os.devnull, "w") as null:  # noqa: PTH123
        sys.stderr = null
        try:
            yield
        finally:
            sys.stderr = kept
