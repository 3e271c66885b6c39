"""What is known about one exported file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One exported file that was loaded, run, and compared with its Keras model.

    Attributes:
        format: `"keras"`, `"savedmodel"`, `"tflite"` or `"tflite-int8"`.
        path: The file.
        sha256: Its SHA-256, hexadecimal.
        bytes_raw: Its size.
        bytes_gzip: Its size after `gzip -9`, or as it is where it is gzip already.
        agreement: Share of compared images with the same largest output, 0 to 1.
        largest_difference: Largest absolute difference of any output, in the outputs' unit.
    """

    format: str
    path: Path
    sha256: str
    bytes_raw: int
    bytes_gzip: int
    agreement: float
    largest_difference: float

    def to_dict(self, directory: Path) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            directory: The path is stored relative to it, so that the folder can be moved.

        Raises:
            TfpruneError: The file does not lie in the directory.
        """
        values = dataclasses.asdict(self)
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
            values: What `to_dict` gave; keys that this version does not know are left out.
            directory: Where the stored path starts.

        Raises:
            KeyError: A value is missing.
        """
        known = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**known, "path": directory / values["path"]})
