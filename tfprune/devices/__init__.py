"""Where models run: what is measured or estimated there, and removals that are planned for it.

Importing it loads neither Keras nor TensorFlow: `__init__.pyi` lists the public names, and each
loads its module at first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
