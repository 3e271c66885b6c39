"""Any module can be the first that a process imports, as in the sandbox of a file."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Keras is imported within each of them, and then `GroupLasso` is registered.
FIRST = ["quantize", "measure.first_run", "data.adapting", "model.layer_table"]


@pytest.mark.slow
@pytest.mark.parametrize("module", FIRST)
def test_a_module_can_be_imported_first(module: str) -> None:
    code = (
        f"import tfprune.{module}, tfprune.filters, keras; "
        "known = keras.saving.get_registered_object('tfprune>GroupLasso'); "
        "assert known is tfprune.GroupLasso; "
        "assert keras.saving.get_registered_object('tfprune>FakeQuantize')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
