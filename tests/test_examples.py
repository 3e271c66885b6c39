"""Every public name is shown in its docstring, by lines that run."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tests.tables import slow
from tfprune import devices, filters

NAMES = [name for name in tfprune.__all__ if name != "__version__"]
SLOW = ("lottery", "precision", "quantize_aware")
# Trainings as long as the examples show take minutes.
SHORTER = {"rounds=10": "rounds=1", "epochs=10": "epochs=1", "end=1000": "end=5"}
SHORTER["end=2000"] = "end=5"


# Examples that are only compiled here, and why.
COMPILED = {"search": "it trains many nets; tests/searching runs small searches"}


class Scale(layers.Layer):
    """A factor for each channel; tfprune has no rule for it."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor


def examples(name: str) -> list[str]:
    """The code of the examples in the docstring of a public name."""
    text = inspect.getdoc(getattr(tfprune, name)) or ""
    section = re.search(r"^Example:\n((?:[ \t]+.*\n|\n)+)", text + "\n", re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", section.group(1), re.DOTALL) if section else []
    return [textwrap.dedent(f"{' ' * 4}{block}" if block[:1] != " " else block) for block in blocks]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What examples call `model`, `x` and so on, and the files that they read."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    hidden = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="conv")(inputs))
    hidden = layers.Add()([hidden, layers.Conv2D(8, 1, name="shortcut")(inputs)])
    outputs = layers.Dense(4)(layers.GlobalAveragePooling2D()(hidden))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.save("net.keras")
    model.save("net.h5")
    Path("my_layers.py").write_text("")
    Path("my_model.py").write_text(
        "import keras\n\ndef build(width=16):\n"
        "    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width)])\n"
    )
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (160, 8, 8, 3)).astype(np.float32)

    def untimed(model: keras.Model, target: filters.Target, **_: Any) -> filters.RemovalPlan:
        """The speed of the machine decides nothing here."""
        return filters.plan_counted(model, filters.Target("macs", target.value))

    monkeypatch.setattr(devices, "plan", untimed)
    public = {name: getattr(tfprune, name) for name in NAMES}
    y = rng.integers(0, 4, len(x))
    return public | {
        "batches": [(x[:32], y[:32])] * 5,
        "train_step": lambda batch: model.train_on_batch(*batch),
        "keras": keras,
        "tfprune": tfprune,
        "Scale": Scale,
        "model": model,
        "x": x,
        "y": y,
        "train_images": x,
        "train_labels": y,
        "path": "net.keras",
        "macs": 0.5,
    }


@pytest.mark.filterwarnings("ignore:.*HDF5 file")
@pytest.mark.parametrize("name", [slow(name) if name in SLOW else name for name in NAMES])
def test_the_example_of_a_public_name_runs(name: str, names: dict[str, Any]) -> None:
    code = examples(name)
    assert code, f"the docstring of tfprune.{name} has no example"
    for block in code:
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        compiled = compile(block, name, "exec")
        if name in COMPILED:
            continue
        try:
            exec(compiled, names)
        except tfprune.TfpruneError:
            # An error's example shows how it is raised.
            assert name in ("TfpruneError", "UsageError")
        else:
            assert name not in ("TfpruneError", "UsageError")


def resolves(reference: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = reference.split(".")
    for count in range(len(parts), 0, -1):
        try:
            place: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True
    return False


def test_every_name_that_a_docstring_refers_to_exists() -> None:
    root = Path(tfprune.__file__).parent
    referred = {
        (reference, str(path.relative_to(root)))
        for path in root.rglob("*.py")
        for reference in re.findall(r"`(tfprune(?:\.\w+)+)", path.read_text())
    }
    assert len(referred) > 20
    assert [pair for pair in sorted(referred) if not resolves(pair[0])] == []
