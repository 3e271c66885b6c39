"""Writes a `.keras` file, the same bytes for the same model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import keras


def write_keras(model: keras.Model, path: Path) -> None:
    """Saves a finished model.

    Args:
        model: A finished model, without optimizer.
        path: Where to.
    """
    dated = path.with_name(f"dated-{path.name}")
    model.save(dated)
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(path, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                # The time of saving; loading does not read it.
                metadata.pop("date_saved", None)
                content = json.dumps(metadata).encode()
            # A fresh ZipInfo carries a fixed date, and stores without compression as Keras does.
            target.writestr(zipfile.ZipInfo(name), content)
    dated.unlink()
