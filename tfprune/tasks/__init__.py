"""What a model is trained for: its losses, its metrics, and the one figure that is compared."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
