"""Lottery tickets: iterative magnitude pruning, and the controls that a ticket is judged by.

`tickets` draws them with a training that is any function of its caller's. Pipelines draw them too,
by their steps `prune-once` and `retrain`, so that each training is stored, resumed and reported as
every other step is. There are two of these engines, since what they know of a training differs,
and with it the unit that they rewind by:

- Of a function, callbacks see the steps of its optimizer and nothing else. `rewind=k` means step
  k; the optimizer gets its state of that step back, and a schedule of the learning rate with it.
- A pipeline resumes its trainings at epochs, from which the order of the data and the learning
  rate follow. There `epoch=k` means the weights after epoch k; the optimizer begins anew.

What is the same is in one place: how masks are cut (`tfprune.weights.rule`), and what weights and
controls they are laid on (`tfprune.weights.rewinding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import keras
import numpy as np

from tfprune.errors import UsageError
from tfprune.model import cloning, graph
from tfprune.training.schedule import check_sparsity
from tfprune.vocabulary import WeightScope
from tfprune.weights.attached import KeepMasks
from tfprune.weights.masks import masked
from tfprune.weights.rewinding import control_seed, reinitialize, shuffle_arrays
from tfprune.weights.rule import MaskRule
from tfprune.weights.selection import Kernel, kernels

Train: TypeAlias = Callable[[keras.Model, list[keras.callbacks.Callback]], Any]
Method: TypeAlias = Literal["ticket", "reinit", "random"]


@dataclass(frozen=True)
class Lottery:
    """How tickets are drawn.

    One weight of each tensor stays whatever the rate; a warning names the layers where it had to.

    Attributes:
        rounds: how often the model is pruned, at least 1.
        prune_rate: of the weights that live, the share that dies in a round, 0 to 1.
        layers: rates of their own for layers, by name, path or glob such as `"dense*"`; the
            first that matches counts. Only with the scope "layer".
        scope: "layer" prunes each weight tensor, "global" ranks all of them together, "erk" spreads
            the zeros as `weights.rule.erk_sparsities` tells.
        rewind: where a round begins. "init": at the initial weights (Frankle & Carbin 2019); an
            int k: at the weights of step k of the dense training (Frankle et al. 2020); "lr": at
            the weights as they are, with the learning rate from the start; "finetune": at the
            weights as they are, trained by another function (Renda et al. 2020).
        one_shot: prunes once, to the density that `rounds` rounds would reach.
        controls: any of "reinit", the ticket's masks over weights drawn anew, and "random", masks
            of as many weights in each tensor, drawn, over weights drawn anew.
        exclude: layers left dense; names, paths or globs.
        seed: of the controls.

    Raises:
        UsageError: one of them cannot be.
    """

    rounds: int
    prune_rate: float = 0.2
    layers: Mapping[str, float] | None = None
    scope: WeightScope = "layer"
    rewind: Literal["init", "lr", "finetune"] | int = "init"
    one_shot: bool = False
    controls: Sequence[Literal["reinit", "random"]] = ()
    exclude: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"rounds is {self.rounds}; there must be at least 1")
        check_sparsity(self.prune_rate, "prune_rate")
        step = self.rewind if isinstance(self.rewind, int) else None
        if self.rewind not in ("init", "lr", "finetune") and (step is None or step < 0):
            raise UsageError(
                f"rewind is {self.rewind!r}; choose 'init', 'lr', 'finetune', or the step of the "
                "dense training to rewind to"
            )
        for control in self.controls:
            if control not in ("reinit", "random"):
                raise UsageError(f"controls: {control!r} is unknown; choose 'reinit' and 'random'")
        self.rule()

    @property
    def step(self) -> int:
        """The step that is rewound to; 0 where it is none, or the first."""
        return self.rewind if isinstance(self.rewind, int) else 0

    @property
    def levels(self) -> list[int]:
        """The rounds whose tickets are trained."""
        return [self.rounds] if self.one_shot else list(range(1, self.rounds + 1))

    def rule(self) -> MaskRule:
        """How masks are cut."""
        return MaskRule(self.scope, layers=self.layers)


@dataclass(frozen=True, eq=False)
class Ticket:
    """One trained network of a lottery.

    Attributes:
        level: how many rounds of pruning its masks are worth; 0 is the dense network.
        method: "ticket", or the control that it is: "reinit" or "random".
        density: share of the prunable weights that live, 0 to 1.
        model: trained, its dead weights exactly zero.
        masks: bool arrays by "layer path/weight name", True where a weight lives.
        result: what `train` returned; of a Keras `History` its dict of lists, one entry an epoch.
    """

    level: int
    method: Method
    density: float
    model: keras.Model
    masks: dict[str, np.ndarray]
    result: Any


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training leaves, and what must be kept of it to go on without doing it again.

    Attributes:
        model: the trained model.
        result: see `Ticket`.
        state: the training as it was at the step to rewind to, where one was asked for.
    """

    model: keras.Model
    result: Any
    state: TrainingState | None = None


