"""How long single operators take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tfprune.devices.flatbuffer import single
from tfprune.devices.operators import Operator

_ROUNDS = 5
# Calls of one operator in a row in one round; the rest of the work is spread over the rounds.
_SECONDS_A_TURN = 4e-4
_MOST_CALLS = 100
# Interpreters in memory at once, and what the weights in their files may take, in bytes.
_TOGETHER = 64
_MEMORY = 1 << 26


class OperatorTimes:
    """Times operators alone, each distinct one once.

    The fastest call counts: what else runs on the machine only ever adds time. All operators of a
    batch are called in turn, with one reference operator among them in every batch, by which
    batches of different minutes are brought to one scale: a machine's speed drifts.

    Args:
        int8: int8 operators; float32 if not.
        threads: threads of the interpreter.
        progress: told how many operators have been timed, after each batch.
        clock: gives nanoseconds.
    """

    def __init__(
        self,
        *,
        int8: bool = False,
        threads: int = 1,
        progress: Callable[[int], None] | None = None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._int8, self._threads, self._clock = int8, threads, clock
        self._progress = progress
        self._known: dict[Operator, float] = {}
        self._reference: Operator | None = None

    def __call__(self, operators: Sequence[Operator]) -> np.ndarray:
        """Milliseconds of one call of each operator, float (len(operators),)."""
        missing = [each for each in dict.fromkeys(operators) if each not in self._known]
        while missing:
            sizes = np.cumsum([4 * _weights(each) for each in missing[:_TOGETHER]])
            count = max(1, int(np.searchsorted(sizes, _MEMORY)))
            self._measure(missing[:count])
            missing = missing[count:]
        return np.array([self._known[each] for each in operators])

    def _measure(self, operators: list[Operator]) -> None:
        if self._reference is None:
            self._reference = max(operators, key=_work)
        times = self._fastest([self._reference, *operators])
        # The first batch sets the scale.
        scale = self._known.get(self._reference, times[0]) / times[0]
        self._known.update(zip(operators, (scale * times[1:]).tolist(), strict=True))
        if self._progress:
            self._progress(len(self._known))

    def _fastest(self, operators: list[Operator]) -> np.ndarray:
        calls = [self._prepared(each) for each in operators]
        fastest = [self._timed(call) for call in calls]
        often = [min(_MOST_CALLS, int(_SECONDS_A_TURN * 1e9 / ns) + 1) for ns in fastest]
        for _ in range(_ROUNDS):
            for index, call in enumerate(calls):
                took = min(self._timed(call) for _ in range(often[index]))
                fastest[index] = min(fastest[index], took)
        return np.array(fastest) / 1e6

    def _timed(self, call: Callable[[], None]) -> int:
        begin = self._clock()
        call()
        return max(1, self._clock() - begin)

    def _prepared(self, operator: Operator) -> Callable[[], None]:
        content = single(operator, int8=self._int8)
        interpreter = Interpreter(model_content=content, num_threads=self._threads)
        interpreter.allocate_tensors()
        # The first call finds memory that later ones reuse.
        interpreter.invoke()
        call: Callable[[], None] = interpreter.invoke
        return call


def _weights(operator: Operator) -> int:
    """How many weights its kernel has."""
    read = 1 if operator.kind == "depthwise" else operator.inputs
    return operator.window[0] * operator.window[1] * read * operator.outputs


def _work(operator: Operator) -> int:
    """How many multiply-accumulates an operator does."""
    return operator.target[0] * operator.target[1] * _weights(operator)
