"""The net and its files are those of the formats."""

from __future__ import annotations

from tests.formats.conftest import files, images, model

__all__ = ["files", "images", "model"]
