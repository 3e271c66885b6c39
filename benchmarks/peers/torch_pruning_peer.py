"""Torch-Pruning on what was handed over: group-norm pruning, and sparse learning before it.

It runs in an environment of its own, without tfprune. The net is the zoo's ResNet in PyTorch, with
the Keras weights; it must give the logits that were handed over before anything is pruned.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import nn

from benchmarks.peers.schedule import Plan, record

METHODS = ("dense", "group-norm", "sparse-learning")
# Of Keras' BatchNormalization and of the zoo.
EPSILON, MOMENTUM = 1e-3, 0.1


class ConvBN(nn.Module):
    """A convolution with Keras' padding "same", and BatchNorm."""

    def __init__(self, weights: Any, name: str, stride: int) -> None:
        super().__init__()
        kernel = torch.from_numpy(weights[f"{name}/kernel"].transpose(3, 2, 0, 1).copy())
        out, inputs, size, _ = kernel.shape
        # Keras pads an even size more on the right and below where the stride is 2.
        odd = size == 3 and stride == 2
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if odd else nn.Identity()
        padding = 0 if odd else size // 2
        self.conv = nn.Conv2d(inputs, out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, EPSILON, MOMENTUM)
        norm = name.replace("conv", "bn")
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            self.bn.weight.copy_(torch.from_numpy(weights[f"{norm}/gamma"]))
            self.bn.bias.copy_(torch.from_numpy(weights[f"{norm}/beta"]))
            self.bn.running_mean.copy_(torch.from_numpy(weights[f"{norm}/moving_mean"]))
            self.bn.running_var.copy_(torch.from_numpy(weights[f"{norm}/moving_variance"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolves and normalises."""
        return self.bn(self.conv(self.pad(x)))


class Block(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, weights: Any, name: str) -> None:
        super().__init__()
        shrinks = f"{name}_shortcut_conv/kernel" in weights
        stride = 2 if shrinks else 1
        self.one = ConvBN(weights, f"{name}_conv1", stride)
        self.two = ConvBN(weights, f"{name}_conv2", 1)
        shortcut = f"{name}_shortcut_conv"
        self.shortcut = ConvBN(weights, shortcut, stride) if shrinks else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds what the block found to its input."""
        return torch.relu(self.two(torch.relu(self.one(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """The zoo's ResNet; takes pixels 0 to 255 as (n, channels, height, width)."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        for name in ("scale", "offset"):
            value = torch.from_numpy(weights[f"normalize/{name}"].copy()).view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self.stem = ConvBN(weights, "stem_conv", 1)
        names = sorted({key.split("_conv1/")[0] for key in weights if "_conv1/" in key})
        self.blocks = nn.Sequential(*(Block(weights, name) for name in names))
        kernel = torch.from_numpy(weights["logits/kernel"].T.copy())
        self.logits = nn.Linear(kernel.shape[1], kernel.shape[0])
        with torch.no_grad():
            self.logits.weight.copy_(kernel)
            self.logits.bias.copy_(torch.from_numpy(weights["logits/bias"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        x = self.blocks(torch.relu(self.stem(x * self.scale + self.offset)))
        return self.logits(x.mean((2, 3)))


def pixels(images: np.ndarray) -> torch.Tensor:
    """Images as PyTorch takes them."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32))


@torch.no_grad()
def logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """The model's answers."""
    model.eval()
    parts = [model(pixels(images[at : at + 256])).numpy() for at in range(0, len(images), 256)]
    return np.concatenate(parts)


def trained(model: nn.Module, arrays: Any, plan: Plan, pruner: Any = None) -> None:
    """Trains in place by the plan; a pruner regularizes each step."""
    x, y = arrays["train_x"], arrays["train_y"]
    # Decoupled, as in tfprune: of kernels alone, and not of BatchNorm.
    kernels = [each for each in model.parameters() if each.ndim > 1]
    optimizer = torch.optim.SGD(model.parameters(), plan.rate, plan.momentum, nesterov=True)
    model.train()
    for step, (images, labels) in enumerate(plan.batches(x, y)):
        rate = plan.rate_at(step, len(x))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels(images)), torch.from_numpy(labels))
        loss.backward()
        if pruner is not None:
            pruner.regularize(model)
        with torch.no_grad():
            for kernel in kernels:
                kernel.mul_(1 - rate * plan.decay)
        optimizer.step()


def pruned(method: str, arrays: Any, plan: Plan, macs: float) -> tuple[nn.Module, float]:
    """The net with a share of its multiply-accumulates, after the training of the plan.

    Sparse learning has half of the epochs, and what is cut then recovers for the other half.
    """
    model = ResNet(arrays)
    example = pixels(arrays["test_x"][:1])
    whole, _ = tp.utils.count_ops_and_params(model, example)
    if method == "dense":
        trained(model, arrays, plan)
        return model, 1.0
    steps = 400
    pruner = tp.pruner.GroupNormPruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=1.0,
        max_pruning_ratio=0.95,
        iterative_steps=steps,
        ignored_layers=[model.logits],
        reg=5e-4,
    )
    rest = plan
    if method == "sparse-learning":
        half = plan.epochs // 2
        rest = Plan(epochs=plan.epochs - half, seed=plan.seed + 1)
        pruner.update_regularizer()
        trained(model, arrays, Plan(epochs=half, seed=plan.seed), pruner)
    model.eval()
    left = whole
    for _ in range(steps):
        if left <= macs * whole:
            break
        pruner.step()
        left, _ = tp.utils.count_ops_and_params(model, example)
    trained(model, arrays, rest)
    return model, left / whole


def main() -> None:
    """Prune the net of HANDED, what was handed over, with each method."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("handed", type=Path)
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--macs", type=float, default=0.5, help="share that is kept")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("torch-pruning.jsonl"))
    chosen = parser.parse_args()
    arrays = dict(np.load(chosen.handed))
    probes = arrays["probe_logits"]
    difference = np.abs(logits(ResNet(arrays), arrays["test_x"][: len(probes)]) - probes).max()
    if difference > 1e-3 * max(1.0, np.abs(probes).max()):
        parser.exit(1, f"the net is another one: its logits differ by {difference:.3g}\n")
    for method in chosen.method or METHODS:
        torch.manual_seed(chosen.seed)
        plan = Plan(epochs=chosen.epochs, seed=chosen.seed)
        model, share = pruned(method, arrays, plan, chosen.macs)
        answers = logits(model, arrays["test_x"]).argmax(-1)
        row = {
            "tool": "Torch-Pruning",
            "version": version("torch-pruning"),
            "method": method,
            "seed": chosen.seed,
            "epochs": chosen.epochs,
            "macs": float(share),
            "accuracy": float(np.mean(answers == arrays["test_y"])),
            "logits_differ_by": float(difference),
        }
        record(chosen.out, row)


if __name__ == "__main__":
    main()
