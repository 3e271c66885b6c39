"""`PruneWeights`: weight pruning in any `model.fit`, or by hand in any loop."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.weights.held import HeldMasks
from tfprune.weights.masks import Select, global_masks, layer_masks
from tfprune.weights.schedule import Schedule, arrival, due
from tfprune.weights.select import Picks, prunable

_CUT = {"layer": layer_masks, "global": global_masks}
_SELECTS = ("magnitude", "random")


class PruneWeights(keras.callbacks.Callback):
    """Makes the weights of a model sparse while it trains.

    A mask sits on each weight as a constraint that the optimizer applies inside its step; this
    callback only decides when the masks change. Masks nest: a dead weight stays dead. At the end
    of `fit` the masks are applied once more and removed, so that an ordinary Keras model with
    zeros remains, whose next training is free to move them.

    Steps are `optimizer.iterations`. They go on counting in a second `fit`, so a schedule for
    one starts there, or the model is compiled again. A killed training that is restored with its
    optimizer goes on with the masks it had: they are read from the zeros.

    A fit that ends in an error or an interrupt leaves the masks on. The next fit with a
    `PruneWeights` takes them over; for one without, call `detach()` first.

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
            (int) to (prune now?, sparsity 0 to 1); see `tfprune.weights.due`.
        scope: "layer" prunes each weight tensor to the schedule's sparsity; "global" ranks all
            of them together, and only their total has it.
        include: only these layers; names, paths or `(layer) -> bool`, see `prunable`.
        exclude: all but these layers, in the same form. Frozen weights are always left alone.
        select: which weights die; "magnitude", the smallest; "random", drawn with `seed`.
        seed: seed of the random selection.

    Raises:
        UsageError: an unknown scope or selection, or a target outside 0 to 1.
    """

    def __init__(
        self,
        schedule: Schedule,
        scope: Literal["layer", "global"] = "layer",
        include: Picks = None,
        exclude: Picks = None,
        select: Select = "magnitude",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise UsageError(
                f"PruneWeights: the schedule is {schedule!r}; give a callable from a step to "
                "(prune now?, sparsity), such as polynomial_decay(0.0, 0.8, begin=0, end=1000)"
            )
        for name, value, allowed in (("scope", scope, tuple(_CUT)), ("select", select, _SELECTS)):
            if value not in allowed:
                raise UsageError(
                    f"PruneWeights: {name} is {value!r}; choose {' or '.join(map(repr, allowed))}"
                )
        self.schedule = schedule
        self.scope = scope
        self.include = include
        self.exclude = exclude
        self.select = select
        self.seed = seed
        self._arrival = arrival(schedule)
        self._names: list[str] = []
        self._held = HeldMasks()
        self._masks: list[np.ndarray] = []
        self._last_step = -1
        self._target = -1.0

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Bool arrays by "layer path/weight name", True where a weight lives.

        Empty before the first update; kept after the end of training.
        """
        return dict(zip(self._names, self._masks, strict=False))

    @property
    def sparsity(self) -> float:
        """Share of dead entries over all pruned weights, 0 to 1."""
        size = sum(mask.size for mask in self._masks)
        return 1.0 - sum(map(np.count_nonzero, self._masks)) / size if size else 0.0

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
        chosen = [
            (f"{path}/{variable.name}", variable)
            for path, variable in prunable(self.model, self.include, self.exclude)
            if variable.trainable
        ]
        if not chosen:
            raise UsageError(
                f"PruneWeights: nothing to prune in the model {self.model.name!r}; it must be "
                "built, and have trainable kernels in the layers chosen"
            )
        self._held = HeldMasks(variable for _, variable in chosen)
        self._names = [name for name, _ in chosen]
        self._masks = []
        self._last_step = -1
        self._target = -1.0
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
            UsageError: no masks are attached, or the schedule asks for a sparsity outside 0 to 1.
        """
        if not self._held:
            raise UsageError("PruneWeights: no masks to update; call attach() first")
        step = self._iterations() if step is None else step
        now, first = due(self.schedule, self._last_step, step), self._last_step < 0
        self._last_step = step
        # Masks nest: the same sparsity or less cannot change them.
        if now is None or now.sparsity <= self._target:
            return False
        values = list(self._held.values())
        old = self._masks
        self._masks = _CUT[self.scope](values, now.sparsity, old, self.select, self.seed)
        self._target = now.sparsity
        self._held.assign(self._masks)
        if first and step >= now.step + getattr(self.model, "steps_per_execution", 1):
            self._warn_if_late(values, step, now.step)
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attaches the masks."""
        self.attach()
        # fit has made its train function before it calls this, and would run that one.
        self.model.make_train_function(force=True)

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
            self.model.train_function = None
        self._held.release()

    def _warn_if_late(self, values: list[np.ndarray], step: int, due_step: int) -> None:
        """Warns when the first cut was due long ago and was not made then."""
        pairs = zip(values, self._masks, strict=True)
        if any(np.any(value[~mask]) for value, mask in pairs):
            warnings.warn(
                f"PruneWeights: the optimizer was at step {step} already, so the sparsity "
                f"{self.sparsity:.3g} due at step {due_step} came in one cut; begin the schedule "
                f"at step {step}, or compile the model again to count from 0",
                stacklevel=2,
            )
