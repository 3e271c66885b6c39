"""Proposes trials, makes them in the store of a run, judges them, and makes the winner."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tfprune.errors import RefusedError, TfpruneError, UsageError
from tfprune.figures import Figure, from_record
from tfprune.files import RECORD, document_hash, strict_json, write_text
from tfprune.pipeline import provenance
from tfprune.pipeline.authoring import to_toml
from tfprune.pipeline.executors import Execution, Workers
from tfprune.pipeline.inputs import RunData, check_requirements
from tfprune.pipeline.jobs import plan_jobs
from tfprune.pipeline.runner import check_writable_run, do_jobs, exchange, open_store, run
from tfprune.pipeline.store import Store
from tfprune.report import comparison, read_run
from tfprune.report.records import DeliveryRecord, Identified, read_record
from tfprune.report.run import TRIALS
from tfprune.report.sentences import duration
from tfprune.searching.proposing import Proposals
from tfprune.searching.spec import Search, counted
from tfprune.searching.trials import (
    DENSE,
    WINNER,
    Choice,
    Tried,
    document_of,
    front,
    halved,
    nearest,
    pipeline_of,
    ranked,
    variant_name,
    winner,
)

Say = Callable[[str], None]

RESULT = "search.json"
PIPELINE = "winner.toml"
# Looked at before anything is trained on: so many shares of the model.
_LOOKS = 4
# Of the best trials, so many are measured once more, together.
_FINALISTS = 8
# The most hopeful trials are recovered once more, in one training each.
_AT_ONE_GO = 3
# Converting and judging one file, beside its training.
_OVERHEAD_SECONDS = 4.0
# What a ratio must be below to be a gain.
_GAIN = 0.995


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        directory: of the run, with its report; `winner/seed-N` has the files.
        search: what was searched.
        figure: what models are compared by.
        baseline: the figure of the dense model on validation data.
        tried: what was tried, at each rung.
        winner: the cheapest trial that keeps the budget; the dense model where no other does.
        is_met: whether the winner is cheaper than the dense model, and cheap enough; judged on
            validation data, as all else.
        said: the result in one line; where the budget is not met, how near what came.
        test: the files of the dense model and of the winner on test data, as
            `tfprune.report.comparison` has them.
        pipeline: the file that makes the winner again from nothing.
    """

    directory: Path
    search: Search
    figure: Figure
    baseline: float
    tried: tuple[Tried, ...]
    winner: Tried
    is_met: bool
    said: str
    test: pd.DataFrame
    pipeline: Path

    @property
    def test_drop(self) -> float:
        """How much worse the winner is than the dense model on test data, which decided nothing."""
        table = self.test.set_index(["variant", "artifact"])[self.figure.name]
        winner = float(table.loc[WINNER].iloc[0])
        return self.figure.drop(winner, float(table.loc[DENSE, "keras"]))

    @property
    def files(self) -> list[Path]:
        """The files of the winner."""
        folder = self.directory / WINNER / f"seed-{self.search.seed}"
        return sorted(path for path in folder.glob("model*") if path.is_file())

    def front(self, cost: str) -> list[Tried]:
        """The trials that no other one beats in both drop and a cost, the cheapest first."""
        return front(self.tried, lambda each: each.costs.get(cost))

    def front_table(self, cost: str | None = None) -> pd.DataFrame:
        """The trials that no other one beats in both drop and a cost, the cheapest first.

        Args:
            cost: the name of a figure; what was minimized if not given.

        Returns:
            Columns trial (its choices in words), epochs, the compared figure, drop, ratio and the
            cost.
        """
        name = cost or self.search.cost.name
        rows = [
            {
                "trial": each.describe(),
                "epochs": each.epochs,
                self.figure.name: each.value,
                "drop": each.drop,
                "ratio": each.ratio,
                name: each.costs[name],
            }
            for each in self.front(name)
        ]
        columns = ["trial", "epochs", self.figure.name, "drop", "ratio", name]
        return pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))

    @property
    def costs(self) -> tuple[str, ...]:
        """The names of all costs that trials have, what was minimized first."""
        names = [name for each in self.tried for name in each.costs]
        return tuple(dict.fromkeys([self.search.cost.name, *names]))


