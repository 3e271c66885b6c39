"""Every code block of the documents runs: Python, shell, TOML and YAML, in order."""

from __future__ import annotations

import configparser
import functools
import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from markdown_it import MarkdownIt
from PIL import Image

import tfprune
from tests.tables import slow
from tests.test_workflows import _accepted, _commands
from tfprune import data, devices, filters
from tfprune.cli import main
from tfprune.pipeline import Pipeline
from tfprune.report import load_budget
from tfprune.searching import load_search

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
)
# Commands of the documents that are only parsed here, with their files and settings, and why: each
# must be in a document.
PARSED = {
    "tfprune lottery": "it trains 63 nets; tests/cli/test_lottery.py runs a small one",
    "tfprune train mobilenetv2": "its net is deep; tests/test_what_goes_in.py trains one like it",
    "tfprune slim dense.keras --latency": "it times nets; tests/cli/test_slim.py runs one",
    "tfprune app": "it serves until it is ended, or needs a browser; tests/app runs both",
    "python -m http.server": "it serves until it is ended; the module is there",
    "tfprune search": "it trains nets; tests/searching and tests/cli/test_search.py run small ones",
    "tfprune slim dense.keras --cycles": "it compiles nets; tests/cli/test_slim.py runs one",
    "tfprune learn dense.keras --cycles": "it compiles nets; tests/test_learning.py does",
    "tfprune prune dense.keras --sparsity 0.5 --pattern": "it trains; tests/cli/test_cli.py does",
    "tfprune cluster": "it trains; tests/cli/test_cli.py runs it",
    "tfprune quantize-aware": "it trains; tests/pipeline/steps/test_quantize.py runs the step",
    "tfprune export": "it starts another Python; tests/cli/test_cli.py runs it",
    "tfprune inspect dense.keras --sensitivity": "it cuts often; tests/cli/test_cli.py runs it",
    "tfprune measure": "it times files; tests/cli/test_measure.py runs it",
    "tfprune devices install": "it downloads; tests/devices/test_wasm.py runs it with another npm",
    "tfprune rewrite": "it wants a net of another kind; tests/weights/test_rewriting.py runs it",
    "tfprune verify": "it loads each file of a run; tests/cli/test_artifacts_verify.py runs it",
    "tfprune run pipelines/": "they are studies of hours; their files and settings are checked",
    "tfprune run first.toml": "it trains for minutes; tests/pipeline/test_shipped.py runs digits",
    "tfprune run mine.toml": "tests/pipeline runs pipelines; variants and settings are checked",
    "python -m benchmarks.": "they make or read studies of hours; the modules are there",
    "pip install": "it changes what is installed; its extras are in setup.cfg",
    "make ": "they install and test everything; `make -n` knows the target",
}

# They train, export or compile much.
SLOW = {
    "docs/command-line.md",
    "docs/data.md",
    "docs/devices.md",
    "docs/faq.md",
    "docs/guides/applications.md",
    "docs/guides/half-the-latency.md",
    "docs/guides/microcontroller.md",
    "docs/index.md",
    "docs/methods/few-values.md",
    "docs/methods/group-lasso.md",
    "docs/methods/lottery-tickets.md",
    "docs/methods/post-training-quantization.md",
    "docs/methods/weight-pruning.md",
    "docs/python.md",
    "docs/quantization.md",
    "docs/your-own.md",
}


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: what its fence says; "shell" for an indented one.
        text: its content.
        line: where it begins in the document, from 1.
    """

    language: str
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    """All code blocks of a document, fenced and indented, in lists, quotations and tabs too."""
    for token in MarkdownIt().parse(_without_tabs(document)):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.strip() if token.type == "fence" else "shell"
            yield Block(language, token.content, token.map[0] + 1)


def _without_tabs(document: str) -> str:
    """The document with what tabs and boxes of the site indent at the margin, line for line."""
    inside, lines = False, []
    for line in document.splitlines():
        if line and not line.startswith("    "):
            inside = line.startswith(("=== ", "!!! ", "??? "))
        lines.append(line[4:] if inside else line)
    return "\n".join(lines) + "\n"


def commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a shell script, comments left out."""
    for line in script.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


class Place:
    """Runs blocks of one document in a directory, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, Any] = {"__name__": "document", **_prelude()}
        self.parsed: set[str] = set()

    def run(self, block: Block) -> None:
        run: dict[str, Callable[[str], None]] = {
            "python": self._python,
            "shell": self._shell,
            "toml": self._toml,
            "yaml": self._yaml,
        }
        assert block.language in run, f"line {block.line}: nothing runs {block.language!r}"
        run[block.language](block.text)

    def _python(self, text: str) -> None:
        # A new process has only these: packages that a test imported are no attributes there.
        for name in re.findall(r"(?<!import )(?<!from )\btfprune\.(\w+)", text):
            assert name in tfprune.__all__, f"tfprune.{name} is not there before its import"
        exec(compile(text, "document", "exec"), self.names)

    def _toml(self, text: str) -> None:
        if "rules" in tomllib.loads(text):
            Path("budget.toml").write_text(text)
            load_budget(Path("budget.toml"))
        elif "minimize" in tomllib.loads(text):
            Path("search.toml").write_text(text)
            load_search(Path("search.toml"))
        else:
            Pipeline.model_validate(tomllib.loads(text))
            Path("mine.toml").write_text(text)

    def _yaml(self, text: str) -> None:
        for step in yaml.safe_load(text):
            assert {"run", "uses"} & set(step)
            for words in _commands(step.get("run", "")):
                _accepted(words)

    def _shell(self, text: str) -> None:
        for words in commands(text):
            line = shlex.join(words)
            rule = next((each for each in PARSED if f"{line} ".startswith(each)), None)
            if rule is None:
                assert words[0] == "tfprune", line
                *words, into = [*words, ""] if ">" not in words else [*words[:-2], words[-1]]
                result = CliRunner().invoke(main, words[1:])
                assert result.exit_code == 0, f"{line}: {result.output}"
                if into:
                    Path(into).write_text(result.stdout)
                continue
            self.parsed.add(rule)
            if words[0] == "make":
                subprocess.run(
                    ["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True
                )
            elif words[0] == "pip":
                asked = re.findall(r"\[([\w,-]+)\]", line)
                assert set(",".join(asked).split(",")) - {""} <= set(_extras()), line
            elif words[0] == "python":
                assert importlib.util.find_spec(words[2]), line
            else:
                _accepted(words[1:])
                if words[1] == "run":
                    self._pipeline(words[2:])

    def _pipeline(self, words: list[str]) -> None:
        """Checks a pipeline file with its settings, and names of variants."""
        given = list(itertools.pairwise(words))
        settings = [part for key, value in given if key == "--set" for part in (key, value)]
        result = CliRunner().invoke(main, ["pipeline", "check", words[0], *settings])
        assert result.exit_code == 0, result.output
        listed = re.search(r"variants \((.*)\), seeds", result.output)
        assert listed is not None
        for key, value in given:
            assert key != "--only" or value in listed[1].split(", ")


def _extras() -> list[str]:
    """The extras that can be installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return list(setup["options.extras_require"])


