"""Times planning and rebuilding ResNet-50 at half of its filters, beside Torch-Pruning.

Two processes, one with Keras and one with PyTorch, each hold a ResNet-50 and take turns: while one
works, the other waits. A turn of Keras slims the model, and makes it anew from its config, which is
the least that any rebuilding costs. A turn of PyTorch prunes a fresh copy, made before the clock
starts.

PyTorch has an environment of its own, with `pip install click torch torch-pruning==1.6.1`:

    python benchmarks/slim.py --torch-python PYTHON
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__)
SIZE = 224
LIMIT = 2.0


def keras_turn() -> Callable[[], dict[str, Any]]:
    """Prepares a ResNet-50 in Keras; what is returned slims it once."""
    import keras

    import tfprune
    from tfprune.filters import rebuild
    from tfprune.slimming import plan

    model = keras.applications.ResNet50(weights=None, input_shape=(SIZE, SIZE, 3))
    params, macs = model.count_params(), tfprune.macs(model)

    def turn() -> dict[str, Any]:
        begun, cpu = time.perf_counter(), time.process_time()
        found = plan(model, filters=0.5)
        planned = time.perf_counter()
        slim = rebuild(found)
        rebuilt, cpu_rebuilt = time.perf_counter(), time.process_time()
        type(model).from_config(model.get_config())
        made, cpu_made = time.perf_counter(), time.process_time()
        return {
            "plan": planned - begun,
            "rebuild": rebuilt - planned,
            "slim": rebuilt - begun,
            "slim_cpu": cpu_rebuilt - cpu,
            "from_config": made - rebuilt,
            "from_config_cpu": cpu_made - cpu_rebuilt,
            "params": slim.count_params() / params,
            "macs": tfprune.macs(slim) / macs,
        }

    return turn


def torch_turn() -> Callable[[], dict[str, Any]]:
    """Prepares a ResNet-50 in PyTorch; what is returned prunes a copy of it once."""
    import copy

    import torch
    import torch_pruning
    from torch import nn

    class Bottleneck(nn.Module):
        """A 1x1, a 3x3 and a 1x1 convolution around a shortcut (He et al. 2016)."""

        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            outputs = 4 * width
            self.body = nn.Sequential(
                *self.convolution(inputs, width, 1, stride),
                nn.ReLU(),
                *self.convolution(width, width, 3, 1),
                nn.ReLU(),
                *self.convolution(width, outputs, 1, 1),
            )
            changes = stride != 1 or inputs != outputs
            self.shortcut = (
                nn.Sequential(*self.convolution(inputs, outputs, 1, stride))
                if changes
                else nn.Identity()
            )

        @staticmethod
        def convolution(inputs: int, outputs: int, size: int, stride: int) -> list[Any]:
            # As in Keras: strides in the first convolution, and a bias before each BatchNorm.
            made = nn.Conv2d(inputs, outputs, size, stride, size // 2)
            return [made, nn.BatchNorm2d(outputs)]

        def forward(self, x: Any) -> Any:
            """The block's output."""
            return torch.relu(self.body(x) + self.shortcut(x))

    layers = [*Bottleneck.convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(inputs, 64 * 2**stage, stride))
            inputs = 256 * 2**stage
    classifier = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    model = nn.Sequential(*layers, *classifier).eval()
    example = torch.randn(1, 3, SIZE, SIZE)
    macs, params = torch_pruning.utils.count_ops_and_params(model, example)

    def turn() -> dict[str, Any]:
        fresh = copy.deepcopy(model)
        begun, cpu = time.perf_counter(), time.process_time()
        pruner = torch_pruning.pruner.BasePruner(
            fresh,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[fresh[-1]],
        )
        planned = time.perf_counter()
        pruner.step()
        done, cpu_done = time.perf_counter(), time.process_time()
        after, left = torch_pruning.utils.count_ops_and_params(fresh, example)
        return {
            "graph": planned - begun,
            "step": done - planned,
            "slim": done - begun,
            "slim_cpu": cpu_done - cpu,
            "params": left / params,
            "macs": after / macs,
            "versions": {
                "torch": torch.__version__.partition("+")[0],
                "torch-pruning": torch_pruning.__version__,
            },
        }

    return turn


TURNS = {"keras": keras_turn, "torch": torch_turn}


def serve(which: str) -> None:
    """Takes a turn for each line that comes in, and answers with a line of JSON."""
    # Libraries print, too; the answer goes where nothing else does.
    answers, sys.stdout = sys.stdout, sys.stderr
    turn = TURNS[which]()
    turn()
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), file=answers, flush=True)


