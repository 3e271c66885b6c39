"""Vela, Arm's compiler for its NPUs: what it makes of a TFLite file, and what it estimates."""

from __future__ import annotations

import csv
import importlib.util
import tempfile
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.devices.micro import printed
from tfprune.errors import TfpruneError, UsageError, one_line

_TIMEOUT_SECONDS = 600.0
_INTEGER_FORMATS = ("tflite-int8", "tflite-int16x8")
# Vela's columns, in KiB. A memory mode that keeps constants in SRAM calls that part a flash.
_MEMORIES = {
    "sram_bytes": "sram_memory_used",
    "dram_bytes": "dram_memory_used",
    "constants_in_sram": "on_chip_flash_memory_used",
}
_KIB = 1024


@dataclass(frozen=True)
class Estimate:
    """What Vela estimates of one file.

    Attributes:
        cycles: of one example, without the operators that the CPU runs.
        clock: cycles of a second.
        sram_bytes: the peak of what activations and staged weights take of the SRAM.
        dram_bytes: what the model takes of the DRAM, with its weights where they lie there.
        constants_in_sram: bytes of weights and commands that the memory mode keeps in SRAM.
        compiled_bytes: size of the compiled file.
        operators: how many operators the given file has.
        on_cpu: the types of the operators that the CPU runs, with repeats.
        layers: one dict for each operator: layer, operator, target, cycles, macs.
    """

    cycles: int
    clock: float
    sram_bytes: int
    dram_bytes: int
    constants_in_sram: int
    compiled_bytes: int
    operators: int
    on_cpu: tuple[str, ...]
    layers: tuple[dict[str, Any], ...]


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("ethosu") is not None


def configurations() -> tuple[list[str], list[str]]:
    """The names of the system configurations and of the memory modes that Vela brings.

    Example:
        ```python
        configurations()  # (["Ethos_U55_Deep_Embedded", ...], ["Sram_Only", ...])
        ```

    Raises:
        UsageError: the package is of another layout.
    """
    package = importlib.util.find_spec("ethosu")
    folders = (package.submodule_search_locations if package else None) or []
    parser = ConfigParser()
    read = parser.read([Path(folder, "config_files", "Arm", "vela.ini") for folder in folders])
    if not read:
        raise UsageError(
            "ethos-u-vela has no configuration Arm/vela.ini: pip install 'tfprune[ethos-u]'"
        )
    kinds = "System_Config.", "Memory_Mode."
    systems, modes = (
        [name.removeprefix(kind) for name in parser.sections() if name.startswith(kind)]
        for kind in kinds
    )
    return systems, modes


def estimate(
    path: Path, content: bytes, *, accelerator: str, system_config: str, memory_mode: str
) -> Estimate:
    """Compiles a file in a process of its own.

    Example:
        ```python
        estimate(
            path,
            path.read_bytes(),
            accelerator="ethos-u55-128",
            system_config="Ethos_U55_High_End_Embedded",
            memory_mode="Shared_Sram",
        ).cycles
        ```

    Args:
        path: what messages call the file.
        content: a TFLite flatbuffer; an open batch becomes 1.
        accelerator: as Vela calls it.
        system_config: a system configuration of Vela.
        memory_mode: a memory mode of Vela.

    Raises:
        TfpruneError: the file is damaged, computes in floats, takes batches, or Vela fails on it.
    """
    from tfprune.formats.sandbox import call_on_file, shared

    options = (
        *("--accelerator-config", accelerator),
        *("--config", "Arm/vela.ini"),
        *("--system-config", system_config),
        *("--memory-mode", memory_mode),
    )
    found: Estimate = call_on_file(
        shared("vela"), _estimated, path, content, options, timeout=_TIMEOUT_SECONDS
    )
    return found


# -- what happens in a process of its own -------------------------------------------------------


def _estimated(path: Path, content: bytes, options: Sequence[str]) -> Estimate:
    from tfprune.formats.lut import is_compressed
    from tfprune.formats.tflite_file import TFLiteFile

    if is_compressed(content):
        raise TfpruneError(f"{path} is made for TFLite Micro: export it as tflite-int8")
    single = of_one_example(path, content)
    file = TFLiteFile(single)
    if (form := file.format()) not in _INTEGER_FORMATS:
        raise TfpruneError(
            f"{path} computes in floats (it is {form}), and an NPU in integers: export it as "
            "tflite-int8"
        )
    with tempfile.TemporaryDirectory(prefix="tfprune-vela-") as folder:
        # Vela writes its tables without quotes; this name has no comma.
        given = Path(folder, "model.tflite")
        given.write_bytes(single)
        _run_vela(path, [str(given), *options, "--verbose-performance", "--output-dir", folder])
        return _read(path, Path(folder), [node.name for node in file.nodes()])


def _run_vela(path: Path, arguments: Sequence[str]) -> None:
    from ethosu.vela import vela

    with printed(1, 2) as said:
        try:
            code = vela.main(list(arguments))
        # It raises whatever its compiler, in C++, or its parser of options raise.
        except (Exception, SystemExit) as error:
            raise TfpruneError(_refusal(path, said(), error)) from error
        if code:
            raise TfpruneError(_refusal(path, said(), RuntimeError(f"exit code {code}")))


