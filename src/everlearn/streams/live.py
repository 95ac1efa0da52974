"""Rows as they come, for a learner that takes them one by one: read a little ahead, resumed where it acknowledged.

    with LiveRows(arrivals_of("rows.jsonl", follow=True), state_file=Path("rows.state")) as rows, stop_on_signals(rows):
        for live in rows:
            learn(live.row)
            rows.acknowledge(live)

A row that was handed out and not acknowledged is handed out again after a crash. Where learning is saved less often
than once a row, acknowledge when it is; or save `rows.position` in the same file as what was learned, and pass it as
`position`: then no crash can part the two.
"""

import math
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from everlearn.errors import ConfigError, StreamError, check_choice, check_number, describe
from everlearn.state import read_json, write_json
from everlearn.streams.arrivals import Arrival, Arrivals, FileLines, Items, Position, StandardInput, Waiter
from everlearn.streams.checking import Rules, check_row
from everlearn.streams.labels import BadRow, LabelBook
from everlearn.streams.reading import as_row, parse_line
from everlearn.types import Row

PROMPTS = Rules("prompt", LabelBook())


@dataclass(frozen=True)
class LiveRow:
    """A row, its number among the lines (or items) of its source, from 1, and the position behind it."""

    row: Row
    number: int
    position: Position


def arrivals_of(data: str | Path | Iterable[Any], *, follow: bool = False) -> Arrivals:
    """Return the source of live rows: a path (to a JSONL file that may grow), `-` for standard input, or an iterable.

    Raises:
        ConfigError: if something else than a file is to be followed.
    """
    if data == "-" or not isinstance(data, str | Path):
        if follow:
            way_out = "Only a file can be followed; this is read until it ends anyway"
            raise ConfigError(describe("live.follow", "has nothing to follow", data, way_out))
        return StandardInput() if data == "-" else Items(data)
    return FileLines(Path(data).expanduser(), follow)


