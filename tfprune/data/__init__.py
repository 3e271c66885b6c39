"""Data sets from any source, and batches for training and evaluation.

No decision uses the test split. The order of the training batches is a pure function of (seed,
epoch), so that a killed training reads the same batches when it resumes.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
