"""Sources of episodes besides the arena: rows as they come (a growing file, standard input); problems that drift."""

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from everlearn.errors import ConfigError, check_choice, check_number, describe
from everlearn.registry import find, register
from everlearn.seeds import seed_for
from everlearn.streams.arena.stream import MAX_NEW_TOKENS
from everlearn.streams.drift import DriftStream
from everlearn.streams.live import LiveRows, arrivals_of
from everlearn.streams.source import PROBLEMS, Feed
from everlearn.types import Row


@register("source", "rows")
@dataclass(frozen=True)
class RowsSource:
    """Rows with `prompt` and `completion`, and if you like `choices`, `type`, `difficulty`, `content` and `explanation`
    (its steps); a JSON object a line, whose other keys are left out.

    Args:
        path: a JSONL file, or `-` for standard input; held_out_path: a JSONL file of problems never learned from.
        follow: wait for lines that are added to the file.
        ahead: rows that are read and not yet learned, at most.
        idle_s: end when no row has come for so many seconds; null waits for ever.
        on_bad_row: error, or skip with a warning.
        verifier: registered function (completion, row) -> bool; null compares the texts.
        max_new_tokens: of an answer; with steps more, where the held-out rows' own are longer.
    """

    path: str
    held_out_path: str
    follow: bool = False
    ahead: int = 64
    idle_s: float | None = None
    on_bad_row: str = "error"
    verifier: str | None = None
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        check_number("source.ahead", self.ahead, low=1)
        check_number("source.max_new_tokens", self.max_new_tokens, low=1)
        if self.idle_s is not None:
            check_number("source.idle_s", self.idle_s, above=0, high=threading.TIMEOUT_MAX)
        check_choice("source.on_bad_row", self.on_bad_row, ("error", "skip"))
        if self.follow and self.path == "-":
            way_out = "Only a file can be followed; standard input is read until it ends anyway"
            raise ConfigError(describe("source.follow", "has nothing to follow", self.path, way_out))
        if self.verifier is not None:
            find("verifier", self.verifier, "source.verifier")

    def held_out(self, n: int) -> list[Row]:
        """Return the first `n` held-out rows, or all that there are."""
        with LiveRows(arrivals_of(self.held_out_path), on_bad_row=self.on_bad_row, rules=PROBLEMS) as rows:
            found = [live.row for live, _ in zip(rows, range(n), strict=False)]
        if not found:
            raise ConfigError(describe("source.held_out_path", "holds no row", self.held_out_path, "Give it some"))
        return found

    def feed(self, seed: int, n_episodes: int) -> "RowsFeed":
        """Return the rows; all seeds get the same."""
        return RowsFeed(self)


@dataclass
class RowsFeed(Feed):
    """Rows of one run, read ahead by a thread. What was given and isn't saved with the run comes again."""

    source: RowsSource
    position: dict[str, Any] | None = None  # behind the last row given
    rows: LiveRows | None = None
    stopped: bool = False

    def next(self) -> Row | None:
        live = next(self._open(), None)
        if live is None:
            return None
        self.position = live.position
        return live.row

    def known(self, n: int) -> list[Row]:
        """Return the rows that are in the file already."""
        if self.source.path == "-":
            return []
        arrivals = arrivals_of(self.source.path)
        with LiveRows(arrivals, on_bad_row="skip", rules=PROBLEMS) as rows, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a bad row is told of when it is to be learned
            return [live.row for live, _ in zip(rows, range(n), strict=False)]

    def wait(self, seconds: float) -> bool:
        return self._open().wait(seconds)

    def stop(self) -> None:
        self.stopped = True
        if self.rows is not None:
            self.rows.stop()

    def close(self) -> None:
        if self.rows is not None:
            self.rows.close()

    def _open(self) -> LiveRows:
        """Return the rows, from the first call on read ahead."""
        if self.rows is None:
            options = {"ahead": self.source.ahead, "idle_s": self.source.idle_s, "on_bad_row": self.source.on_bad_row}
            arrivals = arrivals_of(self.source.path, follow=self.source.follow)
            self.rows = LiveRows(arrivals, position=self.position, rules=PROBLEMS, **options)
            if self.stopped:  # before there was anything to stop
                self.rows.stop()
        return self.rows

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]


@register("source", "drift")
@dataclass(frozen=True)
class DriftSource(DriftStream):
    """Problems whose concept drifts, for a learner that isn't told; held out are problems of every concept.

    The fields are those of the stream `drift`. A row's `type` is its concept.
    """

    verifier = "arena"
    max_new_tokens = MAX_NEW_TOKENS

    def held_out(self, n: int) -> list[Row]:
        """Return `n` problems, of all concepts alike."""
        n_concepts = len(self.concepts)
        each = replace(self, n_eval=-(-n // n_concepts))
        sizes = [n // n_concepts + (number < n % n_concepts) for number in range(n_concepts)]
        return [self.row_of(row, number) for number, size in enumerate(sizes) for row in each.evaluation(number)[:size]]

    def feed(self, seed: int, n_episodes: int) -> "DriftFeed":
        """Return the stream's rows; another seed draws other problems."""
        return DriftFeed(replace(self, data_seed=seed_for(self.data_seed, "online", seed)))

    def row_of(self, row: Row, number: int) -> Row:
        # a problem is the same under another rule: nothing but its text may tell two apart
        return {**row, "type": self.concepts[number], "content": row["prompt"]}


@dataclass
class DriftFeed(Feed):
    """The rows of one run."""

    source: DriftSource
    place: int = 0

    def next(self) -> Row | None:
        if self.place >= self.source.n_rows:
            return None
        self.place += 1
        return self.source.row_of(*self.source.row_at(self.place - 1))

    def known(self, n: int) -> list[Row]:
        """Return the first rows of the stream."""
        return [self.source.row_of(*self.source.row_at(place)) for place in range(min(n, self.source.n_rows))]

    def state(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]
