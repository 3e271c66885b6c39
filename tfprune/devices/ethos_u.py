"""Arm's Ethos-U NPUs, as Arm's compiler Vela estimates them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from tfprune.devices.base import Device, Measurement
from tfprune.errors import TfpruneError, UsageError, did_you_mean
from tfprune.vocabulary import FormatName

if TYPE_CHECKING:
    import pandas as pd

    from tfprune.devices.vela import Estimate


class EthosU(Device):
    """An NPU; a subclass is a family.

    Vela compiles each file for one example, and estimates the cycles of the NPU and the memory. The
    cycles of operators that it leaves to the CPU are not known. Flash is the whole compiled file:
    weights and biases as the NPU reads them, its commands, and what the CPU's operators need.
    """

    formats: ClassVar[tuple[FormatName, ...]] = ("tflite-int8", "c-array", "tflite-int16x8")
    told: ClassVar[tuple[str, ...]] = (
        "device_ms",
        "cycles",
        "sram_bytes",
        "flash_bytes",
        "npu_share",
    )
    estimated: ClassVar[bool] = True
    planned: ClassVar[bool] = True
    sizes: ClassVar[tuple[int, ...]]
    memory_modes: ClassVar[tuple[str, ...] | None] = None

    system_config: Annotated[
        str, Field(description="clock and bandwidths, a system configuration of Vela")
    ]
    memory_mode: Annotated[
        str, Field(description="where weights and activations lie, a memory mode of Vela")
    ]

    @classmethod
    def _family(cls) -> str:
        return cls.key.removesuffix("N")

    @classmethod
    def takes(cls, name: str) -> bool:
        """Whether a name begins like this family's."""
        return name.startswith(cls._family())

    @classmethod
    def one_of(cls) -> str:
        """The smallest of the family."""
        return f"{cls._family()}{cls.sizes[0]}"

    @field_validator("name")
    @classmethod
    def _has_a_size(cls, name: str) -> str:
        names = [f"{cls._family()}{size}" for size in cls.sizes]
        if name != cls.key and name not in names:
            raise ValueError(f"{name} is not built: choose one of {', '.join(names)}")
        if name == cls.key:
            raise ValueError(f"N stands for a number: choose one of {', '.join(names)}")
        return name

    def check(self) -> None:
        """Vela is there, and has the configuration.

        Raises:
            UsageError: it is not, or has not.
        """
        from tfprune.devices import vela

        if not vela.installed():
            raise UsageError(f"device {self.name} needs Vela: pip install 'tfprune[ethos-u]'")
        systems, modes = vela.configurations()
        # Vela takes those of other families, and gives figures of neither.
        family = self._family().replace("-", "_").capitalize().replace("_u", "_U")
        systems = [name for name in systems if name.startswith(family)]
        modes = [name for name in modes if name in (self.memory_modes or modes)]
        for option, value, known in (
            ("system_config", self.system_config, systems),
            ("memory_mode", self.memory_mode, modes),
        ):
            if value not in known:
                raise UsageError(
                    f"device {self.name}: {option} {value!r} is unknown: "
                    f"{did_you_mean(value, known)}"
                )

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Compiles each file."""
        return [self._measured(path) for path in files]

    def _measured(self, path: Path) -> Measurement:
        from tfprune.devices.micro import flatbuffer

        try:
            found = self.estimate(path, flatbuffer(path))
        except TfpruneError as error:
            return Measurement({}, refusal=str(error))
        if len(found.on_cpu) >= found.operators:
            return Measurement(
                {},
                refusal=f"{path} has no operator that the NPU runs ({_listed(found.on_cpu)}): "
                "replace them, or choose another device",
            )
        return Measurement(figures_of(found), notes=tuple(_notes(found)), layers=_table(found))

    def estimate(self, path: Path, content: bytes) -> Estimate:
        """What Vela estimates of a flatbuffer that messages call `path`.

        Raises:
            TfpruneError: Vela cannot compile it.
        """
        from tfprune.devices import vela

        return vela.estimate(
            path,
            content,
            accelerator=self.name,
            system_config=self.system_config,
            memory_mode=self.memory_mode,
        )

    def settings(self) -> dict[str, str]:
        """Vela's version and configuration."""
        import importlib.metadata

        return {
            "vela": importlib.metadata.version("ethos-u-vela"),
            "system_config": self.system_config,
            "memory_mode": self.memory_mode,
            "batch": "1",
        }


class EthosU55(EthosU):
    """The smallest NPUs, beside a Cortex-M."""

    key: ClassVar[str] = "ethos-u55-N"
    sizes: ClassVar[tuple[int, ...]] = (32, 64, 128, 256)
    # It has no second memory to write to.
    memory_modes: ClassVar[tuple[str, ...] | None] = ("Shared_Sram", "Sram_Only")

    # These are what Vela takes where a family is given none.
    system_config: str = "Ethos_U55_High_End_Embedded"
    memory_mode: str = "Shared_Sram"


class EthosU65(EthosU):
    """NPUs beside a Cortex-A or a Cortex-M."""

    key: ClassVar[str] = "ethos-u65-N"
    sizes: ClassVar[tuple[int, ...]] = (256, 512)

    system_config: str = "Ethos_U65_Client_Server"
    memory_mode: str = "Dedicated_Sram_384KB"


class EthosU85(EthosU):
    """NPUs that also run transformers, and gain from weights with the pattern 2:4."""

    key: ClassVar[str] = "ethos-u85-N"
    sizes: ClassVar[tuple[int, ...]] = (128, 256, 512, 1024, 2048)

    system_config: str = "Ethos_U85_SYS_DRAM_Mid"
    memory_mode: str = "Dedicated_Sram_384KB"


def figures_of(found: Estimate) -> dict[str, float]:
    """The figures of an estimate, by the names of `tfprune.figures`."""
    return {
        "device_ms": 1e3 * found.cycles / found.clock,
        "cycles": found.cycles,
        "sram_bytes": found.sram_bytes,
        "flash_bytes": found.compiled_bytes,
        "npu_share": 1 - len(found.on_cpu) / found.operators,
    }


def _notes(found: Estimate) -> list[str]:
    notes = []
    if found.on_cpu:
        notes.append(f"the CPU runs {_listed(found.on_cpu)}, whose cycles and time are not known")
    if found.constants_in_sram:
        notes.append(
            f"{found.constants_in_sram / 1024:,.1f} KiB of weights and commands lie in SRAM "
            "besides, as its memory mode says"
        )
    if found.dram_bytes:
        notes.append(f"it takes {found.dram_bytes / 1024:,.1f} KiB of DRAM besides")
    return notes


def _listed(operators: Sequence[str]) -> str:
    """Operators by type: "Cos, 2 Quantize"."""
    return ", ".join(
        f"{count} {name}" if count > 1 else name for name, count in Counter(operators).items()
    )


def _table(found: Estimate) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(found.layers))
