"""Exports models as files that were loaded, run and compared before they count.

Importing it loads no TensorFlow: each name loads its module at first use, so that files can be
verified where only TFLite is installed.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