def _refusal(path: Path, said: str, error: BaseException) -> str:
    errors = [line for line in said.splitlines() if "rror" in line]
    reason = " ".join(errors[0].split())[:200] if errors else one_line(error) or "no reason given"
    return f"Vela cannot compile {path} ({reason}): replace what it names, or choose another mode"


def _read(path: Path, folder: Path, names: Sequence[str]) -> Estimate:
    """Reads the tables that Vela wrote.

    Raises:
        TfpruneError: they are missing or have other columns.
    """
    compiled = folder / "model_vela.tflite"
    try:
        (summary,) = folder.glob("model_summary_*.csv")
        with summary.open(newline="") as file:
            (row,) = csv.DictReader(file)
        layers = _layers(folder / "model_per-layer.csv", names)
        return Estimate(
            cycles=int(row["cycles_total"]),
            clock=float(row["core_clock"]),
            **{name: round(_KIB * float(row[of])) for name, of in _MEMORIES.items()},
            compiled_bytes=compiled.stat().st_size,
            operators=len(names),
            on_cpu=tuple(each["operator"] for each in layers if each["target"] == "CPU"),
            layers=layers,
        )
    except (OSError, KeyError, ValueError) as error:
        raise TfpruneError(
            f"Vela does not tell the figures of {path} as version 5.2 does ({one_line(error)}): "
            "pip install 'tfprune[ethos-u]'"
        ) from error


def _layers(table: Path, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """One row for each operator of the file; what Vela made of one operator is added up.

    Rows of names that the file does not have are parts of the next operator of the same type, such
    as the steps of a softmax.
    """
    header, *lines = table.read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    known = set(names)
    found: dict[str, dict[str, Any]] = {}
    pending: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        # The name comes last, and may have commas.
        row = dict(zip(columns, line.split(",", len(columns) - 1), strict=True))
        parts = pending.setdefault(row["Original Operator"], [])
        parts.append(row)
        if row["Name"] in known:
            _add(found, parts, row["Name"])
            parts.clear()
    for parts in pending.values():
        for row in parts:
            _add(found, [row], row["Name"])
    return tuple(found.values())


def _add(found: dict[str, dict[str, Any]], parts: Sequence[dict[str, str]], name: str) -> None:
    row = found.setdefault(
        name,
        {
            "layer": name,
            "operator": parts[-1]["Original Operator"],
            "target": parts[-1]["Target"],
            "cycles": 0,
            "macs": 0,
        },
    )
    # Of a file that the CPU runs alone, Vela writes shares of nothing.
    if row["target"] != "CPU":
        row["cycles"] += sum(int(each["Op Cycles"]) for each in parts)
        row["macs"] += sum(int(each["MAC Count"]) for each in parts)


def of_one_example(path: Path, content: bytes) -> bytes:
    """The same file with every shape that it has for one example; Vela guesses those left open.

    Raises:
        TfpruneError: the file is damaged, takes several examples at once, or has other open sizes.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        # It verifies what is read next.
        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    except (RuntimeError, ValueError) as error:
        raise TfpruneError(
            f"{path} is no whole TFLite file ({one_line(error)}): export it again"
        ) from error
    for details in interpreter.get_input_details():
        _check_input(path, details)
    model = schema.Model.GetRootAs(content, 0)
    tensors = [
        graph.Tensors(number)
        for graph in map(model.Subgraphs, range(model.SubgraphsLength()))
        for number in range(graph.TensorsLength())
    ]
    if all((_signature(tensor) >= 0).all() for tensor in tensors):
        return content
    if model.SubgraphsLength() != 1:
        raise TfpruneError(
            f"{path} has an open batch and several graphs: export it with batch 1, or without "
            "loops and branches"
        )
    return _with_shapes(path, content, interpreter)


def _signature(tensor: Any) -> np.ndarray:
    signature = tensor.ShapeSignatureAsNumpy()
    # The generated code gives 0 for none.
    return np.atleast_1d(signature) if tensor.ShapeSignatureLength() else np.zeros(1, int)


def _check_input(path: Path, details: dict[str, Any]) -> None:
    shape, signature = list(details["shape"]), list(details["shape_signature"])
    if -1 in signature[1:]:
        raise TfpruneError(
            f"{path} takes inputs of any size ({signature}): give the model's Input a fixed shape"
        )
    if shape and shape[0] != 1:
        raise TfpruneError(
            f"{path} takes {shape[0]} examples at once (shape {shape}): export it with batch 1"
        )


def _with_shapes(path: Path, content: bytes, interpreter: Any) -> bytes:
    """The file with the shapes that its tensors have when the interpreter runs one example."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    try:
        interpreter.allocate_tensors()
        # Shapes that are computed are known after it.
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise TfpruneError(
            f"{path} cannot be run by LiteRT ({one_line(error)}): export it with batch 1"
        ) from error
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    shapes = {each["index"]: each["shape"] for each in interpreter.get_tensor_details()}
    for number, tensor in enumerate(graph.tensors):
        if tensor.shapeSignature is not None and (np.asarray(tensor.shapeSignature) < 0).any():
            tensor.shape = np.array(shapes[number], np.int32)
        tensor.shapeSignature = None
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
