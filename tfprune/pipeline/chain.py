"""A chain of steps that may repeat some of them, without being written out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, eq=False)
class Chain(Sequence[str]):
    """The names of a variant's steps: `start`, then `times` times `repeat`, then `end`.

    A list of thousands of rounds would hold all rounds before each of them, which is quadratic.

    Attributes:
        start: the first steps; all of them, where nothing repeats.
        repeat: what repeats.
        times: how often.
        end: the last steps.
    """

    start: tuple[str, ...] = ()
    repeat: tuple[str, ...] = ()
    times: int = 0
    end: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start) + len(self.repeat) * self.times + len(self.end)

    def __iter__(self) -> Iterator[str]:
        repeated = itertools.repeat(self.repeat, self.times)
        return itertools.chain(self.start, itertools.chain.from_iterable(repeated), self.end)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, int) and -len(self.end) <= place < 0:
            return self.end[place]
        return list(self)[place]

    def __contains__(self, step: object) -> bool:
        return step in self.parts

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Chain) and self._key == other._key:
            return True
        return isinstance(other, Chain | list | tuple) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.start, self.repeat, self.times, self.end

    @property
    def parts(self) -> frozenset[str]:
        """The steps, each once."""
        repeated = self.repeat if self.times else ()
        return frozenset((*self.start, *repeated, *self.end))

    @property
    def last(self) -> str | None:
        """The last step; None where there is none."""
        for part in (self.end, self.repeat if self.times else (), self.start):
            if part:
                return part[-1]
        return None

    def without_last(self) -> Chain:
        """The chain without its last step."""
        if self.end:
            return Chain(self.start, self.repeat, self.times, self.end[:-1])
        if self.repeat and self.times:
            return Chain(self.start, self.repeat, self.times - 1, self.repeat[:-1])
        return Chain(self.start[:-1])

    def map(self, names: Mapping[str, str]) -> Chain:
        """The chain with other names for some of its steps."""
        start, repeat, end = (
            tuple(names.get(step, step) for step in part)
            for part in (self.start, self.repeat, self.end)
        )
        return Chain(start, repeat, self.times, end)

    def short(self) -> Chain:
        """A chain in which the same steps follow each other, and nothing comes more than twice.

        What holds of the order of its steps holds of this one's: a step of the third round has
        the same steps before it as one of the second.
        """
        return Chain(self.start, self.repeat, min(self.times, 2), self.end)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        lists = handler.generate_schema(list[str])

        def validated(value: Any, inner: Callable[[Any], list[str]]) -> Chain:
            return value if isinstance(value, Chain) else Chain(tuple(inner(value)))

        return core_schema.no_info_wrap_validator_function(
            validated,
            lists,
            serialization=core_schema.plain_serializer_function_ser_schema(list),
        )
