"""What all peers share: batches, augmentation and learning rate, on NumPy alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAD = 4


@dataclass(frozen=True)
class Plan:
    """One training, the same for every peer.

    Attributes:
        epochs: passes over the images.
        rate: the highest learning rate; a cosine falls from it to 0 after one epoch of warm-up.
        batch: images in one step.
        decay: share of each kernel that a step subtracts, times the learning rate.
        momentum: Nesterov's, of SGD.
        seed: of the order and the augmentation.
    """

    epochs: int = 30
    rate: float = 0.05
    batch: int = 128
    decay: float = 1e-3
    momentum: float = 0.9
    seed: int = 0

    def steps(self, images: int) -> int:
        """Steps in one epoch."""
        return math.ceil(images / self.batch)

    def rate_at(self, step: int, images: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = self.steps(images) if self.epochs > 1 else 0
        if step < warm:
            return self.rate * step / warm
        rest = self.epochs * self.steps(images) - warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / rest))

    def batches(self, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All batches of all epochs: float32 pixels (n, height, width, channels), and labels."""
        height, width = x.shape[1:3]
        for epoch in range(self.epochs):
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(x))
            rows = rng.integers(0, 2 * PAD + 1, len(x))
            columns = rng.integers(0, 2 * PAD + 1, len(x))
            flips = rng.integers(0, 2, len(x)).astype(bool)
            for start in range(0, len(x), self.batch):
                chosen = order[start : start + self.batch]
                sides = ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0))
                padded = np.pad(x[chosen], sides, mode="reflect")
                images = np.empty((len(chosen), *x.shape[1:]), np.float32)
                for place, image in enumerate(chosen):
                    row, column = rows[image], columns[image]
                    part = padded[place, row : row + height, column : column + width]
                    images[place] = part[:, ::-1] if flips[image] else part
                yield images, y[chosen]


def record(out: Path, row: dict[str, Any]) -> None:
    """Adds a line to a file of results, and prints it."""
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