Memoize: TypeAlias = Callable[[Method, int, Callable[[], Trained]], Trained]


def tickets(
    model: keras.Model,
    train: Train,
    lottery: Lottery,
    *,
    finetune: Train | None = None,
    memoize: Memoize = lambda method, level, make: make(),
) -> Iterator[Ticket]:
    """Draws tickets; see `tfprune.lottery`, which also stores them in a directory.

    Example:
        ```python
        for ticket in tickets(model, train, Lottery(rounds=10)):
            print(ticket.level, ticket.method, ticket.density)
        ```

    Args:
        model: a built functional or Sequential model, untrained; it is not changed.
        train: trains a model with callbacks.
        lottery: how tickets are drawn.
        finetune: trains the rounds of `rewind="finetune"`.
        memoize: takes a method, a level and the function that makes their result, and returns
            that result: made now, or read from where it was stored before.

    Returns:
        An iterator over the dense network, then at each level the ticket and its controls. Each
        is trained when it is asked for.

    Raises:
        UsageError: there is nothing to prune, or no `finetune` for the rewinding that needs it.
    """
    if lottery.rewind == "finetune" and finetune is None:
        raise UsageError(
            'rewind="finetune" trains with another learning rate: give that function as finetune'
        )
    origin = cloning.copy(model)
    chosen = _chosen(origin, lottery)
    if not chosen:
        raise UsageError(
            f"nothing to prune in the model {model.name!r}: it must have trainable kernels "
            "that are not excluded"
        )
    rates = lottery.rule().per_kernel(chosen, lottery.prune_rate)
    later = finetune if lottery.rewind == "finetune" and finetune is not None else train
    return _Run(origin, lottery, chosen, rates, train, later, memoize).tickets()


@dataclass(frozen=True, eq=False)
class _Run:
    """One lottery; the arrays of masks are in the order of `chosen`."""

    origin: keras.Model
    lottery: Lottery
    chosen: list[Kernel]
    rates: list[float]
    train: Train
    later: Train
    memoize: Memoize

    def tickets(self) -> Iterator[Ticket]:
        """The tickets, in their order."""
        masks = [np.ones(kernel.variable.shape, bool) for kernel in self.chosen]
        last = dense = self.memoize("ticket", 0, self._dense)
        yield self._ticket(0, "ticket", masks, dense)
        for level in self.lottery.levels:
            masks = self._cut(last.model, masks, level)
            start = partial(self._rewind, last.model, dense.state)
            make = partial(self._round, masks, start, self.later, dense.state)
            last = self.memoize("ticket", level, make)
            yield self._ticket(level, "ticket", masks, last)
            for control in self.lottery.controls:
                own = shuffle_arrays(masks, self.lottery.seed) if control == "random" else masks
                make = partial(self._round, own, self._reinitialize, self.train, None)
                yield self._ticket(level, control, own, self.memoize(control, level, make))

    def _ticket(
        self, level: int, method: Method, masks: list[np.ndarray], trained: Trained
    ) -> Ticket:
        alive = sum(int(np.count_nonzero(mask)) for mask in masks)
        size = sum(mask.size for mask in masks)
        named = {kernel.name: mask for kernel, mask in zip(self.chosen, masks, strict=True)}
        return Ticket(level, method, alive / size, trained.model, named, trained.result)

    def _cut(self, model: keras.Model, masks: list[np.ndarray], level: int) -> list[np.ndarray]:
        """Masks of a level, cut from those of the one before; what is dead stays dead."""
        values = [_array(kernel.variable) for kernel in _chosen(model, self.lottery)]
        # From the level, not from what the last one left: roundings do not add up.
        sparsities = [1 - (1 - rate) ** level for rate in self.rates]
        rule = self.lottery.rule()
        if rule.scope == "erk":
            sparsities = rule.per_kernel(self.chosen, 1 - (1 - self.lottery.prune_rate) ** level)
        new, floored = rule.masks(self.chosen, values, sparsities, masks)
        rule.warn_of_floor(f"lottery, level {level}", [self.chosen[i].path for i in floored])
        return new

    def _rewind(self, trained: keras.Model, state: TrainingState | None) -> keras.Model:
        """Where a ticket begins, before its masks are laid on."""
        if self.lottery.rewind in ("lr", "finetune"):
            return cloning.copy(trained)
        start = cloning.copy(self.origin)
        if state is not None:
            start.set_weights(state.weights)
            graph.finalize_states(start)
        return start

    def _reinitialize(self) -> keras.Model:
        return reinitialize(self.origin, control_seed(self.lottery.seed))

    def _dense(self) -> Trained:
        model, step = cloning.copy(self.origin), self.lottery.step
        if not step:
            return Trained(model, _plain(self.train(model, [])))
        saving = SaveState(model, step)
        result = self.train(model, [saving])
        return Trained(model, _plain(result), saving.state())

    def _round(
        self,
        masks: list[np.ndarray],
        start: Callable[[], keras.Model],
        train: Train,
        state: TrainingState | None,
    ) -> Trained:
        """Trains a start under masks."""
        model = start()
        chosen = _chosen(model, self.lottery)
        for kernel, mask in zip(chosen, masks, strict=True):
            kernel.variable.assign(masked(_array(kernel.variable), mask))
        callbacks: list[keras.callbacks.Callback] = [
            KeepMasks([kernel.variable for kernel in chosen], masks)
        ]
        if state is not None:
            callbacks.append(RestoreState(state))
        result = train(model, callbacks)
        for kernel, mask in zip(chosen, masks, strict=True):
            if np.any(_array(kernel.variable)[~mask]):
                raise UsageError(
                    f"train: pruned weights of {kernel.path!r} came back: give the callbacks that "
                    "train is called with to fit, and train the very model it is called with"
                )
        return Trained(model, _plain(result))


