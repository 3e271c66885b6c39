"""How masks are cut: over which scope, by which scores, in which pattern, to which shares."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfprune.errors import UsageError
from tfprune.model.graph import path_matches
from tfprune.training.schedule import check_sparsity
from tfprune.weights.masks import Masks, Select, global_cut, layer_cut
from tfprune.weights.patterns import Layout, NofM, layout_of, parse
from tfprune.weights.select import Kernel

_LISTED = 5


def listed(names: Sequence[str]) -> str:
    """The first names of many, quoted, and how many more there are."""
    more = len(names) - _LISTED
    first = ", ".join(repr(name) for name in names[:_LISTED])
    return f"{first} and {more} more" if more > 0 else first


@dataclass(frozen=True)
class Cut:
    """The choices that `PruneWeights` and `prune_once` share; see there.

    Raises:
        UsageError: an unknown scope, selection or pattern, a share outside 0 to 1, a floor below
            0, or shares of layers under the scope "global".
    """

    scope: Literal["layer", "global"] = "layer"
    select: Select = "magnitude"
    seed: int = 0
    pattern: Any = None
    layers: Mapping[str, float] | None = None
    min_kept: int = 1

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise UsageError(f"scope is {self.scope!r}; choose 'layer' or 'global'")
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
        if self.layers and self.scope == "global":
            raise UsageError("layers have shares of their own only under the scope 'layer'")

    def shares(self, chosen: Sequence[Kernel], common: float) -> list[float]:
        """The share of each weight: its layer's own, or the common one.

        Raises:
            UsageError: a name or glob that matches no layer with a kernel.
        """
        own = self.layers or {}
        for pattern in own:
            if not any(path_matches(kernel.path, pattern) for kernel in chosen):
                raise UsageError(f"layers: {pattern!r} matches no layer with a kernel to prune")
        return [
            next((own[pattern] for pattern in own if path_matches(kernel.path, pattern)), common)
            for kernel in chosen
        ]

    def check_reach(self, chosen: Sequence[Kernel], targets: Sequence[float]) -> None:
        """Checks that the targets are high enough for an N:M pattern; 0 leaves a layer dense.

        Raises:
            UsageError: one is not.
        """
        for kernel, layout, target in zip(chosen, self.layouts(chosen), targets, strict=True):
            pattern = layout and layout.pattern
            # Near enough: masks.py takes it for the pattern's own.
            if isinstance(pattern, NofM) and 0 < target < pattern.sparsity - 1e-6:
                raise UsageError(
                    f"pattern {pattern} needs a sparsity of {pattern.sparsity:.6g} in layer "
                    f"{kernel.path!r}; its target is {target:.6g}"
                )

    def sparsities(
        self, targets: Sequence[float], sparsity: float, final: float | None
    ) -> list[float]:
        """The sparsity of each weight on the way to its target.

        Args:
            targets: as of `shares`.
            sparsity: what the schedule asks for now.
            final: the schedule's target, if it tells one; others than this need one above 0.
        """
        if not self.layers or not final:
            return [sparsity] * len(targets)
        # At the target the very number, and not one that a division has rounded.
        way = 1.0 if sparsity == final else sparsity / final
        return [sparsity if own == final else min(1.0, own * way) for own in targets]

    def layouts(self, chosen: Sequence[Kernel]) -> list[Layout | None]:
        """The pattern on each weight; None where there is none."""
        pattern = parse(self.pattern)
        return [layout_of(pattern, kernel.axes) for kernel in chosen]

    def masks(
        self,
        chosen: Sequence[Kernel],
        values: Mapping[int, np.ndarray] | Sequence[np.ndarray],
        sparsities: Sequence[float],
        masks: Sequence[np.ndarray] | None = None,
    ) -> Masks:
        """Cuts the masks.

        Args:
            chosen: the weights.
            values: what they are now. Under the scope "layer" it may be a dict from the number
                of a weight: the others keep their mask.
            sparsities: share of dead entries in each; under the scope "global" all are the same.
            masks: the masks so far; they nest.

        Returns:
            Bool arrays, one a weight, True where it lives; and the numbers of the weights of
            which fewer than `min_kept` would have stayed.
        """
        numbers = list(values) if isinstance(values, Mapping) else list(range(len(chosen)))
        if not numbers:
            return Masks(list(masks or []), [])
        layouts = self.layouts(chosen)
        arrays = [values[i] for i in numbers]
        how = (self.select, self.seed)
        if self.scope == "global":
            return global_cut(arrays, sparsities[0], masks, *how, layouts, self.min_kept)
        cut = layer_cut(
            arrays,
            [sparsities[i] for i in numbers],
            [masks[i] for i in numbers] if masks else None,
            *how,
            [layouts[i] for i in numbers],
            numbers,
            self.min_kept,
        )
        new = dict(zip(numbers, cut.masks, strict=True))
        every = [new[i] if i in new or masks is None else masks[i] for i in range(len(chosen))]
        return Masks(every, [numbers[place] for place in cut.floored])

    def warn_of_floor(self, who: str, names: Sequence[str]) -> None:
        """Warns of weights that `min_kept` has kept from dying out.

        Args:
            who: what the warning begins with.
            names: of the weights; without any there is no warning.
        """
        if names:
            warnings.warn(
                f"{who}: the sparsity would have left fewer than min_kept={self.min_kept} weights "
                f"in {listed(names)}, where no signal passes through: so many stay; ask for less "
                'there, or use the scope "layer"',
                stacklevel=3,
            )
