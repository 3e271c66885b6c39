"""What is tried next: a study of Optuna in a file. Only this module imports Optuna."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from tfprune.files import document_hash
from tfprune.searching.spec import Search
from tfprune.searching.trials import Choice, Tried

_STUDY = "study.log"
_RUNGS = "rungs"
_EXCESS = "excess"
# Drawn by chance before a sampler learns of them.
_STARTUP = 8
# What does not change which trials are proposed.
_NOT_PROPOSED_BY = {"name", "trials", "minutes", "max_ratio"}


class Proposals:
    """Trials of a search, proposed by Optuna and kept in its journal.

    Trials have two values, the cost's ratio and the drop, and a constraint, the drop's excess.
    Optuna's pruners take studies of one value only, so brackets are halved by
    `tfprune.searching.trials.halved`.

    Args:
        what: what is searched.
        folder: where the journal lies.
        out_of_reach: a share of the model that cannot be reached; only larger ones are proposed.
        of: the identity of the data and the model: what was tried on others tells nothing.
    """

    def __init__(self, what: Search, folder: Path, out_of_reach: float = 0.0, of: str = "") -> None:
        self._what = what
        low, high = what.space.keep
        steps = math.floor((out_of_reach - low) / what.space.keep_step + 1e-9) + 1
        self._low = round(min(high, low + max(0, steps) * what.space.keep_step), 6)
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        asked = what.model_dump(mode="json", exclude=_NOT_PROPOSED_BY)
        with _without_warnings():
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / _STUDY))),
                study_name=document_hash([asked, of]),
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )
        # What was being tried when the search was killed is proposed again.
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if fixed := trial.system_attrs.get("fixed_params"):
                self._study.enqueue_trial(fixed)
            self._study.tell(trial.number, state=TrialState.FAIL)

    @staticmethod
    def on_grid(share: float, what: Search) -> float:
        """The nearest share that is tried."""
        low, high = what.space.keep
        steps = round((share - low) / what.space.keep_step)
        return round(min(high, low + steps * what.space.keep_step), 6)

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever proposed."""
        return bool(self._study.get_trials(deepcopy=False))

    @property
    def count(self) -> int:
        """How many trials are done."""
        return len(self._done())

    def done(self) -> Iterator[list[Tried]]:
        """What earlier sessions tried: the rungs of each trial."""
        for trial in self._done():
            yield [_tried(each) for each in trial.user_attrs[_RUNGS]]

    def _done(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [
            trial for trial in trials if _RUNGS in trial.user_attrs and trial.state.is_finished()
        ]

    def enqueue(self, choices: Iterable[Choice]) -> None:
        """Has these tried first, as far as they are among what is tried."""
        free = self._distributions()
        for choice in choices:
            values = {name: choice.to_dict()[name] for name in free}
            if all(_is_among(values[name], each) for name, each in free.items()):
                self._study.enqueue_trial(values)

    def ask(self, count: int) -> dict[int, Choice]:
        """Proposes trials, by their numbers in the study."""
        with _without_warnings():
            self._study.sampler = self._sampler()
            trials = [self._study.ask(self._distributions()) for _ in range(count)]
        return {trial.number: self._choice(trial) for trial in trials}

    def tell(self, number: int, rungs: Sequence[Tried]) -> None:
        """Tells what a trial gave at each rung that it reached."""
        last = rungs[-1]
        trial = Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        trial.set_user_attr(_RUNGS, [_plain(each) for each in rungs])
        trial.set_user_attr(_EXCESS, last.drop - self._what.max_drop)
        with _without_warnings():
            if last.refusal:
                self._study.tell(number, state=TrialState.FAIL)
            else:
                self._study.tell(number, [last.ratio, last.drop])

    def _distributions(self) -> dict[str, BaseDistribution]:
        """What is free; what has one value is not proposed."""
        what, space = self._what, self._what.space
        low, high = self._low, space.keep[1]
        found: dict[str, BaseDistribution] = {}
        if low < high:
            # Optuna wants the last value of the grid to be on it.
            top = low + int((high - low) / space.keep_step + 1e-9) * space.keep_step
            found["keep"] = FloatDistribution(low, round(top, 6), step=space.keep_step)
        for name, values in (
            ("target", space.targets),
            ("importance", space.importances),
            ("structure", space.structures),
            ("round_to", what.round_to),
            ("zeros", what.zeros),
            ("bits", what.bits),
            ("format", what.formats),
        ):
            if len(values) > 1:
                found[name] = CategoricalDistribution(values)
        return found

    def _choice(self, trial: Any) -> Choice:
        what, space = self._what, self._what.space
        alone: dict[str, Any] = {
            "keep": space.keep[1],
            "target": space.targets[0],
            "importance": space.importances[0],
            "structure": space.structures[0],
            "round_to": what.round_to[0],
            "zeros": what.zeros[0],
            "bits": what.bits[0],
            "format": what.formats[0],
        }
        values = {**alone, **trial.params}
        values["keep"] = round(float(values["keep"]), 6)
        if values["zeros"]:
            # Both would need the first part of the recovery.
            values["structure"] = "planned"
        if values["structure"] == "learnt":
            values["importance"] = space.importances[0]
        return Choice(**values)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        """A sampler that proposes the same after the same trials, killed in between or not."""
        seed = int(document_hash([self._what.seed, self.count])[:8], 16) % 2**32

        def excess(trial: FrozenTrial) -> Sequence[float]:
            return (float(trial.user_attrs.get(_EXCESS, 0.0)),)

        if self._what.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self._what.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(
                seed=seed, population_size=self._what.bracket, constraints_func=excess
            )
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP, constraints_func=excess, multivariate=True
        )


def _is_among(value: Any, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution)
    return distribution.low <= value <= distribution.high


def _plain(tried: Tried) -> dict[str, Any]:
    return {
        **{name: value for name, value in vars(tried).items() if name not in ("choice", "costs")},
        "choice": tried.choice.to_dict(),
        "costs": dict(tried.costs),
    }


def _tried(record: dict[str, Any]) -> Tried:
    return Tried(**{**record, "choice": Choice(**record["choice"])})


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Optuna warns of its own experimental parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
