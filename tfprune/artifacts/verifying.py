"""Whether the artifacts of a directory are what its list says, and still run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

import numpy as np

from tfprune.artifacts.card import MANIFEST, RUN_MANIFEST, Artifact, read_manifest
from tfprune.errors import TfpruneError
from tfprune.files import sha256
from tfprune.formats.sandbox import Sandbox, run_file

# No classifier takes so long for two random images.
TIMEOUT_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was found about one listed artifact.

    Attributes:
        path: Relative to the directory, as it is listed.
        format: As it is listed.
        passed: Whether it is whole, loads and runs.
        said: One line: what was checked, or what is wrong.
    """

    path: str
    format: str
    passed: bool
    said: str


def verify(directory: str | os.PathLike[str]) -> list[Verification]:
    """Checks every artifact that a directory lists: its hash, and that it loads and runs.

    Example:
        ```python
        all(verdict.passed for verdict in verify("out"))
        ```

    A file whose hash differs is not loaded. Each is loaded in a Python of its own, which a file
    may crash, and runs on random pixels; it must give finite numbers of the listed shape. Hashes
    find damage, not malice: a person who changes a file can change the list too. A SavedModel is a
    program, so verify only what you would also run.

    Args:
        directory: An export with `artifacts.json`, or a run, with or without `manifest.json`.

    Returns:
        One verdict for each listed artifact, in the order of the list.

    Raises:
        TfpruneError: There is no list, it is damaged, or it names files outside the directory.
    """
    directory = Path(directory)
    artifacts = _listed(directory)
    with contextlib.closing(Sandbox()) as sandbox:
        return [_verdict(artifact, directory, sandbox) for artifact in artifacts]


def _listed(directory: Path) -> list[Artifact]:
    lists = [path for name in (RUN_MANIFEST, MANIFEST) if (path := directory / name).is_file()][:1]
    # A run that is not finished, or is older than its list, has those of its variants.
    lists = lists or sorted(directory.glob(f"*/seed-*/{MANIFEST}"))
    if not lists:
        raise TfpruneError(
            f"{directory} holds neither {MANIFEST} nor {RUN_MANIFEST}: "
            "give a directory that tfprune exported to, or a run"
        )
    artifacts = [each for path in lists for each in read_manifest(path.parent, path.name)]
    if not artifacts:
        raise TfpruneError(f"{lists[0]} lists no artifact: export again")
    return artifacts


def _verdict(artifact: Artifact, directory: Path, sandbox: Sandbox) -> Verification:
    path = artifact.path.relative_to(directory).as_posix()
    try:
        for listed in _files(artifact):
            _check_file(*listed, directory)
        _check_run(artifact, sandbox)
    except TfpruneError as error:
        return Verification(path, artifact.format, False, " ".join(str(error).split()))
    except OSError as error:
        said = f"cannot be read ({error.strerror}): copy it again"
        return Verification(path, artifact.format, False, said)
    return Verification(
        path, artifact.format, True, f"{artifact.bytes_raw:,} bytes, loads and runs"
    )


def _files(artifact: Artifact) -> list[tuple[Path, str, int]]:
    beside = [
        (artifact.path.parent / each.name, each.sha256, each.bytes_raw)
        for each in artifact.companions
    ]
    return [(artifact.path, artifact.sha256, artifact.bytes_raw), *beside]


def _check_file(path: Path, digest: str, size: int, directory: Path) -> None:
    if not path.resolve().is_relative_to(directory.resolve()):
        raise TfpruneError(f"{path.name} leads out of {directory}: do not trust this directory")
    if not path.exists():
        elsewhere = _renamed(path, digest, size)
        hint = f"it is now called {elsewhere}, rename it back" if elsewhere else "export again"
        raise TfpruneError(f"{path.name} is missing: {hint}")
    if not path.is_file():
        raise TfpruneError(f"{path.name} is not a file: export again")
    found = path.stat().st_size
    if found != size:
        raise TfpruneError(
            f"{path.name} has {found:,} bytes, not the {size:,} that were exported: copy it again"
        )
    if sha256(path) != digest:
        raise TfpruneError(f"{path.name} is not what was exported (other SHA-256): copy it again")


def _renamed(path: Path, digest: str, size: int) -> str | None:
    """A file beside a missing one that has its content."""
    if not path.parent.is_dir():
        return None
    for other in sorted(path.parent.iterdir()):
        if other.is_file() and other.stat().st_size == size and sha256(other) == digest:
            return other.name
    return None


def _check_run(artifact: Artifact, sandbox: Sandbox) -> None:
    done = run_file(sandbox, artifact.path, timeout=TIMEOUT_SECONDS)
    found = {each.name: each.shape[1:] for each in done.outputs}
    listed = {each.name: each.shape[1:] for each in artifact.outputs}
    # Lists of before the shapes were written have none.
    if listed and found != listed:
        raise TfpruneError(
            f"{artifact.path.name} gives {found} instead of the listed {listed}: export again"
        )
    if not all(np.isfinite(y).all() for y in done.values.values()):
        raise TfpruneError(f"{artifact.path.name} gives NaN or infinite outputs: export again")