def search(
    what: Search,
    *,
    out: Path = Path("saved_models"),
    data_dir: str | None = None,
    execution: Execution | None = None,
    say: Say = lambda line: None,
    progress: bool = False,
    store: str | os.PathLike[str] | None = None,
) -> Found:
    """Searches for the cheapest file whose figure is near enough to the dense model's.

    Example:
        ```python
        from tfprune.searching import load_search

        what = load_search(
            model={"name": "net.keras"}, data={"name": "photos"}, device="cpu", max_drop=0.5
        )
        found = tfprune.search(what)
        found.said, found.files
        ```

    Optuna proposes trials in brackets. Each is a variant of one pipeline, so what trials have in
    common is done once. After each rung of epochs the better half of a bracket goes on: those that
    no other trial beats in both cost and figure. All of that is judged on validation data. The
    winner is made by a pipeline of its own, and is the only trial that test data are shown.

    A search that was stopped goes on where it was, and ends as it would have.

    Args:
        what: from `load_search`.
        out: the run is written to `out / what.name`.
        data_dir: where tensorflow-datasets keeps its data.
        execution: where trials are trained; here if not given. Files are measured here, alone.
        say: told in one line what happens next.
        progress: whether to show progress bars on stderr.
        store: an address of fsspec, such as "s3://bucket/runs", or a folder: finished steps and
            trials are taken from there, and put there.

    Raises:
        UsageError: what is searched cannot be; or Optuna, a format or a device misses something.
        TfpruneError: data are missing, the folder cannot be written, the device fails, or the dense
            training takes longer than `minutes`.
    """
    what.check()
    # A trial of each kind of step, so that all of them are checked before the first training.
    everything = Choice(
        what.formats[-1],
        what.space.keep[0],
        what.space.targets[0],
        what.space.importances[0],
        what.round_to[0],
        max(what.zeros),
        max(what.bits),
        what.space.structures[-1],
    )
    rungs = range(len(what.segments) + 1)
    whole = pipeline_of(what, {f"all-{rung}": (everything, rung) for rung in rungs})
    check_requirements(whole, data_dir)
    directory = out / what.name
    results = open_store(directory, say, store, execution)
    check_writable_run(directory)
    with (
        results.lock("search", "waiting for another search in the same folder"),
        results.session() as session,
    ):
        trials = _Trials(what, results, session, data_dir, execution, say, progress)
        try:
            trials.expect(whole)
            trials.begin()
            trials.look()
            trials.search()
            best = trials.final()
        finally:
            trials.close()
    document = document_of(
        what,
        {WINNER: (best.choice, best.rung)},
        devices=[what.device.model_dump(mode="json", exclude_none=True)]
        if what.is_measured
        else [],
    )
    path = write_text(directory / PIPELINE, to_toml(document, _heading(what, best)))
    say(f"the winner is made and measured on test data: {best.describe()}")
    # Read as a user will read it.
    from tfprune.pipeline.spec import load_pipeline

    run(load_pipeline(path), out=out, data_dir=data_dir, say=say, progress=progress, store=store)
    is_met, said = _verdict(what, trials.figure, trials.tried, best)
    found = Found(
        directory,
        what,
        trials.figure,
        trials.baseline,
        tuple(trials.tried),
        best,
        is_met,
        said,
        comparison(read_run(directory)),
        path,
    )
    on_test = f"on test data it {_loss(found.figure, found.test_drop)}"
    if found.test_drop > what.max_drop >= best.drop:
        on_test += ", more than allowed: what was chosen on few examples looks better on these"
    found = replace(found, said=f"{said}; {on_test}")
    write_text(directory / RESULT, strict_json(_recorded(found)) + "\n")
    return found


def _heading(what: Search, best: Tried) -> str:
    return (
        f"The winner of a search: {best.describe()}; {best.ratio:.3g} of the dense model's "
        f"{what.cost.noun}, measured on validation data. Run it with `tfprune run`."
    )


def _loss(figure: Figure, drop: float) -> str:
    """A drop in words, such as "loses 0.40 points"."""
    if not drop:
        return "loses nothing"
    unit = " points" if figure.is_share else figure.number.unit
    return f"loses {drop:.2f}{unit}" if drop > 0 else f"gains {-drop:.2f}{unit}"


