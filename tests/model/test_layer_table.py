"""A subclass follows its base exactly where it computes the same."""

from __future__ import annotations

from typing import Any

import pytest
from keras import layers

from tfprune.model.layer_table import TypeTable

TABLE = TypeTable({layers.Conv2D: "conv", layers.Dense: "dense"})


def subclass(base: type = layers.Conv2D, **defined: Any) -> type:
    return type("Mine", (base,), defined)


@pytest.mark.parametrize(
    "name", ["__init__", "build", "get_config", "compute_output_shape", "helper", "own_name"]
)
def test_how_it_is_made_and_helpers_do_not_matter(name: str) -> None:
    base = getattr(layers.Conv2D, name, lambda self: None)
    assert TABLE[subclass(**{name: lambda *a, **k: base(*a, **k)})] == "conv"


@pytest.mark.parametrize(
    "name", ["call", "__call__", "convolution_op", "kernel", "quantized_call", "enable_lora"]
)
def test_what_the_base_computes_with_matters(name: str) -> None:
    made = subclass(**{name: property(lambda self: None)})
    with pytest.raises(KeyError):
        TABLE[made]
    # Nor does what derives from it follow again.
    with pytest.raises(KeyError):
        TABLE[subclass(made)]


def test_the_nearest_entry_holds() -> None:
    own = subclass(call=lambda self, x: x)
    table = TypeTable({**TABLE, own: "own"})
    assert table[own] == table[subclass(own)] == "own"
    assert table[layers.Conv2D] == "conv"


def test_instances() -> None:
    assert TABLE.of(layers.Dense(2)) == "dense"
    assert TABLE.of(layers.ReLU()) is None
    patched = layers.Dense(2)
    vars(patched)["call"] = lambda x: x
    assert TABLE.of(patched) is None
