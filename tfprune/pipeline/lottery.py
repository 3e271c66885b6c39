"""`tfprune.lottery`: lottery tickets for any Keras model, in memory or kept in a directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tfprune.errors import TfpruneError, UsageError
from tfprune.files import RECORD, document_hash, read_json
from tfprune.formats.keras_file import write_keras
from tfprune.model import cloning, graph
from tfprune.pipeline.store import Store, is_finished
from tfprune.vocabulary import WeightScope
from tfprune.weights.lottery import (
    Lottery,
    Memoize,
    Method,
    Ticket,
    Train,
    Trained,
    TrainingState,
    tickets,
)

_MODEL, _STATE = "model.keras", "early.npz"
# What directories call a setting, where it is not its name.
_STORED_AS = {"prune_rate": "share"}


def lottery(
    model: keras.Model,
    train: Train,
    *,
    rounds: int,
    prune_rate: float = 0.2,
    layers: Mapping[str, float] | None = None,
    scope: WeightScope = "layer",
    rewind: Literal["init", "lr", "finetune"] | int = "init",
    finetune: Train | None = None,
    one_shot: bool = False,
    controls: Sequence[Literal["reinit", "random"]] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
) -> Iterator[Ticket]:
    """Finds lottery tickets by iterative magnitude pruning: train, prune, rewind, again.

    After Frankle & Carbin 2019 (https://arxiv.org/abs/1803.03635), with the rewindings of Frankle
    et al. 2020 (https://arxiv.org/abs/1912.05671) and Renda, Frankle & Carbin 2020
    (https://arxiv.org/abs/2003.02389). A round prunes a share of what lives, so k rounds of 20 %
    leave 0.8^k; masks nest, and each weight tensor has the density of its level to within one
    weight.

    Example:
        ```python
        def train(model, callbacks):
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model.fit(x, y, epochs=10, validation_split=0.1, callbacks=callbacks)


        for ticket in tfprune.lottery(model, train, rounds=10, controls=["reinit"]):
            print(ticket.level, ticket.method, ticket.density, ticket.result["val_accuracy"][-1])
        ```

    Args:
        model: a built functional or Sequential model, untrained; it is not changed.
        train: compiles a model anew and trains it with the callbacks it is given, the same way
            each time; whatever it returns is the ticket's `result`. The callbacks hold zeros at
            zero. Where `rewind` is a step they also keep it in the dense training; later the
            optimizer begins there, a schedule of Keras with it, and `fit` ends at its last step.
        rounds: how often the model is pruned.
        prune_rate: of the weights that live, the share that dies in a round, 0 to 1.
        layers: rates of their own for layers, by name, path or glob; the first that matches
            counts. `prune_rate=0.1, layers={"logits": 0.1, "dense*": 0.2}` are the rates of
            Frankle & Carbin for convolutions, the last layer and dense ones. Only with the scope
            "layer".
        scope: "layer" prunes each weight tensor, "global" ranks all of them together, "erk" spreads
            the zeros as `weights.rule.erk_sparsities` tells.
        rewind: where a round begins: "init", at the weights of `model`; an int k, at those of
            step k of the dense training, 0 for "init" (a pipeline rewinds to an epoch instead,
            see `tfprune.weights.lottery`); "lr", at the weights as they are, trained
            from the start of the learning rate's schedule; "finetune", at the weights as they
            are, trained by `finetune`.
        finetune: as `train`, at the last and lowest learning rate.
        one_shot: prunes once, to the density that `rounds` rounds would reach.
        controls: "reinit", a ticket's masks over weights drawn anew; "random", as many weights of
            each tensor at places drawn by chance. Both are trained by `train` from the start.
        exclude: layers left dense; names, paths or globs.
        seed: of the controls.
        directory: where each trained network is stored once it is complete: `ticket-K`,
            `reinit-K` and `random-K`, with `model.keras` and `record.json`. A lottery that was
            stopped goes on after the last of them; more rounds, or controls, may be asked for
            later. The directory does not know what `train` does: another `train` needs another
            directory. Models that are read back are not compiled.

    Returns:
        An iterator over the dense network, level 0, then at each level the ticket and its
        controls; each is trained when it is asked for.

    Raises:
        UsageError: an argument cannot be, `train` let zeros go, or the directory holds the
            lottery of another model or other settings.
        TfpruneError: the directory cannot be written.
    """
    settings = Lottery(
        rounds, prune_rate, layers, scope, rewind, one_shot, tuple(controls), tuple(exclude), seed
    )
    if directory is None:
        return tickets(model, train, settings, finetune=finetune)
    memoize = _stored(Path(directory), model, settings)
    return tickets(model, train, settings, finetune=finetune, memoize=memoize)


def _stored(directory: Path, model: keras.Model, settings: Lottery) -> Memoize:
    """Makes the function that stores the results of a lottery in a directory."""
    about = {
        "model": _content(model),
        # More of these leave what is there as it is.
        **{
            _STORED_AS.get(name, name): value
            for name, value in asdict(settings).items()
            if name not in ("rounds", "controls")
        },
        # One cut to where all rounds lead is another for other rounds.
        "rounds": settings.rounds if settings.one_shot else None,
    }
    store = Store(directory)
    start = directory / "start"
    _check(start, about)

    def make_start(folder: Path) -> dict[str, Any]:
        write_keras(cloning.copy(model), folder / _MODEL)
        return {"about": about}

    store.finish(start, document_hash(about), make_start)

    def memoize(method: Method, level: int, make: Callable[[], Trained]) -> Trained:
        folder = directory / f"{method}-{level}"
        identity = document_hash({**about, "method": method, "level": level})
        made: list[keras.Model] = []
        failed: list[OSError] = []

        def save(unfinished: Path) -> dict[str, Any]:
            try:
                trained = make()
            except OSError as error:
                failed.append(error)
                raise
            made.append(trained.model)
            return _save(trained, method, level, unfinished)

        try:
            record = store.finish(folder, identity, save)
        except TfpruneError:
            # A file that `train` misses is not an error of this directory.
            if failed:
                raise failed[0] from None
            raise
        # Read back even where it was made just now: it is the same either way.
        return Trained(
            made[0] if made else _load(folder / _MODEL, model),
            record["result"],
            _read_state(folder),
        )

    return memoize


def _check(start: Path, about: dict[str, Any]) -> None:
    if not (start / RECORD).is_file() or is_finished(start, document_hash(about)):
        return
    known = read_json(start / RECORD)["about"]
    if known["model"] != about["model"]:
        raise UsageError(
            f"{start.parent} holds the lottery of a model with other initial weights: seed yours "
            f"before it is built, load {start / _MODEL}, or give another directory"
        )
    # As JSON has them: a tuple comes back as a list.
    now = json.loads(json.dumps(about))
    other = next(name for name in now if known.get(name) != now[name])
    argument = next((name for name, stored in _STORED_AS.items() if stored == other), other)
    raise UsageError(
        f"{start.parent} holds a lottery with {argument}={known.get(other)!r}, not {now[other]!r}: "
        "give another directory"
    )


def _content(model: keras.Model) -> str:
    """The hash of a model's weights; names differ from one process to the next."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(repr((value.shape, str(value.dtype))).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _save(trained: Trained, method: Method, level: int, folder: Path) -> dict[str, Any]:
    try:
        json.dumps(trained.result)
    except (TypeError, ValueError):
        raise UsageError(
            f"train returned a {type(trained.result).__name__}, which cannot be kept in a "
            "directory: return a History, or numbers, texts, lists and dicts of these"
        ) from None
    write_keras(cloning.copy(trained.model), folder / _MODEL)
    if trained.state is not None:
        parts = {"weights": trained.state.weights, "optimizer": trained.state.optimizer}
        arrays: dict[str, Any] = {
            f"{name}-{place}": value
            for name, values in parts.items()
            for place, value in enumerate(values)
        }
        np.savez(folder / _STATE, step=np.array(trained.state.step), **arrays)
    return {"method": method, "level": level, "result": trained.result}


def _load(path: Path, like: keras.Model) -> keras.Model:
    """A model from its file; its architecture is at hand, so no custom layer must be registered."""
    model = cloning.copy(like)
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise TfpruneError(f"{path} is damaged: delete its folder and run again") from error
    graph.finalize_states(model)
    return model


def _read_state(folder: Path) -> TrainingState | None:
    if not (folder / _STATE).is_file():
        return None
    with np.load(folder / _STATE) as file:
        weights, optimizer = (
            [file[f"{name}-{place}"] for place in range(sum(name in entry for entry in file.files))]
            for name in ("weights", "optimizer")
        )
        return TrainingState(int(file["step"]), weights, optimizer)
