"""Fewer bits, while a model trains: quantization-aware training, and weights of few values."""

from __future__ import annotations

import lazy_loader

# Keras' registrations import `layers` in the middle of other modules; the rest loads at first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
