from __future__ import annotations

import os
import warnings

import pytest

from tfprune.quiet import quiet


def test_quiet_silences_python_and_c_and_gives_both_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError), quiet():
        print("from Python")
        os.write(1, b"from C\n")
        os.write(2, b"from C\n")
        warnings.warn("from the converter", stacklevel=1)
        _ = 1 / 0
    assert capfd.readouterr() == ("", "")
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")