def _chosen(model: keras.Model, lottery: Lottery) -> list[Kernel]:
    candidates = kernels(model, exclude=lottery.exclude or None)
    return [kernel for kernel in candidates if kernel.variable.trainable]


def _array(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _plain(result: Any) -> Any:
    """What `train` returned, a History as numbers: it would keep its model alive."""
    if isinstance(result, keras.callbacks.History):
        return {name: [float(value) for value in values] for name, values in result.history.items()}
    return result


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A training as it was after some of its steps.

    Attributes:
        step: how many.
        weights: as `model.get_weights()` returns them.
        optimizer: the values of `optimizer.variables`: its step, its rate, its slots.
    """

    step: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]


class SaveState(keras.callbacks.Callback):
    """Saves a training as it is after a step.

    Args:
        model: whose weights are saved; the model that trains may be another one that contains it.
        step: counted by the optimizer, from 1.
    """

    def __init__(self, model: keras.Model, step: int) -> None:
        super().__init__()
        self._of = model
        self._step = step
        self._seen = 0
        self._state: TrainingState | None = None

    def state(self) -> TrainingState:
        """The training as it was after the step.

        Raises:
            UsageError: the training did not come to the step, or passed over it.
        """
        if self._state is None:
            raise UsageError(
                f"train ended after {self._seen} steps, before step {self._step} to rewind to: "
                "rewind to an earlier one, or give fit the callbacks that train is called with"
            )
        if self._state.step > self._step:
            raise UsageError(
                f"rewind is step {self._step}, which train passed over on its way to step "
                f"{self._state.step}: choose a multiple of its steps_per_execution"
            )
        return self._state

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the training once the step is reached."""
        optimizer = self.model.optimizer
        self._seen = _iterations(optimizer)
        if self._state is None and self._seen >= self._step:
            values = [np.array(variable) for variable in optimizer.variables]
            self._state = TrainingState(self._seen, self._of.get_weights(), values)


class RestoreState(keras.callbacks.Callback):
    """Lets a training begin at a state that was saved, and end where it would have ended.

    The optimizer gets its state of that step back: its count of steps, which schedules of the
    learning rate follow, and its slots, without which the bias corrections of Adam (Kingma & Ba
    2015) would be those of averages that have long settled.

    Args:
        state: where it begins.
    """

    def __init__(self, state: TrainingState) -> None:
        super().__init__()
        self._state = state
        self._steps: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the optimizer back."""
        optimizer = self.model.optimizer
        self._steps = self.params.get("steps")
        if _iterations(optimizer):
            # A second fit of the same training, or one that was restored.
            return
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        shapes = [tuple(variable.shape) for variable in optimizer.variables]
        if shapes != [value.shape for value in self._state.optimizer]:
            raise UsageError(
                "train: the optimizer has other variables than in the dense training: compile "
                "the model with the same one each time"
            )
        for variable, value in zip(optimizer.variables, self._state.optimizer, strict=True):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops where the whole training ends."""
        done = _iterations(self.model.optimizer)
        if self._steps and done >= self._steps * self.params["epochs"]:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Learns the length of an epoch where the data did not tell it."""
        self._steps = self._steps or _iterations(self.model.optimizer) - self._state.step


def _iterations(optimizer: Any) -> int:
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
