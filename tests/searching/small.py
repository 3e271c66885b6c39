"""A search that takes seconds."""

from __future__ import annotations

from typing import Any

from tfprune.searching import Search, load_search


def small(**given: Any) -> Search:
    """A net of a few weights on a few digits."""
    raw: dict[str, Any] = {
        "name": "small",
        "data": {"name": "digits", "limit": 96},
        "model": {"name": "vgg", "options": {"width": 4, "blocks": [1]}},
        "training": {"batch_size": 32, "learning_rate": 0.05},
        "epochs": 2,
        "recovery": 2,
        "rungs": 2,
        "minimize": "macs",
        "max_drop": 100,
        "trials": 2,
        "bracket": 2,
        "space": {"keep": [0.5, 0.7], "keep_step": 0.2, "formats": ["tflite"]},
    }
    return load_search(**{**raw, **given})
