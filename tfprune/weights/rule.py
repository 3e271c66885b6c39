"""The rule by which the masks of a model are cut: scope, selection, pattern, targets, a floor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model.graph import path_matches
from tfprune.training.schedule import check_sparsity
from tfprune.vocabulary import WEIGHT_SCOPES, WeightScope
from tfprune.weights.masks import Masks, Select, global_masks, layer_masks
from tfprune.weights.patterns import Layout, NofM, layout_of, parse
from tfprune.weights.selection import Kernel

_LISTED = 5


def listed(names: Sequence[str]) -> str:
    """The first names of many, quoted, and how many more there are."""
    more = len(names) - _LISTED
    first = ", ".join(repr(name) for name in names[:_LISTED])
    return f"{first} and {more} more" if more > 0 else first


def erk_sparsities(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """The share of each weight tensor to prune, so that small ones stay denser.

    Example:
        ```python
        erk_sparsities([(3, 3, 16, 16), (3, 3, 64, 64)], 0.9)  # about [0.62, 0.92]
        ```

    The density of a tensor is proportional to the sum of its sides over their product; a tensor
    that would be more than dense is dense, and the others make up for it.

    Args:
        shapes: of the tensors; of a convolution (height, width, inputs, outputs).
        sparsity: share of all entries together, 0 to 1.

    Returns:
        Shares, 0 to 1. They rise with `sparsity`.

    Source:
        Erdős-Rényi-Kernel of Evci et al. 2020, Rigging the Lottery,
        https://arxiv.org/abs/1911.11134; Mocanu et al. 2018.
    """
    sizes = [math.prod(shape) for shape in shapes]
    alive = (1 - check_sparsity(sparsity)) * sum(sizes)
    if sparsity == 0:
        return [0.0] * len(sizes)
    scale = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        rest = [index for index in range(len(sizes)) if index not in dense]
        left = alive - sum(sizes[index] for index in dense)
        factor = left / sum(scale[index] * sizes[index] for index in rest)
        over = {index for index in rest if factor * scale[index] > 1}
        if not over:
            break
        dense |= over
    return [0.0 if index in dense else 1 - factor * scale[index] for index in range(len(sizes))]


@dataclass(frozen=True)
class MaskRule:
    """The choices that `PruneWeights`, `prune_once` and `Lottery` share; see `PruneWeights`.

    Attributes:
        scope: "layer" masks each weight tensor, "global" ranks all of them together, "erk" masks
            each at its share of `erk_sparsities`.
        select: which weights die: "magnitude", "random", or a function from weights to scores.
        seed: of the random selection.
        pattern: "2:4" or any N:M, blocks such as (1, 4), or None.
        layers: shares of their own for layers, by name, path or glob, 0 to 1.
        min_kept: how many weights of each tensor stay at least.

    Raises:
        UsageError: an unknown scope, selection or pattern, a share outside 0 to 1, a floor below
            0, or shares of layers under another scope than "layer".
    """

    scope: WeightScope = "layer"
    select: Select = "magnitude"
    seed: int = 0
    pattern: str | tuple[int, int] | None = None
    layers: Mapping[str, float] | None = None
    min_kept: int = 1

    def __post_init__(self) -> None:
        if self.scope not in WEIGHT_SCOPES:
            names = ", ".join(map(repr, WEIGHT_SCOPES))
            raise UsageError(f"scope is {self.scope!r}; choose one of {names}")
        if not callable(self.select) and self.select not in ("magnitude", "random"):
            raise UsageError(
                f"select is {self.select!r}; choose 'magnitude' or 'random', or give a function "
                "from the weights to their scores"
            )
        parse(self.pattern)
        if not isinstance(self.min_kept, int) or self.min_kept < 0:
            raise UsageError(
                f"min_kept is {self.min_kept!r}; give how many weights of each tensor stay at "
                "least, 0 or more"
            )
        for name, value in (self.layers or {}).items():
            check_sparsity(value, f"the share of {name!r}")
        if self.layers and self.scope != "layer":
            raise UsageError("layers have shares of their own only under the scope 'layer'")

    def per_kernel(self, kernels: Sequence[Kernel], common: float) -> list[float]:
        """The share to prune of each weight: its layer's own, or what follows from the common one.

        Raises:
            UsageError: a name or glob that matches no layer with a kernel.
        """
        if self.scope == "erk":
            return erk_sparsities([kernel.variable.shape for kernel in kernels], common)
        own = self.layers or {}
        for pattern in own:
            if not any(path_matches(kernel.path, pattern) for kernel in kernels):
                raise UsageError(f"layers: {pattern!r} matches no layer with a kernel to prune")
        return [
            next((own[pattern] for pattern in own if path_matches(kernel.path, pattern)), common)
            for kernel in kernels
        ]

    def check_reach(self, kernels: Sequence[Kernel], targets: Sequence[float]) -> None:
        """Checks that the targets are high enough for an N:M pattern; 0 leaves a layer dense.

        Raises:
            UsageError: one is not.
        """
        for kernel, layout, target in zip(kernels, self.layouts(kernels), targets, strict=True):
            pattern = layout and layout.pattern
            if isinstance(pattern, NofM) and target > 0 and not pattern.holds_at(target):
                raise UsageError(
                    f"pattern {pattern} needs a sparsity of {pattern.sparsity:.6g} in layer "
                    f"{kernel.path!r}; its target is {target:.6g}"
                )

    def sparsities(
        self,
        kernels: Sequence[Kernel],
        targets: Sequence[float],
        sparsity: float,
        final: float | None,
    ) -> list[float]:
        """The sparsity of each weight on the way to its target.

        Args:
            kernels: the weights.
            targets: see `per_kernel`.
            sparsity: what the schedule asks for now.
            final: the schedule's target, if it tells one; other targets need one above 0.
        """
        if self.scope == "erk":
            return self.per_kernel(kernels, sparsity)
        if not self.layers or not final:
            return [sparsity] * len(targets)
        # At the target the very number, and not one that a division has rounded.
        progress = 1.0 if sparsity == final else sparsity / final
        return [sparsity if own == final else min(1.0, own * progress) for own in targets]

    def layouts(self, kernels: Sequence[Kernel]) -> list[Layout | None]:
        """The pattern on each weight; None where there is none."""
        pattern = parse(self.pattern)
        return [layout_of(pattern, kernel.axes) for kernel in kernels]

    def masks(
        self,
        kernels: Sequence[Kernel],
        values: Mapping[int, np.ndarray] | Sequence[np.ndarray],
        sparsities: Sequence[float],
        masks: Sequence[np.ndarray] | None = None,
    ) -> Masks:
        """Cuts the masks.

        Args:
            kernels: the weights.
            values: what they are now. But under the scope "global" it may be a dict from the number
                of a weight: the others keep their mask.
            sparsities: share of dead entries in each; under the scope "global" all are the same.
            masks: the masks so far; they nest.

        Returns:
            Bool arrays, one for each weight, True where it lives; and the numbers of the weights
            of which fewer than `min_kept` would have stayed.
        """
        numbers = list(values) if isinstance(values, Mapping) else list(range(len(kernels)))
        if not numbers:
            return Masks(list(masks or []), [])
        layouts = self.layouts(kernels)
        arrays = [values[i] for i in numbers]
        how = (self.select, self.seed)
        if self.scope == "global":
            return global_masks(arrays, sparsities[0], masks, *how, layouts, self.min_kept)
        cut = layer_masks(
            arrays,
            [sparsities[i] for i in numbers],
            [masks[i] for i in numbers] if masks else None,
            *how,
            [layouts[i] for i in numbers],
            self.min_kept,
            numbers,
        )
        new = dict(zip(numbers, cut.masks, strict=True))
        every = [new[i] if i in new or masks is None else masks[i] for i in range(len(kernels))]
        return Masks(every, [numbers[place] for place in cut.floored])

    def warn_of_floor(self, caller: str, names: Sequence[str]) -> None:
        """Warns of weights that `min_kept` has kept from dying out.

        Args:
            caller: what the warning begins with.
            names: the weights; without any there is no warning.
        """
        if names:
            warnings.warn(
                f"{caller}: the sparsity would have left fewer than min_kept={self.min_kept} "
                f"weights in {listed(names)}, where no signal passes through: so many stay; ask "
                'for less there, or use the scope "layer"',
                stacklevel=3,
            )


class ChangedMask(NamedTuple):
    """A mask that was cut anew.

    Attributes:
        number: which weight of `NestedMasks.kernels`.
        value: what the weight was.
        mask: bool array, True where it lives.
    """

    number: int
    value: np.ndarray
    mask: np.ndarray


class NestedMasks:
    """The masks of some weights as their sparsity rises: what is dead stays dead.

    Args:
        rule: how masks are cut.
        kernels: the weights.
        final: the sparsity that the masks rise to, where it is known; layers with targets of
            their own need it.

    Raises:
        UsageError: the rule names a layer that there is not, or a pattern is out of its reach.

    Attributes:
        kernels: the weights.
        masks: bool arrays, one for each weight, True where it lives; none before the first cut.
        floored: paths of the layers where `min_kept` was needed, in their order.
    """

    def __init__(
        self, rule: MaskRule, kernels: Sequence[Kernel] = (), final: float | None = None
    ) -> None:
        self.kernels = list(kernels)
        self.masks: list[np.ndarray] = []
        self._rule = rule
        self._final = final
        self._targets: list[float] = []
        self._dead = [0] * len(self.kernels)
        self._sparsity = -1.0
        self._floored: set[int] = set()
        if self.kernels:
            # Also finds the names in `layers` that mean no layer.
            self._targets = rule.per_kernel(self.kernels, 1.0 if final is None else final)
            rule.check_reach(self.kernels, self._targets)

    @property
    def floored(self) -> list[str]:
        """Paths of the layers of which fewer weights than `min_kept` would have stayed."""
        return [self.kernels[index].path for index in sorted(self._floored)]

    def raise_to(self, sparsity: float) -> list[ChangedMask] | None:
        """Cuts the masks for a sparsity.

        Args:
            sparsity: share of dead weights, 0 to 1.

        Returns:
            The masks that are others now; None where this sparsity was reached before.

        Raises:
            UsageError: a score function gives another shape.
        """
        # Masks nest: the same sparsity or less cannot change them.
        if sparsity <= self._sparsity:
            return None
        self._sparsity = sparsity
        sparsities = self._rule.sparsities(self.kernels, self._targets, sparsity, self._final)
        values = self._changing(sparsities)
        old = self.masks
        self.masks, floored = self._rule.masks(self.kernels, values, sparsities, old or None)
        self._floored.update(floored)
        changed = [
            ChangedMask(number, value, self.masks[number])
            for number, value in values.items()
            if not old or self.masks[number] is not old[number]
        ]
        for number, _, mask in changed:
            self._dead[number] = mask.size - int(np.count_nonzero(mask))
        return changed

    def _changing(self, sparsities: Sequence[float]) -> dict[int, np.ndarray]:
        """Reads the weights whose masks may change, by their number."""
        # Masks nest: one with as many dead as asked cannot change.
        settled = {
            index
            for index, (mask, dead) in enumerate(zip(self.masks, self._dead, strict=False))
            if self._rule.scope != "global" and round(sparsities[index] * mask.size) <= dead
        }
        return {
            index: keras.ops.convert_to_numpy(kernel.variable)
            for index, kernel in enumerate(self.kernels)
            if index not in settled
        }
