"""The callback that learns which channels a model can do without, toward any target."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.data.adapting import Data
from tfprune.errors import UsageError
from tfprune.filters.groups import ChannelGroups
from tfprune.filters.importance import Importance, from_training, needs_data
from tfprune.filters.proximal import ProximalStep
from tfprune.filters.stages import Course, OpenTarget, Stage, StagePlanner
from tfprune.filters.unit_weights import UnitWeights, of_branches, of_channels, removable_units
from tfprune.model.group_lasso import GroupLasso
from tfprune.training.schedule import polynomial_decay


class StructureLearner(keras.callbacks.Callback):
    """Trains so that whole channels become exactly zero; `tfprune.LearnStructure` says how.

    Args:
        penalty: see `tfprune.LearnStructure`.
        target: what is approached in stages; None for the strength alone.
        importance: see `tfprune.LearnStructure`.
        data: see `tfprune.LearnStructure`.
        begin: see `tfprune.LearnStructure`.
        end: see `tfprune.LearnStructure`.
        frequency: see `tfprune.LearnStructure`.

    Raises:
        UsageError: see `tfprune.LearnStructure`.
    """

    def __init__(
        self,
        penalty: GroupLasso | float | None = None,
        *,
        target: OpenTarget | None = None,
        importance: Importance = "lasso",
        data: Data | None = None,
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
        self.target = target
        if penalty is None and target is None:
            raise UsageError("LearnStructure needs a strength, or a target such as macs=0.5")
        missing = data is None and needs_data(importance) and not from_training(importance)
        if target is not None and missing:
            raise UsageError(
                f"importance {importance!r} needs labelled examples: give LearnStructure "
                "data=(x, y)"
            )
        if target is not None and self.penalty.groups == "depth":
            raise UsageError("LearnStructure has targets for filters only: give depth a strength")
        if not 0 <= begin < end <= 1:
            raise UsageError(
                f"begin={begin:g}, end={end:g} is not a part of a training: "
                "give 0 <= begin < end <= 1"
            )
        self._importance: Importance = importance
        self._data = data
        self._begin, self._end, self._frequency = begin, end, frequency
        self._groups: ChannelGroups | None = None
        # Of each unit, what it is a part of.
        self._names: tuple[str, ...] = ()
        self._proximal: ProximalStep | None = None
        self._planner: StagePlanner | None = None
        self._last_stage = False
        # The share of dead units as it was logged last.
        self._logged = 0.0
        self._prepared = False

    def prepare(self, model: keras.Model) -> None:
        """Looks at the model that a target is a share of; `fit` does it where it was not done.

        A training that goes on after a kill has other weights: then give what it began with.

        Args:
            model: before its training.

        Raises:
            UsageError: the target is out of reach.
        """
        if self.target is not None:
            self.target.prepare(model)
        self._prepared = True

    def set_model(self, model: keras.Model) -> None:
        """Prepares for a model that a training begins with."""
        super().set_model(model)
        if not self._prepared:
            self.prepare(model)

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
            staged=self.target is not None,
            collects=self.target is not None and from_training(self._importance),
        )
        self._proximal.attach()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans anew, so that a fit that is taken up at an epoch goes on like the one before."""
        if self.target is None:
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
        self._prepared = False
        if self.target is not None:
            self.target.finish(self.model)

    @property
    def arrived(self) -> bool:
        """Whether the target is met; True without a target.

        `tfprune.training`'s early stopping waits for it.
        """
        return self.target is None or self._last_stage

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
        assert self.target is not None
        assert self._groups is not None
        if not self.params.get("steps"):
            raise UsageError(
                "a target needs to know how long the training is: give fit steps_per_epoch"
            )
        per_epoch = self.params["steps"] // self._running.batches_per_step
        first = self._running.updates - epoch * per_epoch
        total = self.params["epochs"] * per_epoch
        begin, end = (first + round(part * total) for part in (self._begin, self._end))
        target = self.target.bound(self._groups)
        schedule = polynomial_decay(
            0.0, 1 - target.share, begin, max(end, begin + 1), self._frequency
        )
        course = Course(schedule, per_epoch)
        return StagePlanner(self._groups, target, self._importance, course, self._data)
