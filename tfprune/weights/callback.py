"""`PruneWeights`: weight pruning in any `model.fit`, or by hand in any loop."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.schedule import Schedule, arrival, due
from tfprune.weights import guard
from tfprune.weights.cut import Cut
from tfprune.weights.held import HeldMasks
from tfprune.weights.masks import Select
from tfprune.weights.select import Kernel, Picks, kernels


class PruneWeights(keras.callbacks.Callback):
    """Makes the weights of a model sparse while it trains.

    A mask sits on each weight as a constraint that the optimizer applies inside its step; this
    callback only decides when the masks change. Masks nest: a dead weight stays dead. At the end
    of `fit` the masks are applied once more and removed, so that an ordinary Keras model with
    zeros remains, whose next training is free to move them.

    Steps are `optimizer.iterations`. They go on counting in a second `fit`, so a schedule for
    one starts there, or the model is compiled again. A killed training that is restored with its
    optimizer goes on with the masks it had: they are read from the zeros.

    A fit that ends in an error or an interrupt leaves the masks on, and zeros zero. They come off
    when the model begins its next `fit` or `train_on_batch`; in a loop of one's own, use the
    pruner in a `with`, or call `detach()`. No file carries them in any case.

    In the list of callbacks, put this one after those that set weights (`SwapEMAWeights`,
    `EarlyStopping(restore_best_weights=True)`) and before those that save them.

    Example:
        ```python
        schedule = polynomial_decay(0.0, 0.8, begin=0, end=2000)
        model.fit(x, y, callbacks=[PruneWeights(schedule)])
        ```

        In a loop of one's own, whose step is traced after `attach()`:
        ```python
        pruner = PruneWeights(schedule)
        pruner.set_model(model)
        with pruner:  # attach() and detach()
            pruner.update(0)
            for step, batch in enumerate(batches, start=1):
                train_step(batch)
                pruner.update(step)
        ```

    Args:
        schedule: tfmot's `PolynomialDecay` or `ConstantSparsity`, or any callable from a step
            (int) to (prune now?, sparsity 0 to 1); see `tfprune.schedule.due`.
        scope: "layer" prunes each weight tensor to the schedule's sparsity; "global" ranks all
            of them together, and only their total has it.
        select: which weights die; "magnitude", the smallest; "random", drawn with `seed`; or a
            function from a weight as a NumPy array to scores of its shape, of which the lowest
            die. It is called for each weight at each update; an exact zero dies first whatever
            its score, a NaN last.
        pattern: None, single weights. "2:4", or any N:M: of M consecutive entries along the input
            axis of a kernel at most N live, once the sparsity is 1 - N/M, and on the way there
            the others die first; a higher target kills more. A last group that M does not divide
            keeps N as well. Depthwise kernels and embeddings sum over no such axis: they are
            pruned singly. (1, 4), or any pair: blocks of 1 input by 4 outputs, for each tap of a
            convolution, live or die together, the lowest mean score first, smaller ones at the
            edges that do not divide; the count is then exact to within half a block.
        layers: targets of their own for layers, in place of the schedule's: a dict from a name,
            path or glob such as `"dense*"` to the sparsity the layer ends at, 0 for never; the
            first that matches counts. On the way the layer has the schedule's sparsity, times its
            own target over the schedule's. Only with the scope "layer", and a schedule that tells
            its target, as tfmot's do.
        include: only these layers; names, paths, globs or `(layer) -> bool`, see `prunable`.
            Kernels of convolutions, Dense, EinsumDense, attention, recurrent cells, and
            embeddings are pruned if nothing is said; biases and norms never are.
        exclude: all but these layers, in the same form. Frozen weights are always left alone.
        seed: seed of the random selection.

    Raises:
        UsageError: an unknown scope, selection or pattern, a target outside 0 to 1, targets of
            layers that the schedule or the scope does not allow.
    """

    def __init__(
        self,
        schedule: Schedule,
        scope: Literal["layer", "global"] = "layer",
        *,
        select: Select = "magnitude",
        pattern: str | tuple[int, int] | None = None,
        layers: Mapping[str, float] | None = None,
        include: Picks = None,
        exclude: Picks = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise UsageError(
                f"PruneWeights: the schedule is {schedule!r}; give a callable from a step to "
                "(prune now?, sparsity), such as polynomial_decay(0.0, 0.8, begin=0, end=1000)"
            )
        self.schedule = schedule
        self.include = include
        self.exclude = exclude
        self._cut = Cut(scope, select, seed, pattern, layers)
        self._arrival = arrival(schedule)
        if layers and not (self._arrival and self._arrival.sparsity):
            raise UsageError(
                "PruneWeights: layers have targets in place of the schedule's, and this one does "
                "not tell a target above 0; give it an `end_step`, or use polynomial_decay"
            )
        self._held = HeldMasks()
        self._masks: list[np.ndarray] = []
        self._start([], [])

    def _start(self, chosen: list[Kernel], targets: list[float]) -> None:
        self._chosen = chosen
        self._targets = targets
        self._masks = []
        self._dead = [0] * len(chosen)
        self._last_step: int = -1
        self._target: float = -1.0

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Bool arrays by "layer path/weight name", True where a weight lives.

        Empty before the first update; kept after the end of training.
        """
        names = (kernel.name for kernel in self._chosen)
        return dict(zip(names, self._masks, strict=False))

    @property
    def sparsity(self) -> float:
        """Share of dead entries over all pruned weights, 0 to 1."""
        size = sum(mask.size for mask in self._masks)
        return sum(self._dead) / size if size else 0.0

    def set_model(self, model: keras.Model) -> None:
        """Sets the model to prune; Keras calls it at the start of `fit`."""
        if model is not self.model:
            self._release()
        super().set_model(model)

    def attach(self) -> None:
        """Puts a mask on each weight, with every entry alive until the next `update`.

        Attaching again, or after an interrupted fit, takes the earlier masks off first.

        Raises:
            UsageError: no model is set, or it has no weights to prune.
        """
        if self.model is None:
            raise UsageError("PruneWeights: no model to prune; call set_model(model) first")
        self._release()
        found = kernels(self.model, self.include, self.exclude)
        chosen = [kernel for kernel in found if kernel.variable.trainable]
        if not chosen:
            raise UsageError(
                f"PruneWeights: nothing to prune in the model {self.model.name!r}; it must be "
                "built, and have trainable kernels in the layers chosen"
            )
        # Also finds the names in `layers` that mean no layer.
        targets = self._cut.shares(chosen, self._arrival.sparsity if self._arrival else 1.0)
        self._cut.check_reach(chosen, targets)
        self._held = HeldMasks(kernel.variable for kernel in chosen)
        self._start(chosen, targets)
        # A step traced earlier does not know of the masks.
        self.model.train_function = None

    def detach(self) -> None:
        """Applies the masks once more and takes them off; nothing of tfprune remains."""
        self._held.apply()
        self._release()

    def __enter__(self) -> PruneWeights:
        self.attach()
        return self

    def __exit__(self, *_error: object) -> None:
        self.detach()

    def update(self, step: int | None = None) -> bool:
        """Changes the masks if the schedule asked for it since the last update.

        The first update after `attach()` looks at all the steps before it, which puts back the
        masks of a training that goes on.

        Args:
            step: updates of the weights so far; `optimizer.iterations` if not given.

        Returns:
            Whether the masks were cut anew.

        Raises:
            UsageError: no masks are attached, the schedule asks for a sparsity outside 0 to 1, or
                a score function gives another shape.
        """
        if not self._held:
            raise UsageError("PruneWeights: no masks to update; call attach() first")
        step = self._iterations() if step is None else step
        now, first = due(self.schedule, self._last_step, step), self._last_step < 0
        self._last_step = step
        # Masks nest: the same sparsity or less cannot change them.
        if now is None or now.sparsity <= self._target:
            return False
        self._target = now.sparsity
        final = self._arrival.sparsity if self._arrival else None
        sparsities = self._cut.sparsities(self._targets, now.sparsity, final)
        values = self._changing(sparsities)
        old = self._masks
        self._masks = self._cut.masks(self._chosen, values, sparsities, old or None)
        for index, value in values.items():
            mask = self._masks[index]
            if not old or mask is not old[index]:
                self._held.change(index, value, mask)
                self._dead[index] = mask.size - int(np.count_nonzero(mask))
        if first and step >= now.step + getattr(self.model, "steps_per_execution", 1):
            self._warn_if_late(values, step, now.step)
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attaches the masks."""
        self.attach()
        guard.begin(self.model, self._held)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Cuts the first masks."""
        # Not in on_train_begin: there a later callback may still restore weights and optimizer.
        if self._last_step < 0:
            self.update()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Updates the masks and logs "sparsity"."""
        self.update()
        self._log(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs "sparsity"."""
        # SwapEMAWeights puts averages in, which are not zero where weights are dead.
        self._held.apply()
        self._log(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Detaches the masks, and warns if the schedule has not arrived."""
        # An optimizer with use_ema has just put averages in; detaching masks them.
        self.detach()
        step = self._iterations()
        if self._arrival is not None and step < self._arrival.step:
            warnings.warn(
                f"PruneWeights: training ended at step {step}, before the schedule arrives at "
                f"step {self._arrival.step}: sparsity is {self.sparsity:.3g} of "
                f"{self._arrival.sparsity:.3g}; train longer, or end the schedule sooner",
                stacklevel=2,
            )

    def _iterations(self) -> int:
        return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs["sparsity"] = self.sparsity

    def _release(self) -> None:
        if self._held:
            self._held.release()
            guard.end(self.model, self._held)

    def _changing(self, sparsities: list[float]) -> dict[int, np.ndarray]:
        """Reads the weights whose masks may change, by their number."""
        # Masks nest: one with as many dead as asked cannot change.
        settled = {
            index
            for index, (mask, dead) in enumerate(zip(self._masks, self._dead, strict=False))
            if self._cut.scope == "layer" and round(sparsities[index] * mask.size) <= dead
        }
        return {
            index: keras.ops.convert_to_numpy(kernel.variable)
            for index, kernel in enumerate(self._chosen)
            if index not in settled
        }

    def _warn_if_late(self, values: Mapping[int, np.ndarray], step: int, due_step: int) -> None:
        """Warns when the first cut was due long ago and was not made then."""
        if any(np.any(value[~self._masks[i]]) for i, value in values.items()):
            warnings.warn(
                f"PruneWeights: the optimizer was at step {step} already, so the sparsity "
                f"{self.sparsity:.3g} due at step {due_step} came in one cut; begin the schedule "
                f"at step {step}, or compile the model again to count from 0",
                stacklevel=2,
            )
