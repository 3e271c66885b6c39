"""tfprune makes Keras CNNs sparser or slimmer, exports them and measures what was gained.

Importing it imports neither TensorFlow nor Keras: `__init__.pyi` lists the public names, and each
loads its module at first use.
"""

from __future__ import annotations

import importlib
from typing import Any

import lazy_loader
import wrapt

__version__ = "0.1.0"

__getattr__, _, _public = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted([*_public, "__version__"])


def __dir__() -> list[str]:
    return __all__


@wrapt.when_imported("keras")
def _register_with_keras(_keras: Any) -> None:
    """Lets `keras.saving.load_model` find our classes after `import tfprune` alone.

    Keras may be imported in the middle of one of our modules, so this one imports no other.
    """
    importlib.import_module("tfprune.model.group_lasso")
    importlib.import_module("tfprune.model.quantized_layers")
