"""What is known about exported files: a card for each, and the lists that hold them.

`artifacts.json` lists the files of one directory, `manifest.json` those of a run. Both hold the
card of every artifact: format, shapes, quantization, hashes, sizes, versions and agreement.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from tfprune.errors import TfpruneError
from tfprune.files import read_json, write_json
from tfprune.formats.registry import FORMATS, has_batch
from tfprune.formats.runtime import Memory, Tensor
from tfprune.vocabulary import RUNS_ON

MANIFEST = "artifacts.json"
RUN_MANIFEST = "manifest.json"
LABELS = "labels.txt"

Bytes = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclasses.dataclass(frozen=True)
class Companion:
    """A file that an artifact needs beside itself, such as a C array's header.

    Attributes:
        name: Its name, in the artifact's own directory.
        sha256: Its SHA-256, hexadecimal.
        bytes_raw: Its size.
    """

    name: str
    sha256: Sha256
    bytes_raw: Bytes


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One exported file that was loaded, run, and compared with its Keras model.

    Attributes:
        format: A name in `FORMATS`, such as `"tflite-int8"`.
        path: The file.
        sha256: Its SHA-256, hexadecimal.
        bytes_raw: Its size.
        bytes_gzip: Its size after `gzip -9`, or as it is where it is gzip already.
        agreement: 0 to 1; the lowest of the outputs where there are several. Of what it is the
            share says `compared_as`.
        largest_difference: Largest absolute difference of any output, in the outputs' unit.
        bytes_zstd: Its size after `zstd -19`; None where it was not measured.
        compared: Examples that were compared; None where the manifest is older than this figure.
        compared_on: The file's outputs were compared on examples that were `"given"` for it; on
            representative ones that were `"held back"` from calibration; on `"representative"`
            ones, of which none calibrated a file; on the few `"calibration"` examples themselves,
            which shows less than it seems; or on `"random"` pixels, which show that the conversion
            is exact and nothing more.
        compared_as: `"classes"`: agreement is the share of examples with the same largest output.
            `"sides"`: of sigmoid outputs on the same side of 0.5. `"values"`: the share of the
            model's own variance that the file's outputs explain (R²). None in older manifests.
        compared_output: Whose agreement it is, where there are several outputs.
        mean_difference: Mean absolute difference of this output, in its unit.
        off: Largest difference of this output, as a share of the range that it covers.
        correlation: Of this output with the model's; None where one of the two is constant.
        inputs: What it takes; the first entry of each shape is the batch.
        outputs: What it gives.
        pixels: Range of the pixels that it takes, before they are quantized.
        labels: Name of each class, in the order of the outputs; empty where none were given.
        accuracy: Share of test images classified correctly, 0 to 1; None where not measured.
        model_sha256: SHA-256 of the model's `.keras` export, whatever format this is.
        versions: Of what wrote it, by package.
        companions: Files that it needs beside itself.
        memory: Of a C array: what a device needs.
    """

    format: str
    path: Path
    sha256: Sha256
    bytes_raw: Bytes
    bytes_gzip: Bytes
    agreement: float
    largest_difference: float
    bytes_zstd: Bytes | None = None
    compared: int | None = None
    compared_on: str | None = None
    compared_as: str | None = None
    compared_output: str | None = None
    mean_difference: float | None = None
    off: float | None = None
    correlation: float | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    pixels: str = "0..255"
    labels: tuple[str, ...] = ()
    accuracy: float | None = None
    model_sha256: Sha256 | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    companions: tuple[Companion, ...] = ()
    memory: Memory | None = None

    @property
    def batch(self) -> int | None:
        """Examples that it takes at once, as `inputs` say; None for any number."""
        return self.inputs[0].shape[0] if self.inputs else None

    @property
    def runs_on(self) -> str:
        """Where it runs and where not, in words; empty for a format of another version."""
        if self.format not in RUNS_ON:
            return ""
        said = RUNS_ON[self.format]
        if self.inputs and self.batch is None and has_batch(self.format):
            return f"{said}; its open batch keeps it out of LiteRT.js and of several compilers"
        return said

    def to_dict(self, directory: Path) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            directory: The path is stored relative to it, so that the folder can be moved.

        Raises:
            TfpruneError: The file does not lie in the directory.
        """
        values = dataclasses.asdict(self) | {"runs_on": self.runs_on}
        try:
            values["path"] = self.path.resolve().relative_to(directory.resolve()).as_posix()
        except ValueError:
            raise TfpruneError(
                f"{self.path} does not lie in {directory}: list it in its own directory"
            ) from None
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], directory: Path) -> Artifact:
        """The artifact that `to_dict` described.

        Args:
            values: What `to_dict` gave, or what came of it through JSON; keys that this version
                does not know are left out, and those that an older one did not write may miss.
            directory: Where the stored path starts.

        Raises:
            ValueError: A value is missing or has the wrong type.
            TfpruneError: A path leads out of the directory.
        """
        found = _ADAPTER.validate_python(values)
        names = [found.path.as_posix(), *(each.name for each in found.companions)]
        for name in names:
            if not is_inside(name):
                raise TfpruneError(
                    f"{directory} has a list that names {name!r}, a file outside it: "
                    "do not trust this directory"
                )
        return dataclasses.replace(found, path=directory / found.path)


_ADAPTER = TypeAdapter(Artifact)


def is_inside(name: str) -> bool:
    """Whether a stored path stays within its directory on every system."""
    path = PurePosixPath(name)
    odd = any(character in name for character in "\\:\0\n\r")
    return not (odd or path.is_absolute() or ".." in path.parts or not path.parts)


def write_manifest(directory: str | os.PathLike[str], artifacts: Iterable[Artifact]) -> Path:
    """Writes `artifacts.json`; a reader meanwhile sees the old or the new one, never half.

    Args:
        directory: Where the artifacts lie.
        artifacts: All that the file shall list.

    Returns:
        The file's path.

    Raises:
        TfpruneError: The directory cannot be written, or an artifact lies elsewhere.
    """
    directory = Path(directory)
    listed = [artifact.to_dict(directory) for artifact in artifacts]
    return write_json(directory / MANIFEST, {"artifacts": listed})


def read_manifest(directory: str | os.PathLike[str], name: str = MANIFEST) -> list[Artifact]:
    """Reads `artifacts.json`, or another list of the same form.

    Args:
        directory: Where it lies.
        name: `"artifacts.json"` or `"manifest.json"`.

    Raises:
        TfpruneError: There is none, it is damaged, or it names a file outside its directory.
    """
    directory = Path(directory)
    path = directory / name
    try:
        document = read_json(path)
        return [Artifact.from_dict(values, directory) for values in document["artifacts"]]
    # RecursionError: a list that nests too deeply.
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TfpruneError(
            f"{path} is not an artifact list, or is damaged: export again"
        ) from error


def is_beside_artifacts(path: Path) -> bool:
    """Whether a file is one that an export writes beside artifacts, such as `artifacts.json`.

    Args:
        path: of the file; only its name counts.
    """
    companions = tuple(end for form in FORMATS.values() for end in form.companions)
    return path.name in (MANIFEST, RUN_MANIFEST, LABELS) or path.name.endswith(companions)


def write_run_manifest(
    run: str | os.PathLike[str], measured: Mapping[str, Mapping[str, float]] | None = None
) -> Path:
    """Writes `manifest.json`: every artifact of a run, from the `artifacts.json` of its variants.

    Args:
        run: The run's directory, with artifacts in `VARIANT/seed-N/`.
        measured: What was measured on the test examples, such as `{"accuracy": 0.91}`, by the
            artifact's path relative to the run, such as `"dense/seed-0/model.tflite"`.

    Returns:
        The file's path.

    Raises:
        TfpruneError: A list is damaged, or the file cannot be written.
    """
    run = Path(run)
    known = measured or {}
    listed: list[dict[str, Any]] = []
    for found in sorted(run.glob(f"*/seed-*/{MANIFEST}")):
        for artifact in read_manifest(found.parent):
            values = artifact.to_dict(run)
            listed.append({**values, **known.get(values["path"], {})})
    return write_json(run / RUN_MANIFEST, {"run": run.resolve().name, "artifacts": listed})