def _net(shape: tuple[int, ...], classes: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.Conv2D(8, 3, activation="relu", name="conv3"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes, name="head"),
        ]
    )


def _prelude() -> dict[str, Any]:
    """What the documents take for granted: a model, images, labels, and a way to train."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 64)
    # The brightness tells the class: of noise, a net learns outputs that are all alike.
    x = (rng.uniform(0, 85, (64, 8, 8, 1)) * (1 + y[:, None, None, None])).astype("float32")
    model = _net((8, 8, 1), 3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit = functools.partial(model.fit, verbose=0)

    def train(model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> Any:
        model.compile("adam", loss)
        return model.fit(x, y, batch_size=64, verbose=0, callbacks=callbacks)

    class Scale(keras.layers.Layer):
        """A layer whose weight belongs to channels, for rules of its own."""

        def build(self, shape: tuple[int | None, ...]) -> None:
            self.factor = self.add_weight(shape=(shape[-1],), name="scale")

    return {"model": model, "x": x, "y": y, "train": train, "tfprune": tfprune, "Scale": Scale}


@pytest.fixture
def place(tiny_run, tmp_path, monkeypatch):
    """A directory with the runs and files that the documents name, and few images."""
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "digits"):
        shutil.copytree(tiny_run, tmp_path / "saved_models" / name)
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    for number in range(60):
        photo = tmp_path / "my_photos" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30 + number % 3, 24), (4 * number,) * 3).save(photo)
    (tmp_path / "b.toml").write_text('[[rules]]\nartifact = "keras"\naccuracy = { min = 0.0 }\n')
    # Epochs as the documents say, on few images.
    monkeypatch.setattr(data, "load", functools.partial(data.load, limit=64))

    def untimed(
        model: keras.Model, target: filters.Target, **options: object
    ) -> filters.RemovalPlan:
        """What a machine's speed has no part in."""
        share = target.value if target.is_share else 0.5
        return filters.plan_counted(model, filters.Target("macs", share))

    monkeypatch.setattr(devices, "plan", untimed)
    (tmp_path / "out").mkdir()
    made = Place(tmp_path)
    made.names["model"].save("my_model.keras")
    # What the documents call the user's own model of these photos, and a slim one.
    for name in ("dense.keras", "slim.keras"):
        _net((24, 30, 3), 2).save(name)
    return made


@pytest.mark.parametrize("document", [slow(name) if name in SLOW else name for name in DOCUMENTS])
def test_every_block_of_a_document_runs(document, place):
    with warnings.catch_warnings():
        # So few images make few steps, which is what it warns of.
        warnings.filterwarnings("ignore", "PruneWeights: ")
        # The images are noise, of which nothing can be learnt.
        warnings.filterwarnings("ignore", "export: the model gives one class ")
        for block in blocks((ROOT / document).read_text()):
            try:
                place.run(block)
            except Exception as error:
                raise AssertionError(f"{document}, line {block.line}: {error}") from error


def test_what_is_only_parsed_is_in_a_document():
    texts = [
        f"{shlex.join(words)} "
        for document in DOCUMENTS
        for block in blocks((ROOT / document).read_text())
        if block.language == "shell"
        for words in commands(block.text)
    ]
    for rule in PARSED:
        assert any(text.startswith(rule) for text in texts), f"{rule!r} is in no document"


def test_a_block_that_fails_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = (
        '=== "Python"\n\n    ```python\n    tfprune.nothing\n    ```\n\n'
        "- a list:\n\n  ```python\n  import tfprune\n  tfprune.nothing\n  ```\n\ntext\n\n"
        "    tfprune frobnicate   # a comment\n\n```toml\nname = 1\n```\n\n```\nno language\n```\n"
    )
    found = list(blocks(document))
    assert [(each.language, each.line) for each in found] == [
        ("python", 3),
        ("python", 9),
        ("shell", 16),
        ("toml", 18),
        ("", 22),
    ]
    for block in found:
        with pytest.raises((AssertionError, AttributeError, ValueError)):
            Place(tmp_path).run(block)
    for wrong in (
        "pip install '.[nothing]'",
        "make nothing",
        "tfprune lottery --rond 3",
        "python -m benchmarks.lotery",
        "ls",
    ):
        with pytest.raises(Exception):  # noqa: B017 - each fails in a way of its own
            Place(tmp_path)._shell(wrong)
