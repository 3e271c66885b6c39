"""From what a pipeline file says in short to the steps and variants that it means.

All of it works on plain tables, before they are checked: a mistake in a short form is told by the
same checks as one in the long form.
"""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfprune.errors import UsageError, did_you_mean
from tfprune.pipeline.kinds import TRAINING

Raw = dict[str, Any]


def override(raw: Raw, settings: Sequence[str], tables: Sequence[str]) -> Raw:
    """A pipeline with some of its values replaced.

    Args:
        raw: what the file says.
        settings: `KEY=VALUE` each, as of `--set`. KEY is a path from the top of the file
            (`data.limit`), from a step (`dense.epochs`, short for `steps.dense.epochs`), or from
            a kind of step, for all of that kind (`train.epochs`). VALUE is TOML; a word needs no
            quotes.
        tables: the keys that stand at the top of a pipeline file.

    Returns:
        A new table.

    Raises:
        UsageError: a setting is of another form, or its key begins with nothing of the file.
    """
    raw = copy.deepcopy(raw)
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            raise UsageError(f"--set {setting}: write KEY=VALUE, such as train.epochs=3")
        value = _value(text.strip())
        for full in _places(raw, path, tables, setting):
            table = raw
            for part in full[:-1]:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise UsageError(f"--set {setting}: {part} is a value, it has nothing in it")
            table[full[-1]] = value
    return raw


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _places(raw: Raw, path: list[str], tables: Sequence[str], setting: str) -> Iterator[list[str]]:
    steps = raw.get("steps")
    steps = steps if isinstance(steps, dict) else {}
    kinds = {name: step.get("kind") for name, step in steps.items() if isinstance(step, dict)}
    if path[0] in tables:
        yield path
    elif path[0] in steps:
        yield ["steps", *path]
    elif path[0] in kinds.values():
        yield from (["steps", name, *path[1:]] for name, kind in kinds.items() if kind == path[0])
    else:
        known = [*steps, *dict.fromkeys(map(str, kinds.values())), *tables]
        raise UsageError(
            f"--set {setting}: {path[0]} is no step, kind of step or table of the pipeline: "
            + did_you_mean(path[0], known)
        )


def with_training(raw: Raw) -> Raw:
    """Gives every step that trains what `[training]` says and the step does not.

    A slim step takes what it says of augmentation, for the images that it recalibrates with.
    """
    common, steps = raw.get("training", {}), raw.get("steps")
    if not isinstance(common, dict) or not isinstance(steps, dict):
        return raw
    augment = {key: value for key, value in common.items() if key == "augment"}
    shared = dict.fromkeys(TRAINING, common) | {"slim": augment}
    given = {
        name: {**shared.get(str(step.get("kind")), {}), **step} if isinstance(step, dict) else step
        for name, step in steps.items()
    }
    return {**raw, "steps": given}


def with_rounds(raw: Raw) -> Raw:
    """Turns `[rounds.NAME]` into the variants NAME-1 to NAME-times."""
    rounds, variants = raw.get("rounds", {}), raw.get("variants", {})
    if not isinstance(rounds, dict) or not isinstance(variants, dict):
        return raw
    added: dict[str, list[str]] = {}
    for name, spec in rounds.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("times"), int):
            continue
        start, repeat, end = (spec.get(part, []) for part in ("start", "repeat", "end"))
        if all(isinstance(part, list) for part in (start, repeat, end)):
            for times in range(1, spec["times"] + 1):
                added[f"{name}-{times}"] = [*start, *repeat * times, *end]
    return {**raw, "variants": {**variants, **added}} if added else raw


def with_sweep(raw: Raw) -> Raw:
    """Turns every variant with a swept step into one for each combination of values.

    `[sweep]` holds lists of values by step and parameter. A swept variant's and step's names gain
    "-PARAMETER-VALUE".
    """
    sweep, steps, variants = (raw.get(key, {}) for key in ("sweep", "steps", "variants"))
    if not all(isinstance(each, dict) for each in (sweep, steps, variants)):
        return raw
    choices = {
        step: _choices(values)
        for step, values in sweep.items()
        if isinstance(values, dict) and isinstance(steps.get(step), dict)
    }
    expanded_steps = dict(steps)
    for step, options in choices.items():
        for suffix, values in options:
            expanded_steps[step + suffix] = {**steps[step], **values}
    expanded: dict[str, Any] = {}
    for variant, chain in variants.items():
        swept = [step for step in choices if isinstance(chain, list) and step in chain]
        for combination in itertools.product(*(choices[step] for step in swept)):
            suffixes = {step: suffix for step, (suffix, _) in zip(swept, combination, strict=True)}
            expanded[variant + "".join(suffixes.values())] = (
                [step + suffixes.get(step, "") for step in chain] if swept else chain
            )
    used = {step for chain in expanded.values() if isinstance(chain, list) for step in chain}
    kept = {name: step for name, step in expanded_steps.items() if name in used or name in steps}
    return {
        **raw,
        "steps": {name: step for name, step in kept.items() if name not in choices},
        "variants": expanded,
        "sweep": {},
    }


def _choices(values: Mapping[str, Any]) -> list[tuple[str, Raw]]:
    """The suffix and the parameters of each combination."""
    lists = [each if isinstance(each, list) else [each] for each in values.values()]
    combinations = [dict(zip(values, row, strict=True)) for row in itertools.product(*lists)]
    return [
        ("".join(f"-{name}-{_word(value)}" for name, value in chosen.items()), chosen)
        for chosen in combinations
    ]


def _word(value: Any) -> str:
    """A value as a part of a name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-")
