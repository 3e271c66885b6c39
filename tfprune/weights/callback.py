"""`PruneWeights`: weight pruning in any `model.fit`, or by hand in any loop."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.training.schedule import Schedule, final_update, last_update, single_cut_reason
from tfprune.vocabulary import Policy, WeightScope
from tfprune.weights.attached import AttachedMasks, HoldingCallback, detach_leftovers
from tfprune.weights.masks import Select
from tfprune.weights.rule import ChangedMask, MaskRule, NestedMasks, listed
from tfprune.weights.selection import Kernel, Picks, unfinished, unpruned
from tfprune.weights.step_counter import StepCounter
from tfprune.weights.xnnpack import LEAST_ZEROS, kernels_of


class PruneWeights(HoldingCallback):
    """Makes the weights of a model sparse while it trains.

    A mask sits on each weight as a constraint that the optimizer applies inside its step; this
    callback only decides when the masks change. Masks nest: a dead weight stays dead. At the end
    of `fit` the masks are applied once more and removed, so that an ordinary Keras model with
    zeros remains, whose next training is free to move them.

    Steps are the `iterations` of the optimizer that moves the weights, either the model's own or
    another attribute of it, as in a GAN; where none moves, as under a `train_step` that assigns
    the weights itself, they are batches. They go on counting in a second `fit`, so a schedule for
    one starts there, or the model is compiled again. A killed training that is restored with its
    optimizer goes on with the masks it had: they are read from the zeros. A model that `fit` builds
    is pruned from its second batch on.

    A fit that ends in an error or an interrupt leaves the masks on, and zeros zero. They come off
    when the model begins its next `fit` or `train_on_batch`; in your own loop, use the
    pruner in a `with`, or call `detach()`. No file carries them in any case.

    The place in the list of callbacks does not matter: what others put into the weights, such as
    `SwapEMAWeights`, is masked after each of them. `EarlyStopping(restore_best_weights=True)` may
    put back weights from before the schedule arrived; they get the final masks, and a warning says
    that they never trained with them.

    A warning at the beginning names the layers whose weights stay dense, since they are frozen or
    of a type that tfprune does not know, and says if the schedule makes a single cut, or does not
    arrive within the training.

    Example:
        ```python
        schedule = polynomial_decay(0.0, 0.8, begin=0, end=2000)
        model.fit(x, y, callbacks=[PruneWeights(schedule)])
        ```

        In your own loop, whose step is traced after `attach()`:
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
            (int) to (prune now?, sparsity 0 to 1); see `tfprune.training.schedule.last_update`.
        scope: "layer" prunes each weight tensor to the schedule's sparsity; "global" ranks all
            of them together, and only their total has it; "erk" prunes each to a rate of its own,
            higher in larger ones, so that their total has it (`weights.rule.erk_sparsities`).
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
            embeddings are pruned by default; biases and norms never are.
        exclude: all but these layers, in the same form. Frozen weights are always left alone.
        policy: "xnnpack" prunes only what XNNPACK runs sparse, on phones and in browsers: see
            `tfprune.weights.xnnpack`. More than two thirds must be zero.
        seed: seed of the random selection.
        min_kept: how many weights of each tensor stay at least, whatever the sparsity: a layer
            without any passes no signal on. Of blocks, as many whole ones as hold them. A warning
            names the layers where it was needed; under the scope "global" others die in place.

    Raises:
        UsageError: an unknown scope, selection or pattern, a target outside 0 to 1, targets of
            layers that the schedule or the scope does not allow.
    """

    _attached: AttachedMasks

    def __init__(
        self,
        schedule: Schedule,
        scope: WeightScope = "layer",
        *,
        select: Select = "magnitude",
        pattern: str | tuple[int, int] | None = None,
        layers: Mapping[str, float] | None = None,
        include: Picks = None,
        exclude: Picks = None,
        policy: Policy | None = None,
        seed: int = 0,
        min_kept: int = 1,
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
        self.policy = policy
        self._rule = MaskRule(scope, select, seed, pattern, layers, min_kept)
        self._arrival = final_update(schedule)
        if layers and not (self._arrival and self._arrival.sparsity):
            raise UsageError(
                "PruneWeights: layers have targets in place of the schedule's, and this one does "
                "not tell a target above 0; give it an `end_step`, or use polynomial_decay"
            )
        self._warned: set[str] = set()
        # Whether the model waits to be built by its first batch.
        self._pending = False
        self._first_epoch = 0
        self._steps: StepCounter | None = None
        self._nested = NestedMasks(self._rule)
        self._last_step = -1
        # Steps that passed before the model was built.
        self._missed = 0
        # Updates for which the steps had to be looked up.
        self._looked_up = 0
        self._warned_early = False
        # The masks of all pruners of the fit, and the sparsity that they make up.
        self._logged: tuple[list[list[np.ndarray]], float] = ([], 0.0)

    def _start(self, nested: NestedMasks) -> None:
        """Begins with masks that were not cut yet."""
        self._nested = nested
        self._last_step = -1
        self._missed = self._looked_up = 0
        self._warned_early = False
        self._logged = ([], 0.0)

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Bool arrays by "layer path/weight name", True where a weight lives.

        Empty before the first update; kept after the end of training.
        """
        names = (kernel.name for kernel in self._nested.kernels)
        return dict(zip(names, self._nested.masks, strict=False))

    @property
    def sparsity(self) -> float:
        """Share of exact zeros in all pruned weights, as they are now, 0 to 1."""
        return _zeros(self._nested.kernels)

    @property
    def arrived(self) -> bool:
        """Whether the schedule has arrived; False for a callable that does not tell where it ends.

        `tfprune.training`'s early stopping waits for it.
        """
        return self._arrival is not None and self._last_step >= self._arrival.step

    def set_model(self, model: keras.Model) -> None:
        """Sets the model to prune; Keras calls it at the start of `fit`."""
        if model is not self.model:
            self._detach()
        super().set_model(model)

    def attach(self) -> None:
        """Puts a mask on each weight, with every entry alive until the next `update`.

        Attaching again, or after an interrupted fit, takes the earlier masks off first.

        Raises:
            UsageError: no model is set, or it has no weights to prune.
        """
        if self.model is None:
            raise UsageError("PruneWeights: no model to prune; call set_model(model) first")
        detach_leftovers(self.model)
        self._attach()

    def _attach(self) -> None:
        """Puts the masks on in addition to those of others."""
        self._detach()
        chosen = [
            kernel
            for kernel in kernels_of(self.model, self.include, self.exclude, self.policy)
            if kernel.variable.trainable
        ]
        left = self._left_dense()
        if not chosen:
            raise UsageError(
                f"PruneWeights: nothing to prune in the model {self.model.name!r}; it must be "
                "built, and have trainable kernels in the layers chosen"
                + "".join(f"; {part}" for part in left)
            )
        nested = NestedMasks(self._rule, chosen, self._arrival and self._arrival.sparsity)
        variables = [kernel.variable for kernel in chosen]
        self._attached = AttachedMasks(variables)
        self._steps = StepCounter(self.model, variables)
        self._start(nested)
        if left:
            self._warn(f"{'; '.join(left)}; or leave them out by exclude, if they shall stay dense")
        end = self._arrival.sparsity if self._arrival else 1.0
        if self.policy and end <= LEAST_ZEROS:
            self._warn(
                f"the schedule ends at {100 * end:.4g}% zeros, and XNNPACK runs sparse only what "
                f"has more than {100 * LEAST_ZEROS:.1f}%: give a higher target"
            )
        if single := single_cut_reason(self.schedule):
            self._warn(single)
        # A step traced earlier does not know of the masks.
        self.model.train_function = None

    def _left_dense(self) -> list[str]:
        """What stays dense without having been excluded, in words."""
        total = sum(math.prod(weight.shape) for weight in self.model.weights)
        return [
            (f"{part.size / total:.1%} of the model's weights stay dense, " if part.size else "")
            + f"{listed(part.paths)} {'is' if len(part.paths) == 1 else 'are'} {part.reason}"
            for part in unpruned(self.model, self.include, self.exclude)
        ]

    def detach(self) -> None:
        """Applies the masks once more and takes them off; nothing of tfprune remains."""
        attached = bool(self._attached)
        super()._finish()
        if not attached:
            return
        self._rule.warn_of_floor("PruneWeights", self._nested.floored)
        if self._looked_up > 1 and self._steps is not None and not self._steps.moved:
            self._warn(
                f"no step of an optimizer was seen in {self._looked_up} updates, so the sparsity "
                f"is {self.sparsity:.3g}; give the step yourself: update(step)"
            )

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
        if not self._attached or self._steps is None:
            raise UsageError("PruneWeights: no masks to update; call attach() first")
        if step is None:
            if not self._steps.known:
                raise UsageError(
                    "PruneWeights: the model has no optimizer whose steps could be counted; "
                    "give the step yourself: update(step)"
                )
            step = self._steps.now()
            self._looked_up += 1
        changed = self._advance(step)
        # In a loop of the user, what moves the weights is not known; it may apply no constraint.
        self._attached.apply()
        return changed

    def _advance(self, step: int) -> bool:
        """Changes the masks to those of a step."""
        update, first = last_update(self.schedule, self._last_step, step), self._last_step < 0
        self._last_step = max(step, self._last_step)
        changed = None if update is None else self._nested.raise_to(update.sparsity)
        if update is None or changed is None:
            return False
        for index, value, mask in changed:
            self._attached.change(index, value, mask)
        passed = getattr(self.model, "steps_per_execution", 1) + self._missed
        if first and step >= update.step + passed:
            self._warn_if_late(changed, step, update.step)
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Attaches the masks, if the model is built."""
        self._detach()
        self._start(NestedMasks(self._rule))
        self._steps = None
        self._surround_callbacks()
        self._pending = unfinished(self.model, self.include, self.exclude)
        if not self._pending:
            self._begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Warns, before the first batch, of a schedule that ends after the training."""
        # Not in on_train_begin: there a later callback may still restore the epoch and the steps.
        if self._last_step < 0:
            self._first_epoch = epoch
            if self._attached:
                self._warn_if_beyond(0)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Cuts the first masks."""
        # Not in on_train_begin: there a later callback may still restore weights and optimizer.
        if self._attached and self._last_step < 0:
            self._advance(self._now())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Updates the masks and logs "sparsity"."""
        if self._pending:
            self._pending = False
            self._begin()
            self._missed = batch + 1
            self._warn_if_beyond(self._missed)
        assert self._steps is not None
        self._steps.count_batch(batch)
        self._advance(self._now())
        if self._steps.left_alone:
            self._attached.apply()
        self._log_batch(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Masks what another callback put into the weights, and logs "sparsity"."""
        super().on_epoch_end(epoch, logs)
        self._log(logs)

    def _begin(self) -> None:
        """Attaches the masks in a fit."""
        self._attach()
        self._enter_fit(self._attached)

    def _finish(self) -> None:
        """Detaches the masks, and warns if the schedule has not arrived."""
        if self._last_step < 0 or self._steps is None:
            # No batch came: nothing was to be pruned.
            return super()._finish()
        step = max(self._last_step, self._steps.now())
        self.detach()
        arrival = self._arrival
        if arrival is None or step >= arrival.step or self._warned_early:
            return None
        if self.sparsity == arrival.sparsity:
            # Few weights are as many at the last step but one.
            return None
        counted, advice = "step", "train longer, or end the schedule sooner"
        if not self._steps.moved:
            counted = "batch"
            advice = (
                "no optimizer of the model moved these weights, so batches were counted; " + advice
            )
        self._warn(
            f"training ended at {counted} {step}, before the schedule arrives at step "
            f"{arrival.step}: sparsity is {self.sparsity:.3g} of {arrival.sparsity:.3g}; {advice}"
        )
        return None

    def _hold_finally(self, other: keras.callbacks.Callback) -> None:
        """Masks the weights that another callback leaves, and says if it put others back."""
        left = sum(
            int(np.count_nonzero(value[~mask]))
            for value, mask in zip(self._attached.values(), self._nested.masks, strict=False)
        )
        before = self.sparsity
        super()._hold_finally(other)
        if left:
            self._warn(
                f"{type(other).__name__} put weights in at the end of the training whose sparsity "
                f"was {before:.3g}; the masks were applied to them again, so it is "
                f"{self.sparsity:.3g}, but they have not trained so: evaluate the model, or let "
                f"{type(other).__name__} keep only epochs after the schedule has arrived"
            )

    def _now(self) -> int:
        assert self._steps is not None
        return max(self._last_step, self._steps.now())

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None and self._nested.kernels:
            logs["sparsity"] = _zeros(_kernels_of(self._siblings()))

    def _log_batch(self, logs: dict[str, Any] | None) -> None:
        """Logs the sparsity of the masks of all pruners, without a look at the weights."""
        if logs is None:
            return
        siblings = self._siblings()
        masks = [pruner._nested.masks for pruner in siblings]
        last, sparsity = self._logged
        same = len(last) == len(masks) and all(map(operator.is_, last, masks))
        if not any(masks):
            # Zeros there are not held; where there are none, none come.
            if not same or sparsity:
                self._logged = (masks, _zeros(_kernels_of(siblings)))
        elif not same:
            self._logged = (masks, _joint_sparsity([pruner._nested for pruner in siblings]))
        logs["sparsity"] = self._logged[1]

    def _siblings(self) -> list[PruneWeights]:
        """The pruners of this fit, this one among them."""
        pruners = [
            callback for callback in self._fit_callbacks() if isinstance(callback, PruneWeights)
        ]
        # Another callback may stand in the list for this one.
        return pruners if any(pruner is self for pruner in pruners) else [*pruners, self]

    def _warn(self, message: str) -> None:
        """Warns, once for each message."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"PruneWeights: {message}", stacklevel=3)

    def _warn_if_beyond(self, passed: int) -> None:
        """Warns if the schedule cannot arrive in the batches of this training.

        Args:
            passed: batches that are over.
        """
        batches, arrival = self.params.get("steps"), self._arrival
        if arrival is None or batches is None or self._steps is None or not self._steps.single:
            return
        left = batches * (self.params["epochs"] - self._first_epoch) - passed
        end = self._steps.now() + left // self._steps.accumulated
        if end >= arrival.step:
            return
        self._warned_early = True
        reached = last_update(self.schedule, -1, end)
        self._warn(
            f"the training will end at step {end}, before the schedule arrives at step "
            f"{arrival.step}: sparsity will be {reached.sparsity if reached else 0:.3g} of "
            f"{arrival.sparsity:.3g}; train longer, or end the schedule sooner"
        )

    def _warn_if_late(self, changed: Sequence[ChangedMask], step: int, due_step: int) -> None:
        """Warns when the first cut was due long ago and was not made then."""
        if any(np.any(value[~mask]) for _, value, mask in changed):
            warnings.warn(
                f"PruneWeights: the optimizer was at step {step} already, so the sparsity "
                f"{self.sparsity:.3g} due at step {due_step} came in one cut; begin the schedule "
                f"at step {step}, or compile the model again to count from 0",
                stacklevel=2,
            )


def _kernels_of(pruners: Sequence[PruneWeights]) -> list[Kernel]:
    return [kernel for pruner in pruners for kernel in pruner._nested.kernels]


def _zeros(chosen: Sequence[Kernel]) -> float:
    """Share of exact zeros in some weights, each of which counts once."""
    variables = {id(kernel.variable): kernel.variable for kernel in chosen}.values()
    values = [keras.ops.convert_to_numpy(variable) for variable in variables]
    size = sum(value.size for value in values)
    zeros = sum(value.size - int(np.count_nonzero(value)) for value in values)
    return zeros / size if size else 0.0


def _joint_sparsity(parts: Sequence[NestedMasks]) -> float:
    """Share of dead entries in the masks of several pruners, which may have weights in common."""
    joint: dict[int, np.ndarray] = {}
    for nested in parts:
        for index, kernel in enumerate(nested.kernels):
            shape, key = kernel.variable.shape, id(kernel.variable)
            mask = nested.masks[index] if nested.masks else np.ones(shape, bool)
            joint[key] = joint[key] & mask if key in joint else mask
    size = sum(mask.size for mask in joint.values())
    return sum(mask.size - int(np.count_nonzero(mask)) for mask in joint.values()) / size