class LiveRows:
    """An iterator of `LiveRow`s. A thread reads ahead of whoever takes them, by `ahead` rows at most.

    Args:
        arrivals: where they come from; see `arrivals_of`.
        ahead: lines or items that are read and not yet taken, at most.
        idle_s: end when a row hasn't come for so many seconds; None waits for ever.
        rules: what a row must look like, by default a `prompt` and a `completion`. Labels have to be declared.
        check: in place of the rules: returns a row as it is to be handed out, None where it is not, or raises BadRow.
        on_bad_row: "error", or "skip" with a warning.
        state_file: written by `acknowledge`, whole or not at all; where it is there, reading goes on from it.
        position: where to go on instead, if positions are kept elsewhere.

    Attributes:
        position: behind the last acknowledged row, as JSON; None before the first.
        ended: why there are no more rows: "end" of the source, "idle", "stopped", or None as long as there may be.
        n_bad: bad rows skipped.

    Raises:
        ConfigError: if an option is out of range. StateError: if the state file can't be read.

    Cost: `acknowledge` waits for the disk (some ms) where there is a state file. A followed file is looked at every
        `poll_s`; nothing else is done while waiting.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        *,
        ahead: int = 64,
        idle_s: float | None = None,
        rules: Rules = PROMPTS,
        check: Callable[[Mapping[str, Any]], Row | None] | None = None,
        on_bad_row: str = "error",
        state_file: Path | None = None,
        position: Position | None = None,
    ) -> None:
        check_number("live.ahead", ahead, low=1)
        check_choice("live.on_bad_row", on_bad_row, ("error", "skip"))
        if idle_s is not None:
            check_number("live.idle_s", idle_s, above=0, high=threading.TIMEOUT_MAX)
        if state_file is not None and position is not None:
            raise ConfigError(describe("live.position", "stands beside state_file", position, "Pass one of the two"))
        if state_file is not None and state_file.exists():
            position = read_json(state_file)
        self.arrivals, self.idle_s, self.on_bad_row = arrivals, idle_s, on_bad_row
        self.check = check or partial(check_row, rules=rules)
        self.state_file, self.position = state_file, position
        self.ended: Literal["end", "idle", "stopped"] | None = None
        self.n_bad = 0
        self._waiter = Waiter()
        self._held: list[Arrival | Exception | None] = []  # what `wait` found, at most one
        self._waited_s = 0.0  # for the row that comes next
        # SimpleQueue, since its put may be called in a signal handler: Semaphore and Queue could lock themselves out
        self._arrived: queue.SimpleQueue[Arrival | Exception | None] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(ahead):
            self._permits.put(True)
        self._reader = threading.Thread(target=self._read, name=f"read {arrivals.name}", daemon=True)
        self._reader.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LiveRow:
        """Return the next good row; wait for it.

        Raises:
            StopIteration: at the end; `ended` tells which.
            StreamError: on a bad row, with file, line and reason, or if the source can't be read on.
        """
        while self.ended is None:
            if not self._held and not self.wait(math.inf if self.idle_s is None else self.idle_s - self._waited_s):
                self.ended = "idle"
                break
            if self.ended is not None:  # stopped while waiting
                break
            arrival = self._held.pop()
            self._waited_s = 0.0
            if not isinstance(arrival, Arrival):
                self.ended = "end"
                if arrival is not None:
                    raise arrival
                break
            self._permits.put(True)
            row = self._checked(arrival)
            if row is not None:
                return LiveRow(row, arrival.number, arrival.position)
        raise StopIteration

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long, until the next row is there (or there is none); tell whether it is.

        It counts towards `idle_s`.
        """
        if self._held or self.ended is not None:
            return True
        started, seconds = time.monotonic(), min(max(0.0, seconds), threading.TIMEOUT_MAX)
        try:
            self._held.append(self._arrived.get(timeout=seconds))
        except queue.Empty:
            self._waited_s += time.monotonic() - started
        return bool(self._held)

    def acknowledge(self, live: LiveRow) -> None:
        """Note that this row, and all before it, need not come again.

        Raises:
            StreamError: if a later one was acknowledged before.
            StateError: if the state file can't be written.
        """
        if self.position is not None and live.number < self.position["number"]:
            way_out = "Acknowledge rows in their order"
            what = f"row {self.position['number']} was acknowledged before"
            raise StreamError(describe(self.arrivals.name, what, live.number, way_out))
        self.position = live.position
        if self.state_file is not None:
            write_json(self.state_file, live.position)

    def stop(self) -> None:
        """End the iteration now, from any thread or signal handler. What was read ahead comes again after a resume."""
        self.ended = self.ended or "stopped"
        self._waiter.wake()
        self._permits.put(False)
        self._arrived.put(None)

    def close(self) -> None:
        """Stop, and wait for the reader to end, where it can be woken."""
        self.stop()
        if self.arrivals.can_be_woken:
            self._reader.join()
            self._waiter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        """Put what arrives, a permit for each; at last None, or what went wrong. Runs in the reader's thread."""
        try:
            arrivals = self.arrivals.read(self.position, self._waiter)
            while self._permits.get():
                arrival = next(arrivals, None)
                self._arrived.put(arrival)
                if arrival is None:
                    return
        except Exception as error:  # noqa: BLE001, raised again where rows are taken
            self._arrived.put(error)

    def _checked(self, arrival: Arrival) -> Row | None:
        """Return the row, or None where there is none to hand out: a bad one that is skipped, say."""
        raw = arrival.raw
        row = parse_line(raw, is_first=arrival.number == 1) if isinstance(raw, bytes) else as_row(raw)
        try:
            if isinstance(row, str):
                raise BadRow(row)
            return self.check(row)
        except BadRow as reason:
            place = f"{self.arrivals.name} {self.arrivals.unit} {arrival.number}"
            if self.on_bad_row == "error":
                way_out = "Mend the row, or set on_bad_row: skip to leave it out"
                raise StreamError(describe(place, f"bad row: {reason}", raw, way_out)) from reason
            self.n_bad += 1
            warnings.warn(f"{place}: skipped a bad row: {reason}", UserWarning, stacklevel=3)
            return None


@contextmanager
def stop_on_signals(rows: LiveRows) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the rows; a second one acts as it would have before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        rows.stop()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