def start(python: str, which: str) -> subprocess.Popen[str]:
    """A process that has warmed up."""
    process = subprocess.Popen(
        [python, str(HERE), "--serve", which],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise click.ClickException(f"the process of {which} ended: {process.wait()}")
    return process


def asked(process: subprocess.Popen[str]) -> dict[str, Any]:
    """One turn of a process."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("turn\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def report(document: dict[str, Any]) -> str:
    """The page of the results."""
    import pandas as pd

    median = document["median_seconds"]
    shown = {
        "tfprune: plan": median["plan"],
        "tfprune: rebuild": median["rebuild"],
        "tfprune: both": median["slim"],
        "from_config of the whole model": median["from_config"],
        "Torch-Pruning: dependency graph": median["graph"],
        "Torch-Pruning: step": median["step"],
        "Torch-Pruning: both": median["torch"],
    }
    table = pd.DataFrame({"what": shown.keys(), "median s": [f"{s:.3f}" for s in shown.values()]})
    ratios, left = document["ratios"], document["left"]
    facts = {key: document[key] for key in ("command", "commit", "versions", "machine")}
    return "\n\n".join(
        [
            "# ResNet-50 at half of its filters",
            f"{SIZE} x {SIZE} x 3 inputs, random weights, by the Euclidean norm, "
            f"{document['turns']} turns each, taken alternately. Ratios are medians of the ratios "
            "of neighbouring turns, since the machine's speed drifts.",
            table.to_markdown(index=False),
            f"- tfprune / Torch-Pruning: {ratios['torch']:.2f} (target: at most 1); of the time "
            f"the processor worked, {ratios['torch_cpu']:.2f}\n"
            f"- tfprune / from_config: {ratios['from_config']:.2f} (target: at most {LIMIT:g}); of "
            f"the time the processor worked, {ratios['from_config_cpu']:.2f}\n"
            f"- left by tfprune: {left['keras']['params']:.3f} of the parameters, "
            f"{left['keras']['macs']:.3f} of the MACs; by Torch-Pruning: "
            f"{left['torch']['params']:.3f} and {left['torch']['macs']:.3f}",
            "## How this was made",
            f"```json\n{json.dumps(facts, indent=2)}\n```",
            "",
        ]
    )


@click.command()
@click.option("--torch-python", help="The Python that has torch-pruning.")
@click.option("--turns", default=15, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/slim"))
@click.option("--serve", "which", type=click.Choice([*TURNS]), hidden=True)
def slim(torch_python: str | None, turns: int, output: Path, which: str | None) -> None:
    """Time slimming ResNet-50 in Keras and in PyTorch; exit 1 where a target is missed."""
    if which is not None:
        serve(which)
        return
    if torch_python is None:
        raise click.UsageError("give --torch-python: PyTorch has an environment of its own")
    from tfprune.files import write_json, write_text
    from tfprune.pipeline import provenance

    processes = {"keras": start(sys.executable, "keras"), "torch": start(torch_python, "torch")}
    rows = []
    for turn in range(turns):
        rows.append({name: asked(process) for name, process in processes.items()})
        click.echo(f"{turn + 1} of {turns}", err=True)
    for process in processes.values():
        process.communicate()
    ours, theirs = [row["keras"] for row in rows], [row["torch"] for row in rows]

    def median(rows: list[dict[str, Any]], key: str) -> float:
        return statistics.median(row[key] for row in rows)

    versions = theirs[0].pop("versions")
    document = {
        "command": "python benchmarks/slim.py --torch-python PYTHON",
        "commit": provenance.commit(),
        "versions": {**provenance.versions(), **versions},
        "machine": provenance.machine(),
        "turns": turns,
        "median_seconds": {
            **{key: median(ours, key) for key in ("plan", "rebuild", "slim", "from_config")},
            **{key: median(theirs, key) for key in ("graph", "step")},
            "torch": median(theirs, "slim"),
        },
        "ratios": {
            f"{other}{clock}": statistics.median(
                one[f"slim{clock}"] / two[f"{key}{clock}"]
                for one, two in zip(ours, against, strict=True)
            )
            for clock in ("", "_cpu")
            for other, key, against in (
                ("torch", "slim", theirs),
                ("from_config", "from_config", ours),
            )
        },
        "left": {
            name: {key: row[key] for key in ("params", "macs")} for name, row in rows[0].items()
        },
        "rows": rows,
    }
    write_json(output.with_suffix(".json"), document)
    write_text(output.with_suffix(".md"), report(document))
    click.echo(json.dumps(document["ratios"], indent=2))
    missed = document["ratios"]["torch"] > 1 or document["ratios"]["from_config"] > LIMIT
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    slim()
