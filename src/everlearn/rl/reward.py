"""What a response is worth: rewards by name, and functions of the user's, run with a time limit in worker processes.

>>> with Rewards.of("countdown") as rewards:
...     worth = rewards(["3 5 9: 17 ="], ["<answer>3 + 5 + 9</answer>"], [{"numbers": [3, 5, 9], "target": 17}])
>>> worth.values
array([1.])

This module needs no torch, so that workers start within a fraction of a second.
"""

import faulthandler
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from numbers import Real
from threading import Thread
from traceback import format_exception_only
from typing import TYPE_CHECKING, Any, Self

import numpy
from pebble import ProcessExpired, ProcessPool

from everlearn.errors import TrainingError, check_number, describe, shown
from everlearn.registry import find, register
from everlearn.streams.countdown.verify import Verdict, from_tag, judge, problem_of, reward, reward_with_attempts

if TYPE_CHECKING:
    from everlearn.types import Row

START_S = 120.0  # until a worker must have imported the user's module
GRACE_S = 1.0  # beyond the time limit, until a worker ends itself
SLACK_S = 60.0  # beyond the time limit, until workers that tell nothing at all are given up
_WAY_OUT = "What the run has learned is saved: mend the function, then go on with everlearn resume"

Verify = Callable[[str, "Row"], bool]
Ask = tuple[str, str, "Row"]  # what a reward is asked with: prompt, response, row


@register("reward", "countdown")
def countdown(prompt: str, response: str, row: "Row") -> float:
    """1.0 where the expression in `<answer>…</answer>` solves the row's problem, 0.1 for another expression, else 0.

    A prompt that ends in `<answer>` has the response go on from there.
    """
    return reward(from_tag(prompt, response), *problem_of(row))


@register("reward", "countdown_attempts")
def countdown_attempts(prompt: str, response: str, row: "Row") -> float:
    """1.0 where the answer solves the row's problem, else 0.01 for each different value tried in `<think>`, up to 0.1.

    See `everlearn.streams.countdown.verify.reward_with_attempts`.
    """
    return reward_with_attempts(from_tag(prompt, response), *problem_of(row))


@register("reward", "countdown_right")
def countdown_right(prompt: str, response: str, row: "Row") -> float:
    """1.0 where the answer solves the row's problem, else 0: nothing for form."""
    return float(judge(from_tag(prompt, response), *problem_of(row)) is Verdict.RIGHT)


def _is_completion(response: str, row: "Row") -> bool:
    messages = row.get("messages")
    return response.strip() == (messages[-1]["content"] if messages else row["completion"]).strip()


@register("reward", "verifier")
def verifier(prompt: str, response: str, row: "Row", verify: Verify = _is_completion) -> float:
    """1.0 where the task's verifier accepts the response, else 0; without a verifier, where it is the row's answer."""
    return float(bool(verify(response, row)))


@dataclass(frozen=True)
class Worth:
    """What responses are worth.

    Attributes:
        values: the rewards, float64 [n].
        parts: what functions that return a dict gave beside `reward`, by name: float64 [n], NaN for the responses
            whose dict has no such name.
    """

    values: numpy.ndarray
    parts: dict[str, numpy.ndarray]


