"""A TFLite file as C++ source for TFLite Micro: written, and read back to be run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from tfprune.errors import TfpruneError
from tfprune.formats.runtime import Memory, Runtime
from tfprune.formats.tflite import run_by
from tfprune.formats.tflite_file import end_names
from tfprune.formats.tflite_micro import memory

if TYPE_CHECKING:
    from tfprune.formats.source import Source

_BYTES_A_LINE = 16
_ARRAY = re.compile(r"alignas\(16\) const unsigned char \w+\[\] = \{([^}]*)\};")
_DTYPES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


def write(source: Source, path: Path, kind: str) -> None:
    """Writes the model as C++ source.

    Args:
        source: The model.
        path: The `.cc` to write.
        kind: See `tfprune.formats.tflite_convert.converted`.
    """
    from tfprune.formats.tflite_convert import converted

    write_c_array(converted(source, kind), path)


def write_c_array(content: bytes, path: Path) -> None:
    """Writes a `.cc` with the bytes, and beside it the `.h` that declares them.

    The header also gives the estimated arena, how to quantize what goes in, and the operators to
    register.

    Args:
        content: A `.tflite` file.
        path: The `.cc` to write; its stem becomes the array's name.

    Raises:
        TfpruneError: TFLite Micro has no kernel for an operator in it.
    """
    header = path.with_suffix(".h")
    name = _identifier(path.stem)
    rows = (content[i : i + _BYTES_A_LINE] for i in range(0, len(content), _BYTES_A_LINE))
    lines = [f"    {' '.join(f'0x{byte:02x},' for byte in row)}" for row in rows]
    path.write_text(
        f'#include "{header.name}"\n\n'
        "// TFLite reads numbers in place, which needs them aligned.\n"
        f"alignas(16) const unsigned char {name}[] = {{\n"
        + "\n".join(lines)
        + f"\n}};\nconst unsigned int {name}_size = sizeof({name});\n",
        encoding="utf-8",
    )
    header.write_text("\n".join(_header(content, name)) + "\n", encoding="utf-8")


def read(path: Path) -> bytes:
    """The content of the `.tflite` file that the one array in a `.cc` holds.

    Args:
        path: A `.cc` that tfprune exported.

    Raises:
        TfpruneError: It holds no such array.
    """
    try:
        (body,) = _ARRAY.findall(path.read_text("utf-8"))
        return bytes(int(number, 16) for number in body.replace(",", " ").split())
    except ValueError as error:
        raise TfpruneError(f"{path} holds no C array of a model: export it again") from error


def open_file(path: Path, threads: int) -> Runtime:
    """Opens the TFLite file that a `.cc` holds."""
    runtime = run_by(path, read(path), threads)
    if runtime.format == "tflite-lut":
        runtime.format = "c-array-lut"
        return runtime
    of_integers = runtime.format in ("tflite-int8", "tflite-int16x8")
    runtime.format = "c-array" if of_integers else "c-array-float"
    return runtime


def device_memory(path: Path) -> Memory:
    """What a device needs to run a `.cc`; see `tfprune.formats.tflite_micro.memory`."""
    return memory(read(path))


def _identifier(stem: str) -> str:
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if name[0].isalpha() else f"model_{name}"


def _header(content: bytes, name: str) -> Iterator[str]:
    needs = memory(content)
    guard = f"{name.upper()}_H_"
    yield f"// A TFLite model of {len(content):,} bytes."
    yield f"// SHA-256: {hashlib.sha256(content).hexdigest()}"
    yield f"#ifndef {guard}"
    yield f"#define {guard}"
    yield ""
    yield f"extern const unsigned char {name}[];"
    yield f"extern const unsigned int {name}_size;"
    yield ""
    yield f"// Estimated: {needs.activation_bytes:,} bytes of activations, and the interpreter's"
    yield "// own. MicroInterpreter::arena_used_bytes() tells it exactly; kernels with scratch"
    yield "// buffers, such as CMSIS-NN's, need more."
    yield f"constexpr unsigned int {name}_arena_bytes = {needs.arena_bytes};"
    yield ""
    yield from _ends(content)
    yield ""
    yield f"// tflite::MicroMutableOpResolver<{len(needs.operators)}> resolver;"
    yield from (f"// {line}" for line in needs.resolver)
    yield ""
    yield f"#endif  // {guard}"


def _ends(content: bytes) -> Iterator[str]:
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    ends = (("Input", graph.InputsAsNumpy()), ("Output", graph.OutputsAsNumpy()))
    for (word, numbers), named in zip(ends, end_names(model), strict=True):
        names = {number: name for name, number in named.items()}
        for place, number in enumerate(map(int, numbers)):
            # The interpreter knows several by their place alone.
            which = f" {place}, {names.get(number, '')}" if len(numbers) > 1 else ""
            yield f"// {word}{which}: {_described(graph.Tensors(number))}"


def _described(tensor: Any) -> str:
    shape = " x ".join(str(size) for size in tensor.ShapeAsNumpy())
    said = f"{_DTYPES[tensor.Type()].lower()}, shape {shape}"
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return said
    scale, zero = quantization.Scale(0), quantization.ZeroPoint(0)
    return f"{said}, real value = (stored - ({zero})) * {scale:.9g}"
