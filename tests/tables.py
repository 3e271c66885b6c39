"""Tables of cases: `make test` runs those that differ most, and `make slow` the rest."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any, **options: Any) -> Any:
    """A case that only `make slow` runs.

    Example:
        ```python
        @pytest.mark.parametrize("format", ["tflite-int8", slow("tflite")])
        ```

    Args:
        values: of the test's arguments.
        options: those of `pytest.param`, such as `id`.
    """
    return pytest.param(*values, marks=pytest.mark.slow, **options)
