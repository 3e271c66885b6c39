"""Learns which channels a model can do without, while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.errors import UsageError
from tfprune.filters.cost import Cost
from tfprune.filters.gradual import Due, Gradual
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, scores
from tfprune.filters.lasso import GroupLasso, shrinkage
from tfprune.filters.plan import check_share, keeping_cost
from tfprune.filters.unit_weights import (
    AfterUpdate,
    UnitWeights,
    of_branches,
    of_channels,
    removable_units,
)
from tfprune.model.constraints import unlink
from tfprune.training.schedule import polynomial_decay


class LearnStructure(keras.callbacks.Callback):
    """Trains so that whole channels become exactly zero, under group lasso or up to a target.

    One group is everything that makes a removable channel: its filter in each of the coupled
    layers, its biases, and its BatchNorm gamma and beta. After every update, inside the compiled
    step, each group is moved by the proximal step of `GroupLasso`; the loss itself carries no
    penalty. A group that reaches zero contributes nothing, so `tfprune.slim(model, dead=True)`
    removes it for free.

    A filter before BatchNorm has a direction but no scale: shrinking it changes no output, and
    only makes its next steps larger, until training breaks down. So the norm of a group, and the
    shrinkage, are those of the weights that carry its scale (gamma and beta, or the filter and bias
    where no BatchNorm follows); the filters before BatchNorm become zero when their group does.

    The strength is given, or found from a target: `macs=0.5` keeps half of the MACs.
    What is left of them then falls by tfmot's `PolynomialDecay` from `begin` to `end` of the
    training. In each stage of it, the channels that a plan for the stage would remove get, each,
    the strength that takes its norm to zero by the end of the stage, as a growing penalty would;
    the plan is made anew for the next. So the strength is bounded by what the norm is, the target
    is met when `end` comes, and the rest of the training is for those that live.

    Use it as a callback of any `model.fit`. Nothing of it remains in the model afterwards.

    Args:
        penalty: the regularizer whose proximal step is taken, or its strength, for all channels
            alike; with a target, it ends when that is met. Its groups are `filter`, or `depth`:
            then whole residual branches become zero, for `tfprune.slim(model, dead=True)` to
            remove.
        filters: the share of the removable channels to keep, 0 to 1.
        macs: the share of the multiply-accumulates to keep, instead.
        params: the share of the parameters to keep, instead.
        importance: what the plans of a target go by; see `tfprune.slim`. `taylor` takes the
            gradients of the training itself: the squares of each update's gradient times weight,
            summed since the plan before. After the beginning of an epoch it listens for one stage.
        round_to: the sizes of groups become multiples of this where they shrink for a target.
        begin: the share of the training after which channels begin to go, 0 to 1.
        end: the share of the training at which the target is met, at the latest three stages later.
        frequency: updates in a stage.

    Raises:
        UsageError: no strength and no target, two targets or one out of range, the penalty groups
            something other than filters; or, when training begins, the model has no graph or no
            removable channel, the target is out of reach, or the length of the training is open.

    Source:
        Wen et al. 2016, Learning Structured Sparsity in Deep Neural Networks; Yuan & Lin 2006;
        Parikh & Boyd 2014 for the proximal step; Wang et al. 2021, Neural Pruning via Growing
        Regularization; Zhu & Gupta 2017 for the course of the target.
    """

    def __init__(
        self,
        penalty: GroupLasso | float | None = None,
        *,
        filters: float | None = None,
        macs: float | None = None,
        params: float | None = None,
        importance: Importance = "lasso",
        round_to: int = 1,
        begin: float = 0.0,
        end: float = 0.5,
        frequency: int = 100,
    ) -> None:
        super().__init__()
        self.penalty = penalty if isinstance(penalty, GroupLasso) else GroupLasso(penalty or 0.0)
        if self.penalty.groups not in ("filter", "depth"):
            raise UsageError(
                f"LearnStructure learns which filters or branches can go, not "
                f"{self.penalty.groups!r} groups: put such a GroupLasso on the kernels as their "
                "regularizer"
            )
        given = {"filters": filters, "macs": macs, "params": params}
        self._target = {name: share for name, share in given.items() if share is not None}
        if len(self._target) > 1:
            raise UsageError(f"LearnStructure takes one target, not {' and '.join(self._target)}")
        if penalty is None and not self._target:
            raise UsageError("LearnStructure needs a strength, or a target such as macs=0.5")
        if self._target and self.penalty.groups == "depth":
            raise UsageError("LearnStructure has targets for filters only: give depth a strength")
        for name, share in self._target.items():
            check_share(name, share)
        if not 0 <= begin < end <= 1:
            raise UsageError(
                f"begin={begin:g}, end={end:g} is no part of a training: give 0 <= begin < end <= 1"
            )
        self._importance, self._round_to = importance, round_to
        self._begin, self._end, self._frequency = begin, end, frequency
        self._last: keras.Variable | None = None
        self._after: AfterUpdate | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the groups and puts the proximal step into the training step."""
        self._detach()
        self._weights = weights = self._found()
        # What a fit that goes on after a kill finds dead is dead.
        squares = ops.convert_to_numpy(weights.squares((*weights.scaled, *weights.following)))
        self._alive = keras.Variable((squares > 0).astype("float32"), trainable=False)
        self._due = keras.Variable(np.zeros_like(weights.sizes), trainable=False)
        self._deadline = keras.Variable(0, trainable=False, dtype="int32")
        self._strength = keras.Variable(self.penalty.strength, trainable=False, dtype="float32")
        self._heard = keras.Variable(np.zeros_like(weights.sizes), trainable=False)
        self._gradual: Gradual | None = None
        self._last = self.model.trainable_variables[-1]
        self._after = AfterUpdate(self._last.constraint, self._proximal_step)
        self._after.on(self._last)
        if self._target and self._importance == "taylor":
            self._listen()
        # A step traced earlier would not contain the constraint.
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans anew, so that a fit that is taken up at an epoch goes on like the one before."""
        if self._target:
            if self._gradual is None:
                self._gradual = self._course(epoch)
            self._plan(afresh=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans the next stage; tells progress bars the share of channels that are zero."""
        if self._gradual is not None and self._step() >= int(self._deadline):
            self._plan()
        if logs is not None and batch % 50 == 0:
            self._share = self.dead_share()
        if logs is not None:
            logs["sparsity"] = self._share

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the share of removable channels that are zero, and how many of each group live.

        They are `sparsity` and, for each group, `live/` and the name of its first layer; or of each
        branch the layer that ends it, 1 or 0.
        """
        if logs is None:
            return
        logs["sparsity"] = self._share = self.dead_share()
        live = dict.fromkeys(self._weights.names, 0)
        for name, alive in zip(self._weights.names, ops.convert_to_numpy(self._alive), strict=True):
            live[name] += int(alive)
        logs |= {f"live/{name}": count for name, count in live.items()}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves nothing behind in the model."""
        # Averaged weights (use_ema), which Keras has just put in place, remember dead channels.
        self._weights.scale((*self._weights.scaled, *self._weights.following), self._alive)
        self._detach()

    def dead_share(self) -> float:
        """The share of the units, channels or branches, that are zero, 0 to 1."""
        return 1 - float(ops.mean(self._alive))

    _share = 0.0

    def _detach(self) -> None:
        if self._last is not None and self._after is not None:
            # Another callback may have put a mask above it.
            unlink(self._last, self._after)
            self.model.train_function = None
            # Only if it listened.
            vars(self._optimizer).pop("apply", None)
        self._last = self._after = None

    def _listen(self) -> None:
        """Hears the gradients that the optimizer is given, inside the compiled step."""
        own, weights = self._optimizer.apply, self._weights

        def apply(grads: Sequence[Any], trainable_variables: Any = None) -> None:
            # `fit` names the variables; without names they are all, in their order.
            variables = trainable_variables or self.model.trainable_variables
            gradient = {id(each): value for each, value in zip(variables, grads, strict=True)}
            products = weights.products(weights.scaled, gradient)
            self._heard.assign_add(ops.square(products))
            own(grads, trainable_variables)

        self._optimizer.apply = apply

    def _found(self) -> UnitWeights:
        if self.penalty.groups == "depth":
            weights = of_branches(self.model)
            if not weights.names:
                raise UsageError(
                    f"model {self.model.name!r} has no residual branch to learn about: depth is "
                    "for blocks that are added to what they take"
                )
            return weights
        self._groups = ChannelGroups(self.model)
        self._units = removable_units(self._groups)
        if not self._units.size:
            raise UsageError(
                f"model {self.model.name!r} has no removable channel to learn about: see "
                "`tfprune inspect` for what freezes them"
            )
        return of_channels(self._groups)

    def _course(self, epoch: int) -> Gradual:
        """The stages of this training, of which `epoch` epochs are over."""
        if not self.params.get("steps"):
            raise UsageError(
                "a target needs to know how long the training is: give fit steps_per_epoch"
            )
        accumulated = self._optimizer.gradient_accumulation_steps or 1
        self._per_epoch = self.params["steps"] // accumulated
        first = self._step() - epoch * self._per_epoch
        total = self.params["epochs"] * self._per_epoch
        begin, end = (first + round(share * total) for share in (self._begin, self._end))
        ((name, share),) = self._target.items()
        return Gradual(
            self._groups,
            partial(self._missing, name),
            polynomial_decay(0.0, 1 - share, begin, max(end, begin + 1), self._frequency),
        )

    def _missing(self, name: str, share: float) -> np.ndarray:
        """The units that live and must go for a share of a cost to be all that is left."""
        ranked = scores(self._groups, self._taylor if self._listens else self._importance)
        # What is dead goes first, whatever it scores: it will not come back.
        dead = self._units[ops.convert_to_numpy(self._alive) == 0]
        ranked[dead] = -1.0
        cost = Cost(self._groups)
        counts: dict[str, Callable[[np.ndarray], int]] = {
            "macs": cost.macs,
            "params": cost.params,
            "filters": lambda alive: int(alive[self._units].sum()),
        }
        plan = keeping_cost(self._groups, ranked, counts[name], share, name, self._round_to)
        missing = ~plan.alive
        missing[dead] = False
        return missing

    @property
    def _listens(self) -> bool:
        return self._importance == "taylor"

    def _taylor(self, groups: ChannelGroups) -> np.ndarray:
        found = np.zeros(groups.unit_count)
        found[self._units] = np.sqrt(ops.convert_to_numpy(self._heard))
        return found

    def _plan(self, afresh: bool = False) -> None:
        """Says what is due next, and by when.

        Args:
            afresh: nothing is known of what was before, such as gradients.
        """
        assert self._gradual is not None
        step = self._step()
        if self._listens and afresh:
            # What is heard and due does not outlive an epoch, so that it need not be saved.
            self._epoch_end = step + self._per_epoch
            listening = min(self._frequency, max(1, self._per_epoch // 2))
            due = Due(np.zeros(self._groups.unit_count, bool), step + listening)
        else:
            due = self._gradual.due(step)
            if self._listens and not due.last:
                due = replace(due, step=min(due.step, self._epoch_end))
        self._heard.assign(ops.zeros_like(self._heard))
        self._due.assign(due.units[self._units].astype("float32"))
        self._deadline.assign(due.step)
        if due.last:
            self._strength.assign(0.0)

    @property
    def _optimizer(self) -> Any:
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)

    def _step(self) -> int:
        return int(self._optimizer.iterations)

    def _proximal_step(self) -> None:
        inner = self._optimizer
        # Constraints run at every accumulation step; so many small thresholds make one whole.
        share = 1 / (inner.gradient_accumulation_steps or 1)
        # Momentum makes 1 / (1 - momentum) of each gradient; the penalty must weigh as much against
        # the loss as it would as a term of it.
        rate = share / (1 - getattr(inner, "momentum", 0.0))
        threshold = self.model.optimizer.learning_rate * self._strength * rate
        weights = self._weights
        factor = shrinkage(weights.squares(weights.scaled), weights.sizes, threshold)
        if self._target:
            # This update is not counted yet: with one left, it is the last.
            left = ops.cast(self._deadline - ops.cast(inner.iterations, "int32"), "float32")
            fading = ops.where(left > 1, 1 - share / ops.maximum(left, 1.0), 0.0)
            factor = ops.minimum(factor, 1 - self._due * (1 - fading))
        # A dead channel stays dead: without its filter, beta could come back as a mere constant.
        self._alive.assign(self._alive * ops.cast(factor > 0, "float32"))
        weights.scale(weights.scaled, factor * self._alive)
        weights.scale(weights.following, self._alive)
