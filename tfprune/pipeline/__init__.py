"""Pipelines: variants as chains of steps, run from a TOML file, each step done once.

Each name loads its module at first use: a mistake in a pipeline file is told without TensorFlow,
and a kind of step can be added before the tables of pipeline files are made.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
