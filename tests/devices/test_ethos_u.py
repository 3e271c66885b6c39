"""Arm's NPUs: what Vela estimates is told whole, and nothing is guessed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.devices import find_device, measure_on, vela
from tfprune.devices.ethos_u import EthosU
from tfprune.devices.measuring import shown
from tfprune.devices.registry import kinds
from tfprune.errors import UsageError
from tfprune.formats.tflite_file import TFLiteFile
from tfprune.report.node_data import write_node_data

needs_vela = pytest.mark.skipif(not vela.installed(), reason="ethos-u-vela is not installed")
DEVICE = find_device("ethos-u55-128")
FAMILIES = ["ethos-u55-32", "ethos-u65-512", "ethos-u85-2048"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net whose rows are no examples, and with an operator that no NPU has."""
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.Dense(16)(keras.ops.reshape(y, (-1, 16)))
    y = keras.ops.reshape(keras.ops.cos(y), (-1, 512))
    model = keras.Model(x, layers.Dense(4)(y))
    data = np.random.default_rng(0).normal(size=(40, 8, 8, 4)).astype("float32")
    folder = tmp_path_factory.mktemp("odd")
    (artifact,) = tfprune.export(model, folder, ["tflite-int8"], data, name="odd, one")
    return artifact.path


@needs_vela
def test_every_format_of_it_has_every_figure(export_paths: dict[str, Path]) -> None:
    DEVICE.check()
    files = [export_paths[name] for name in DEVICE.formats]
    found = dict(zip(DEVICE.formats, DEVICE.measure(files), strict=True))
    for each in found.values():
        assert not each.refusal
        assert set(each.figures) == set(DEVICE.told)
        assert min(each.figures.values()) > 0
    # The C array is the int8 file.
    assert found["c-array"].figures == found["tflite-int8"].figures


@needs_vela
@pytest.mark.parametrize("name", FAMILIES)
def test_the_time_is_cycles_at_the_clock_and_layers_add_up(
    export_paths: dict[str, Path], name: str
) -> None:
    device = find_device(name)
    device.check()
    assert device.settings()["system_config"] in vela.configurations()[0]
    (found,) = device.measure([export_paths["tflite-int8"]])
    clock = 500e6 if "u55" in name else 1e9
    assert found.figures["device_ms"] == pytest.approx(found.figures["cycles"] / clock * 1e3)
    assert found.layers is not None
    assert found.layers["cycles"].sum() == found.figures["cycles"]
    assert set(found.layers["target"]) == {"NPU"}


@needs_vela
def test_slower_clocks_and_other_memories_show(export_paths: dict[str, Path]) -> None:
    slow = find_device(
        "ethos-u55-128", system_config="Ethos_U55_Deep_Embedded", memory_mode="Sram_Only"
    )
    slow.check()
    files = [export_paths["tflite-int8"]]
    (fast,), (found,) = DEVICE.measure(files), slow.measure(files)
    assert found.figures["device_ms"] == pytest.approx(found.figures["cycles"] / 200e6 * 1e3)
    assert found.figures["device_ms"] > fast.figures["device_ms"]
    assert "of weights and commands lie in SRAM besides" in found.notes[0]
    # They are stored somewhere before, all the same.
    stored = float(found.notes[0].split()[0]) * 1024
    assert found.figures["flash_bytes"] > stored


@needs_vela
def test_tables_call_it_estimated(export_paths: dict[str, Path], tmp_path: Path) -> None:
    file = export_paths["tflite-int8"]
    table = measure_on([file], [DEVICE], layers=True)
    assert shown(table)["device"].tolist() == ["ethos-u55-128, estimated"]
    paths = write_node_data(file, tmp_path, layers={DEVICE.name: table["layers"][0]})
    assert any("ethos-u55-128-cycles" in path.name for path in paths)


@needs_vela
def test_what_the_cpu_runs_is_named(odd: Path) -> None:
    (found,) = DEVICE.measure([odd])
    (note,) = found.notes
    assert "the CPU runs Dequantize, Cos, Quantize, whose cycles" in note
    operators = len(TFLiteFile(vela.of_one_example(odd, odd.read_bytes())).nodes())
    assert found.figures["npu_share"] == pytest.approx(1 - 3 / operators)


@needs_vela
def test_an_open_batch_is_1_and_other_sizes_are_not_guessed(odd: Path) -> None:
    content = vela.of_one_example(odd, odd.read_bytes())
    assert vela.of_one_example(odd, content) == content
    assert isinstance(DEVICE, EthosU)
    estimate = DEVICE.estimate(odd, odd.read_bytes())
    macs = {row["layer"]: row["macs"] for row in estimate.layers if row["macs"]}
    # 8·8 pixels of 8 channels are 32 rows of 16, and not the one that the file says.
    assert 32 * 16 * 16 in macs.values()


@needs_vela
@pytest.mark.parametrize(
    ("form", "change", "reason"),
    [
        ("tflite", None, "computes in floats (it is tflite), and an NPU in integers: export it as"),
        ("tflite-dynamic", None, "computes in floats"),
        ("keras", None, "neither a .tflite file nor a C array"),
        ("tflite-int8", lambda content: content[:3000], "is no whole TFLite file"),
    ],
)
def test_what_it_cannot_run_is_refused_in_a_line(
    export_paths: dict[str, Path],
    tmp_path: Path,
    form: str,
    change: Callable[[bytes], bytes] | None,
    reason: str,
) -> None:
    path = export_paths[form]
    if change:
        path = tmp_path / path.name
        path.write_bytes(change(export_paths[form].read_bytes()))
    (found,) = DEVICE.measure([path])
    assert reason in found.refusal
    assert "\n" not in found.refusal
    assert not found.figures


@needs_vela
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"system_config": "Ethos_U65_Embedded"}, "system_config 'Ethos_U65_Embedded' is unknown"),
        ({"memory_mode": "Dedicated_Sram"}, "memory_mode 'Dedicated_Sram' is unknown"),
    ],
)
def test_configurations_are_those_of_the_family(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_device("ethos-u55-128", **options).check()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ethos-u55-512", "ethos-u55-512 is not built: choose one of ethos-u55-32"),
        ("ethos-u65-N", "N stands for a number: choose one of ethos-u65-256, ethos-u65-512"),
    ],
)
def test_only_what_is_built_is_a_device(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_device(name)


def test_a_family_is_a_kind_and_what_they_share_is_not() -> None:
    families = [kind for kind in kinds() if issubclass(kind, EthosU)]
    assert [kind.key for kind in families] == ["ethos-u55-N", "ethos-u65-N", "ethos-u85-N"]
    for kind in families:
        assert all(find_device(kind.key.replace("N", f"{size}")) for size in kind.sizes)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'tfprune\[ethos-u\]'"):
        DEVICE.check()
