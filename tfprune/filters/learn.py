"""Learns which channels a model can do without, while it trains."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.data.adapting import Data
from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, from_training, needs_data
from tfprune.filters.planner import Course, Stage, StagePlanner
from tfprune.filters.proximal import ProximalStep
from tfprune.filters.targets import Target
from tfprune.filters.unit_weights import UnitWeights, of_branches, of_channels, removable_units
from tfprune.model.group_lasso import GroupLasso
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

    Example:
        ```python
        model.fit(x, y, epochs=10, callbacks=[LearnStructure(macs=0.5)])
        slim = tfprune.slim(model, dead=True)
        ```

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
            summed since the plan before. A stage at the beginning of an epoch only collects them.
        data: labelled training examples for an importance of your own that looks at some; see
            `tfprune.slim`. `taylor` needs none here.
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
        data: Data | None = None,
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
        shares = {"filters": filters, "macs": macs, "params": params}
        given = any(share is not None for share in shares.values())
        self._target = Target.of(**shares) if given else None
        if penalty is None and self._target is None:
            raise UsageError("LearnStructure needs a strength, or a target such as macs=0.5")
        missing = data is None and needs_data(importance) and not from_training(importance)
        if self._target is not None and missing:
            raise UsageError(
                f"importance {importance!r} needs labelled examples: give LearnStructure "
                "data=(x, y)"
            )
        if self._target is not None and self.penalty.groups == "depth":
            raise UsageError("LearnStructure has targets for filters only: give depth a strength")
        if not 0 <= begin < end <= 1:
            raise UsageError(
                f"begin={begin:g}, end={end:g} is not a part of a training: "
                "give 0 <= begin < end <= 1"
            )
        self._importance: Importance = importance
        self._data = data
        self._round_to = round_to
        self._begin, self._end, self._frequency = begin, end, frequency
        self._groups: ChannelGroups | None = None
        # Of each unit, what it is a part of.
        self._names: tuple[str, ...] = ()
        self._proximal: ProximalStep | None = None
        self._planner: StagePlanner | None = None
        self._last_stage = False
        # The share of dead units as it was logged last.
        self._logged = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Finds the groups and puts the proximal step into the training step."""
        if self._proximal is not None:
            self._proximal.detach()
        self._planner = None
        self._last_stage = False
        weights = self._find_units()
        self._names = weights.names
        self._proximal = ProximalStep(
            self.model,
            weights,
            self.penalty.strength,
            staged=self._target is not None,
            collects=self._target is not None and from_training(self._importance),
        )
        self._proximal.attach()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans anew, so that a fit that is taken up at an epoch goes on like the one before."""
        if self._target is None:
            return
        if self._planner is None:
            self._planner = self._make_planner(epoch)
        proximal = self._running
        self._begin_stage(self._planner.first_stage(proximal.progress()))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans the next stage; tells progress bars the share of channels that are zero."""
        proximal = self._running
        if self._planner is not None and proximal.stage_over:
            self._begin_stage(self._planner.stage(proximal.progress()))
        if logs is not None:
            # Now and then: it waits for the device.
            if batch % 50 == 0:
                self._logged = self.dead_share()
            logs["sparsity"] = self._logged

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the share of removable channels that are zero, and how many of each group live.

        They are `sparsity` and, for each group, `live/` and the name of its first layer; or of each
        branch the layer that ends it, 1 or 0.
        """
        if logs is None:
            return
        logs["sparsity"] = self._logged = self.dead_share()
        live = dict.fromkeys(self._names, 0)
        for name, alive in zip(self._names, self._running.alive, strict=True):
            live[name] += int(alive)
        logs |= {f"live/{name}": count for name, count in live.items()}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves nothing behind in the model."""
        # Averaged weights (use_ema), which Keras has just put in place, remember dead channels.
        self._running.silence_dead()
        self._running.detach()

    @property
    def arrived(self) -> bool:
        """Whether the target is met; True without a target.

        `tfprune.training`'s early stopping waits for it.
        """
        return self._target is None or self._last_stage

    def dead_share(self) -> float:
        """The share of the units, channels or branches, that are zero, 0 to 1."""
        return self._running.dead_share()

    def _begin_stage(self, stage: Stage) -> None:
        self._last_stage = stage.last
        self._running.begin(stage)

    @property
    def _running(self) -> ProximalStep:
        """The proximal step of the training.

        Raises:
            UsageError: no training has begun.
        """
        if self._proximal is None:
            raise UsageError("LearnStructure knows of no units before a training has begun")
        return self._proximal

    def _find_units(self) -> UnitWeights:
        if self.penalty.groups == "depth":
            weights = of_branches(self.model)
            if not weights.names:
                raise UsageError(
                    f"model {self.model.name!r} has no residual branch to learn about: depth is "
                    "for blocks that are added to what they take"
                )
            return weights
        self._groups = ChannelGroups(self.model)
        if not removable_units(self._groups).size:
            raise UsageError(
                f"model {self.model.name!r} has no removable channel to learn about: see "
                "`tfprune inspect` for what freezes them"
            )
        return of_channels(self._groups)

    def _make_planner(self, epoch: int) -> StagePlanner:
        """The planner of this training, of which `epoch` epochs are over."""
        assert self._target is not None
        assert self._groups is not None
        if not self.params.get("steps"):
            raise UsageError(
                "a target needs to know how long the training is: give fit steps_per_epoch"
            )
        per_epoch = self.params["steps"] // self._running.batches_per_step
        first = self._running.updates - epoch * per_epoch
        total = self.params["epochs"] * per_epoch
        begin, end = (first + round(part * total) for part in (self._begin, self._end))
        schedule = polynomial_decay(
            0.0, 1 - self._target.value, begin, max(end, begin + 1), self._frequency
        )
        course = Course(schedule, per_epoch)
        return StagePlanner(
            self._groups, self._target, self._importance, self._round_to, course, self._data
        )