@dataclass
class Rewards:
    """A reward, ready to be asked what responses are worth. Made by `of`, used in a `with` block.

    Attributes:
        name: as it was asked for.
        function: (prompt, response, row) -> float, or dict with `reward`.
        outside: what of it was written outside everlearn, and so runs in worker processes; None: they aren't needed.
        time_limit_s: that a response may take in a worker.
        workers: processes.
    """

    name: str
    function: Callable[..., Any]
    outside: "_Outside | None"
    time_limit_s: float
    workers: int
    _pool: ProcessPool | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, name: str, *, verifier: str | None = None, time_limit_s: float = 10.0, workers: int = 2) -> Self:
        """Return the reward of a name.

        Args:
            name: a registered reward, or `package.module:function`: a function (prompt, response, row) -> float, or
                dict with `reward`. Unless it is everlearn's own, it runs in worker processes, which import its module;
                runs repeat, and resume bit for bit, if it depends on nothing but what it is given.
            verifier: the task's, by name, for the reward `verifier`; the others take none.
            time_limit_s: that a function from outside may take for one response.
            workers: processes that call it.

        Raises:
            ConfigError: if there is no such reward or verifier, or a number is out of range.
        """
        check_number("reward: time_limit_s", time_limit_s, above=0)
        check_number("reward: workers", workers, low=1)
        function, outside = _found("reward", name)
        if name == "verifier" and verifier is not None:
            verify, outside = _found("verifier", verifier)
            function = partial(function, verify=verify)
        return cls(name, function, outside, time_limit_s, workers)

    def __enter__(self) -> Self:
        """Start the workers, if the reward needs any.

        Raises:
            TrainingError: if they can't import its function.

        Cost: about 0.3 s, and what the import takes.
        """
        if self.outside is None:
            return self
        with ExitStack() as undo:
            undo.callback(self._stop)
            # processes that are started afresh: forking one that has torch's threads is unsafe
            start = {"initializer": _prepare, "initargs": (self.outside,), "context": get_context("spawn")}
            self._pool = ProcessPool(self.workers, **start)
            try:
                self._pool.schedule(self.outside.load).result(START_S)
            except Exception as error:
                what = f"as a worker process imports it, it {_told(error, START_S)}"
                way_out = 'Make it importable; a script that trains needs `if __name__ == "__main__":`'
                raise TrainingError(describe(f"reward {self.name}", what, self.outside.name, way_out)) from error
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, whatever they are at."""
        self._stop()

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], rows: Sequence["Row"]) -> Worth:
        """Return what responses are worth, in their order; `prompts` and `rows` are those of each response.

        Raises:
            TrainingError: if the function raises, returns no finite number, takes too long, or ends its process. It
                tells the first response, in their order, with which it does.

        Cost: of a function from outside, 0.2 to 0.7 ms a response beside its own time.
        """
        asks = list(zip(prompts, responses, rows, strict=True))
        if self.outside is None:
            found = self._collect(asks, (partial(_worth, self.function, *ask) for ask in asks))
        else:
            found = self._by_workers(asks)
        names = sorted({name for parts in found for name in parts} - {"reward"})
        return Worth(_column(found, "reward"), {name: _column(found, name) for name in names})

    def _by_workers(self, asks: Sequence[Ask]) -> list[dict[str, float]]:
        """One response a task: so each has the time limit to itself, and which one fails is known."""
        if self._pool is None:
            raise RuntimeError(f"reward {self.name} runs in worker processes: ask it in a `with` block")
        if not self._pool.active:
            what = "one of its worker processes ended while it had nothing to do"
            raise TrainingError(describe(f"reward {self.name}", what, self.outside.name, _WAY_OUT))
        futures = [
            self._pool.schedule(
                _watched, (self.time_limit_s, self.function, prompt, response, dict(row)), timeout=self.time_limit_s
            )
            for prompt, response, row in asks
        ]
        # when the one before is done, a response is in work or next
        longest_s = self.time_limit_s + SLACK_S
        try:
            return self._collect(asks, (partial(future.result, longest_s) for future in futures))
        finally:
            for future in futures:
                future.cancel()

    def _collect(
        self, asks: Iterable[Ask], answers: Iterable[Callable[[], dict[str, float]]]
    ) -> list[dict[str, float]]:
        found = []
        for (prompt, response, _), answer in zip(asks, answers, strict=True):
            try:
                found.append(answer())
            except Exception as error:
                what = f"on this response to {shown(prompt)} it {_told(error, self.time_limit_s)}"
                raise TrainingError(describe(f"reward {self.name}", what, response, _WAY_OUT)) from error
        return found

    def _stop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()


@dataclass(frozen=True)
class _Outside:
    """A function from outside everlearn, as it travels to workers: by `package.module:function`."""

    kind: str
    name: str

    def load(self) -> None:
        find(self.kind, self.name)

    def __call__(self, *given: Any) -> Any:
        return find(self.kind, self.name)(*given)


class _Unfit(Exception):
    """What a function did in place of returning a reward, in words. It can travel from a worker, as others may not."""


def _found(kind: str, name: str) -> tuple[Callable[..., Any], _Outside | None]:
    """Return a function, and the same from outside if that is where it comes from."""
    function = find(kind, name)
    path = name if ":" in name else f"{function.__module__}:{function.__qualname__}"
    if path.startswith("everlearn."):
        return function, None
    find(kind, path)  # one that was registered from outside may be out of a worker's reach
    outside = _Outside(kind, path)
    return outside, outside


def _prepare(outside: _Outside) -> None:
    """What a worker does first: it ends with its parent, even if that is killed, and imports before time counts."""
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(Exception):  # the first task tells
        outside.load()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _watched(time_limit_s: float, function: Callable[..., Any], *ask: Any) -> dict[str, float]:
    """`_worth` in a worker, which ends soon after the time limit although nobody may be left to end it.

    That needs no turn of the interpreter, which a function may never give: a regular expression that backtracks, say.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(time_limit_s + GRACE_S, exit=True, file=nowhere)
        try:
            return _worth(function, *ask)
        finally:
            faulthandler.cancel_dump_traceback_later()


def _worth(function: Callable[..., Any], prompt: str, response: str, row: "Row") -> dict[str, float]:
    try:
        value = function(prompt, response, row)
        parts = value if isinstance(value, Mapping) else {"reward": value}
        if "reward" not in parts:
            raise _Unfit("returns a dict without 'reward'")
        return {str(name): _finite(number) for name, number in parts.items()}
    except (_Unfit, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, say: a user may have written the function
        raise _Unfit(f"raises {shown(''.join(format_exception_only(error)).strip())}") from error


def _finite(value: Any) -> float:
    if not isinstance(value, Real | numpy.bool_):
        raise _Unfit(f"returns {'None' if value is None else f'a {type(value).__name__}'}, where a number should be")
    if not math.isfinite(value):
        raise _Unfit(f"returns {value}, which is not finite")
    return float(value)


def _told(error: Exception, time_limit_s: float) -> str:
    match error:
        case _Unfit():
            return str(error)
        case ProcessExpired():
            return f"ends its process (exit code {error.exitcode})"
        case BrokenProcessPool():
            return "ends its process, here or soon after"
        case TimeoutError():
            return f"gives nothing within {time_limit_s:g} s"
    return f"fails: {shown(error)}"


def _column(found: Sequence[Mapping[str, float]], name: str) -> numpy.ndarray:
    return numpy.array([parts.get(name, math.nan) for parts in found], numpy.float64)
