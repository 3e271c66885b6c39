"""Tests that need newer versions than the oldest that tfprune supports, each with its reason."""

from __future__ import annotations

import keras
import pytest
from packaging.version import Version


def newer_keras(reason: str) -> pytest.MarkDecorator:
    """Skips a test where Keras is older than 3.15.

    Args:
        reason: what the older Keras cannot do.
    """
    old = Version(keras.__version__) < Version("3.15")
    return pytest.mark.skipif(old, reason=f"Keras {keras.__version__}: {reason}")
