"""The best artifact inside a budget: what is tried, how it is judged, and how it is made again.

The package is not called `search`, because a submodule would hide the function `tfprune.search`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