def _verdict(what: Search, figure: Figure, tried: Sequence[Tried], best: Tried) -> tuple[bool, str]:
    """Whether the budget is met, and the result in one line."""
    most = min(_GAIN, what.max_ratio or _GAIN)
    told = (
        f"{best.describe()}: {best.ratio:.3g} of the dense model's {what.cost.noun}, "
        f"{_loss(figure, best.drop)} of validation {figure.noun}"
    )
    if best.keeps(what.max_drop) and best.ratio <= most:
        return True, told
    wanted = (
        f"{most:.3g} of the {what.cost.noun}" if what.max_ratio else "less than the dense model"
    )
    said = f"the budget is not met: the best inside the drop is {told}"
    near = nearest(tried, what.max_drop, most)
    if near is None:
        return False, f"{said}; no trial costs {wanted}: allow more trials, or widen space.keep"
    return False, (
        f"{said}; of what costs {wanted}, the nearest is {near.describe()} at "
        f"{near.ratio:.3g}, which {_loss(figure, near.drop)}: give more recovery epochs, or allow "
        "a larger drop"
    )


def _recorded(found: Found) -> dict[str, Any]:
    return {
        "search": found.search.model_dump(mode="json"),
        "figure": found.figure.name,
        "baseline": found.baseline,
        "winner": found.winner.to_dict(),
        "test_drop": found.test_drop,
        "is_met": found.is_met,
        "said": found.said,
        "fronts": {cost: [each.variant for each in found.front(cost)] for cost in found.costs},
        "tried": [each.to_dict() for each in found.tried],
        "command": provenance.command(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }


class _Trials:
    """The trials of a search, and what they are judged by."""

    def __init__(
        self,
        what: Search,
        store: Store,
        session: str,
        data_dir: str | None,
        execution: Execution | None,
        say: Say,
        progress: bool,
    ) -> None:
        self._what = what
        self._store = store
        self._session = session
        self._execution = execution
        self._say = say
        self._progress = progress
        self._images = RunData(what.data, data_dir, store.directory)
        self._commit = provenance.commit()
        self._began = time.monotonic()
        self._epoch_seconds = 0.0
        self.figure: Figure
        self.baseline: float
        self._base_file: tuple[Path, str]
        self.tried: list[Tried] = []
        self._first: list[Choice] = []
        self._out_of_reach = 0.0
        self._workers: Workers | None = None
        self._identity = ""

    def close(self) -> None:
        """Ends the workers."""
        if self._workers is not None:
            self._workers.close()

    # -- what it expects ------------------------------------------------------------------------

    def expect(self, whole: Any) -> None:
        """Says how long it takes, before anything is trained.

        Raises:
            TfpruneError: the dense training alone takes longer than there is time.
        """
        from tfprune.quiet import start_keras

        start_keras()
        from tfprune.pipeline.execution import probe

        self._say(self._images.note)
        # Other data, another model or a newer step would not give what is in the journal.
        jobs = plan_jobs(whole, self._store.directory, self._images.sha256, split="validation")
        self._identity = document_hash([job.identity for job in jobs if job.kind != "latency"])
        self._epoch_seconds = probe(whole, self._images.dataset).seconds_per_epoch
        epochs = 0
        if not self._missing({}, only=DENSE):
            dense = "the dense model is there"
        else:
            epochs = self._what.epochs or 0
            dense = f"the dense training takes about {duration(epochs * self._epoch_seconds)}"
        bracket = self._bracket_seconds(self._what.bracket)
        self._say(
            f"expected: {dense}, a bracket of {self._what.bracket} trials about {duration(bracket)}"
        )
        if self._what.minutes and epochs * self._epoch_seconds > 60 * self._what.minutes:
            raise TfpruneError(
                f"{dense}, and there are {self._what.minutes:g} minutes: give more, fewer epochs, "
                "or a trained model"
            )

    def _bracket_seconds(self, size: int) -> float:
        """Seconds that a bracket takes, about: trials keep half of the model in the mean."""
        parallel = 1
        if self._execution is not None and not self._execution.is_local:
            parallel = self._execution.workers or 1
        seconds, alive = 0.0, size
        for epochs in self._what.segments:
            rounds = math.ceil(alive / parallel)
            seconds += rounds * (0.5 * epochs * self._epoch_seconds + _OVERHEAD_SECONDS)
            alive = max(1, alive // 2)
        return seconds

    # -- making and judging ---------------------------------------------------------------------

    def _missing(self, trials: Mapping[str, tuple[Choice, int]], only: str = "") -> list[Any]:
        pipeline = pipeline_of(self._what, trials)
        jobs = plan_jobs(
            pipeline,
            self._store.directory,
            self._images.sha256,
            only=[only] if only else (),
            split="validation",
        )
        exchange(jobs, self._store, self._say)
        return [job for job in jobs if job.kind in ("step", "delivery") and not job.finished]

    def _make(self, trials: Mapping[str, tuple[Choice, int]]) -> dict[str, str]:
        """Trains and exports trials, as far as they are not there.

        Returns:
            Why some of them cannot be made, such as a share of the MACs that is out of reach, a
            training that diverges, or a file that does not agree with its model.
        """
        try:
            self._made(trials)
            return {}
        except (UsageError, RefusedError):
            pass
        # One by one, so that each is told apart; what is made already is not made again.
        refused: dict[str, str] = {}
        for name, each in trials.items():
            try:
                self._made({name: each})
            except (UsageError, RefusedError) as error:
                refused[name] = str(error)
        return refused

    def _made(self, trials: Mapping[str, tuple[Choice, int]]) -> None:
        if missing := self._missing(trials):
            if self._workers is None and self._execution and not self._execution.is_local:
                # Started once: a process takes long to load TensorFlow.
                self._workers = self._execution.start()
            do_jobs(
                missing,
                pipeline_of(self._what, trials),
                self._store,
                self._images,
                self._commit,
                self._session,
                self._say,
                progress=self._progress,
                execution=self._execution,
                workers=self._workers,
            )

    def _delivered(self, variant: str) -> tuple[Path, dict[str, Any]]:
        folder = self._store.directory / TRIALS / variant / f"seed-{self._what.seed}"
        return folder, read_record(folder / RECORD, DeliveryRecord)

    def begin(self) -> None:
        """Makes the dense model, which all trials start from and are compared with."""
        self._made({})
        folder, record = self._delivered(DENSE)
        self.figure = from_record(record.get("task"))
        by_format = {each["format"]: each for each in record["artifacts"]}
        self.baseline = float(by_format["keras"][self.figure.record_key])
        if not math.isfinite(self.baseline):
            raise TfpruneError(
                f"the {self.figure.noun} of the dense model is not a number on validation data, so "
                "nothing can be compared with it: train it at a lower learning rate, or compare "
                "by another figure"
            )
        base = by_format[self._what.formats[0]]
        self._base_file = folder / base["path"], base["sha256"]
        self._base_costs = {**_counted(record, base)}
        self._say(
            f"the dense model: validation {self.figure.noun} {self.figure.text(self.baseline)}"
        )

    def _judge(self, asked: Sequence[tuple[Choice, int]]) -> list[Tried]:
        """Makes trials up to a rung and judges them on validation data."""
        names = [variant_name(self._what, *each) for each in asked]
        refused = self._make(dict(zip(names, asked, strict=True)))
        found = []
        for name, (choice, rung) in zip(names, asked, strict=True):
            if name in refused:
                nothing = float("nan")
                found.append(
                    Tried(choice, rung, 0, name, nothing, nothing, nothing, {}, refused[name])
                )
                continue
            _, record = self._delivered(name)
            (artifact,) = record["artifacts"]
            value = float(artifact[self.figure.record_key])
            epochs = sum(self._what.segments[:rung]) if choice.changes else 0
            costs = _counted(record, artifact)
            ratio = self._ratio(costs, self._base_costs)
            refusal = "" if math.isfinite(value) else f"its {self.figure.noun} is not a number"
            if not self._what.is_measured and not math.isfinite(ratio):
                refusal = refusal or f"its {self._what.cost.noun} is not known"
            found.append(
                Tried(
                    choice,
                    rung,
                    epochs,
                    name,
                    value,
                    self.figure.drop(value, self.baseline),
                    ratio,
                    costs,
                    refusal,
                )
            )
        return self._measured(found)

    def _ratio(self, costs: Mapping[str, float], base: Mapping[str, float]) -> float:
        name = self._what.cost.name
        if name not in costs or not base.get(name):
            return float("nan")
        return costs[name] / base[name]

    def _measured(self, tried: Sequence[Tried]) -> list[Tried]:
        """The same trials with what the device tells of their files.

        They are measured in one call with the dense model's file, because a clock that is shared
        with others drifts: costs of two calls are only comparable as shares of the dense model's.
        """
        if not self._what.is_measured:
            return list(tried)
        running = [each for each in tried if not each.refusal]
        if not running:
            return list(tried)
        files = [self._base_file]
        for each in running:
            folder, record = self._delivered(each.variant)
            files.append(
                (folder / record["artifacts"][0]["path"], record["artifacts"][0]["sha256"])
            )
        device = self._what.device
        key = document_hash(
            {
                "device": device.model_dump(mode="json", exclude_defaults=True),
                "files": [sha for _, sha in files],
            }
        )
        folder = self._store.directory / TRIALS / "measured" / key
        self._say(f"measuring {len(files)} files on {device.title}")

        def make(_: Path) -> dict[str, Any]:
            told = device.find().measure([path for path, _ in files])
            return {
                "told": [{"figures": dict(each.figures), "refusal": each.refusal} for each in told],
                "machine": provenance.machine(),
            }

        self._store.finish(folder, key, make)
        told = read_record(folder / RECORD, Identified)["told"]
        base = told[0]
        if base["refusal"]:
            raise TfpruneError(f"{device.title} does not run the dense model: {base['refusal']}")
        name = self._what.cost.name
        if not base["figures"].get(name):
            known = ", ".join(base["figures"])
            raise TfpruneError(
                f"{device.title} tells no {name} of the dense model, only {known}: minimize one "
                "of these"
            )
        asked = {
            each.variant: replace(
                each,
                costs={**each.costs, **own["figures"]},
                ratio=self._ratio(own["figures"], base["figures"]),
                refusal=own["refusal"],
            )
            for each, own in zip(running, told[1:], strict=True)
        }
        # Two trials of a bracket may be the same one.
        return [asked.get(each.variant, each) for each in tried]

    # -- the search -----------------------------------------------------------------------------

    def look(self) -> None:
        """Looks at what needs no training: formats, few values, and removals by themselves.

        The first trials are the removals on the front, in what the dense model is cheapest in.
        """
        what, space = self._what, self._what.space
        plain = [Choice(form, bits=bits) for form in what.formats for bits in what.bits]
        dense = self._looked_at(plain)
        keeping = [each for each in dense if each.keeps(what.max_drop)]
        running = [each for each in dense if not each.refusal]
        if not running:
            raise TfpruneError(f"{what.device.title} runs no file: {dense[0].refusal}")
        best = min(keeping or running, key=lambda each: each.ratio).choice
        low, high = space.keep
        removals = [
            replace(
                best,
                keep=Proposals.on_grid(low + (high - low) * part / _LOOKS, what),
                target=space.targets[0],
                importance=space.importances[0],
                structure=space.structures[0],
                round_to=what.round_to[0],
            )
            for part in range(_LOOKS)
        ]
        looked = self._looked_at([each for each in removals if each.changes])
        unmade = [each.choice for each in looked if not each.costs]
        if unmade and min(what.round_to) < what.round_to[0]:
            # Smaller multiples reach further.
            finer = [replace(each, round_to=min(what.round_to)) for each in unmade]
            found = self._looked_at(finer)
            looked += found
            unmade = [each.choice for each in found if not each.costs]
        self._out_of_reach = max((each.keep for each in unmade), default=0.0)
        looked = [each for each in looked if not each.refusal]
        self._first = [each.choice for each in ranked(looked)]
        if looked:
            least = min(looked, key=lambda each: each.ratio)
            self._say(
                f"expected: a cost of {least.ratio:.3g} at the least; what {what.recovery} epochs "
                "give back of the losses is not known before"
            )

    def _looked_at(self, choices: Sequence[Choice]) -> list[Tried]:
        """Judges choices without training."""
        found = self._judge([(each, 0) for each in dict.fromkeys(choices)])
        for each in found:
            told = f"costs {each.ratio:.3g} of the dense model's {self._what.cost.noun}"
            self._say(
                f"without training on: {each.describe()} "
                + (each.refusal or f"{told}, {_loss(self.figure, each.drop)}")
            )
        self.tried += found
        return found

    def search(self) -> None:
        """Tries brackets until the trials or the minutes are spent."""
        proposals = Proposals(
            self._what, self._store.directory / TRIALS, self._out_of_reach, self._identity
        )
        for rungs in proposals.done():
            self.tried += rungs
        if not proposals.has_begun:
            proposals.enqueue(self._first)
        while (left := self._what.trials - proposals.count) > 0:
            size = self._fitting(min(left, self._what.bracket))
            if not size:
                self._say(f"no bracket fits into {self._what.minutes:g} minutes any more")
                break
            self._bracket(proposals, size)
        self._at_one_go()

    def _at_one_go(self) -> None:
        """Trains the most hopeful trials once more, their whole recovery in one training.

        One schedule of the learning rate over all epochs mostly gives more than one for each rung,
        which halving needs. Hopeful is what is no dearer than the best so far and loses least.
        """
        rungs = len(self._what.segments)
        if rungs == 1 or self._fitting(_AT_ONE_GO) < _AT_ONE_GO:
            return
        best = winner(self.tried, self._what.max_drop)
        latest: dict[Choice, Tried] = {}
        for each in sorted(self.tried, key=lambda each: each.rung):
            if each.rung and each.choice.changes and not each.refusal and each.ratio <= best.ratio:
                latest[each.choice] = each
        hopeful = sorted(latest.values(), key=lambda each: each.drop)[:_AT_ONE_GO]
        if not hopeful:
            return
        self._say(f"{len(hopeful)} trials again, recovered at one go")
        self.tried += self._judge([(replace(each.choice, whole=True), rungs) for each in hopeful])

    def _fitting(self, size: int) -> int:
        """How many trials a bracket may have in the time that is left."""
        if self._what.minutes is None:
            return size
        left = 60 * self._what.minutes - (time.monotonic() - self._began)
        while size and self._bracket_seconds(size) > left:
            size //= 2
        return size

    def _bracket(self, proposals: Proposals, size: int) -> None:
        asked = proposals.ask(size)
        self._say(f"trials {proposals.count + 1} to {proposals.count + size}")
        rungs: dict[int, list[Tried]] = {number: [] for number in asked}
        alive = list(asked)
        for rung in range(1, len(self._what.segments) + 1):
            found = self._judge([(asked[number], rung) for number in alive])
            for number, each in zip(alive, found, strict=True):
                rungs[number].append(each)
            better = {id(each) for each in halved(found, self._what.max_drop)}
            alive = [
                number for number, each in zip(alive, found, strict=True) if id(each) in better
            ]
            if not alive:
                break
        for number, found in rungs.items():
            proposals.tell(number, found)
            self.tried += found
        best = winner(self.tried, self._what.max_drop)
        self._say(
            f"best so far: {best.describe()}, {best.ratio:.3g} of the dense model's "
            f"{self._what.cost.noun}, {_loss(self.figure, best.drop)}"
        )

    def final(self) -> Tried:
        """The winner, after the best trials were measured once more, side by side."""
        once: dict[str, Tried] = {}
        for each in self.tried:
            once.setdefault(each.variant, each)
        self.tried = list(once.values())
        if all(each.refusal for each in self.tried):
            raise TfpruneError(
                f"{self._what.device.title} runs none of the files that were tried: "
                f"{self.tried[0].refusal if self.tried else 'nothing was tried'}"
            )
        keeping = [each for each in self.tried if each.keeps(self._what.max_drop)]
        finalists = sorted(keeping, key=lambda each: each.ratio)[:_FINALISTS]
        if self._what.is_measured and finalists:
            # What was freed since it was tried is made again.
            self._make({each.variant: (each.choice, each.rung) for each in finalists})
            again = {each.variant: each for each in self._measured(finalists)}
            self.tried = [again.get(each.variant, each) for each in self.tried]
            return winner(list(again.values()), self._what.max_drop)
        return winner(self.tried, self._what.max_drop)


def _counted(record: Mapping[str, Any], artifact: Mapping[str, Any]) -> dict[str, float]:
    """The costs that need no device, by the names of their figures."""
    places = {"artifact": artifact, "file": artifact, "variant": record}
    values = {row.name: places[row.source].get(row.record_key) for row in counted()}
    return {name: float(value) for name, value in values.items() if value is not None}
