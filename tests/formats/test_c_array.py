from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfprune.artifacts import Artifact
from tfprune.errors import TfpruneError
from tfprune.files import sha256
from tfprune.formats.c_array import read, write_c_array

PAIRS = [("c-array", "tflite-int8"), ("c-array-float", "tflite")]


@pytest.mark.parametrize(("array", "file"), PAIRS)
def test_the_array_holds_the_bytes_of_the_tflite_file(
    export_paths: dict[str, Path], array: str, file: str
) -> None:
    assert read(export_paths[array]) == export_paths[file].read_bytes()


@pytest.mark.parametrize(("array", "file"), PAIRS)
def test_a_compiler_reads_the_same_bytes(
    export_paths: dict[str, Path], tmp_path: Path, array: str, file: str
) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    stem = export_paths[array].stem
    main = tmp_path / "main.cc"
    main.write_text(
        f'#include "{stem}.h"\n#include <cstdio>\n#include <cstdint>\n'
        f"int main() {{ if ((uintptr_t){stem} % 16 || !{stem}_arena_bytes) return 1;\n"
        f"  return fwrite({stem}, 1, {stem}_size, stdout) != {stem}_size; }}\n"
    )
    folder = export_paths[array].parent
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c++17", f"-I{folder}"]
    program = tmp_path / "program"
    subprocess.run([compiler, *flags, main, export_paths[array], "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, check=True)
    assert done.stdout == export_paths[file].read_bytes()


def test_the_header_says_what_a_device_needs(exports: list[Artifact]) -> None:
    (artifact,) = (each for each in exports if each.format == "c-array")
    (header,) = artifact.companions
    path = artifact.path.with_name(header.name)
    assert (header.name, header.sha256) == ("model_int8.h", sha256(path))
    text = path.read_text()
    assert artifact.memory is not None
    assert f"model_int8_arena_bytes = {artifact.memory.arena_bytes};" in text
    assert f"MicroMutableOpResolver<{len(artifact.memory.operators)}> resolver;" in text
    for line in artifact.memory.resolver:
        assert f"// {line}\n" in text
    (x,) = artifact.inputs
    assert "// Input: int8, shape 1 x 8 x 8 x 3, real value = (stored - " in text
    assert f"{x.scale:.9g}" in text


def test_microcontrollers_compute_what_phones_do(
    export_paths: dict[str, Path], export_images: np.ndarray
) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    content = read(export_paths["c-array"])
    phone = Interpreter(model_content=content)
    phone.allocate_tensors()
    device = micro.Interpreter.from_bytes(content, arena_size=1 << 16)
    (x,), (y,) = phone.get_input_details(), phone.get_output_details()
    for image in (export_images[:10, None] - 128).astype(np.int8):
        phone.set_tensor(x["index"], image)
        phone.invoke()
        device.set_input(image, 0)
        device.invoke()
        there = device.get_output(0).astype(int)
        # The two round differently in the last place.
        assert np.abs(there - phone.get_tensor(y["index"])).max() <= 2


@pytest.mark.parametrize("name", ["1net", "my net-80", "größe"])
def test_any_file_name_gives_an_identifier(
    export_paths: dict[str, Path], tmp_path: Path, name: str
) -> None:
    content = export_paths["tflite-int8"].read_bytes()
    write_c_array(content, tmp_path / f"{name}.cc")
    assert read(tmp_path / f"{name}.cc") == content
    compiler = shutil.which("g++")
    if compiler:
        command = [compiler, "-c", tmp_path / f"{name}.cc", "-o", tmp_path / "out.o"]
        subprocess.run(command, check=True)


@given(st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_no_array_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.cc"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(TfpruneError, match="holds no C array of a model: export it again"):
        read(path)
    path.write_text("alignas(16) const unsigned char a[] = { 0x1ff, };")
    with pytest.raises(TfpruneError, match="holds no C array"):
        read(path)
