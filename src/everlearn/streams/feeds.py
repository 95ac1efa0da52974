"""Sources of episodes besides the arena: rows as they come (a growing file, a folder, standard input); problems that
drift."""  # fmt: skip

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from everlearn.errors import ConfigError, StreamError, check_choice, check_number, describe
from everlearn.registry import find, register
from everlearn.seeds import seed_for
from everlearn.streams.arena.stream import MAX_NEW_TOKENS
from everlearn.streams.arrivals import Arrivals, Waiter, first_line_of_input
from everlearn.streams.delayed import ANSWERS, ASKS, Joining, kind_of_row
from everlearn.streams.drift import DriftStream
from everlearn.streams.live import LiveRows, arrivals_of
from everlearn.streams.reading import parse_line
from everlearn.streams.source import PROBLEMS, Feed
from everlearn.streams.watched import FolderLines
from everlearn.types import Row

AUTO = "auto"
STANDARD_INPUT = "-"  # as a path
KINDS = (AUTO, *ANSWERS)


@dataclass(frozen=True, kw_only=True)
class LiveSource:
    """Rows from outside, a JSON object a line (or message), whose other keys are left out: `prompt` and `completion`,
    `text` (and `text_pair`) and `label` or `score`, or `tokens` and `tags`. A row's answer may come later, see
    `everlearn.streams.delayed`. Prompts may have `choices`, all rows `type`, `difficulty`, `content` and `explanation`.

    Args:
        kind: of the rows: prompt, classify, score, tag; auto: as the first row is, prompt where problems are held out.
        labels: names of the classes, or tags; without them the model's outputs grow as they appear.
        held_out_path: a JSONL file of problems never learned from; prompts need it, rows with labels have none.
        ahead: rows that are read and not yet learned, at most.
        idle_s: end when no row has come for so many seconds; null waits for ever.
        on_bad_row: error, or skip with a warning.
        max_waiting: rows that wait for their answers, at most; the oldest is given up for a new one.
        verifier: of prompts: registered function (completion, row) -> bool; null compares the texts.
        max_new_tokens: of an answer to a prompt; with steps more, where the held-out rows' own are longer.
    """

    kind: str = AUTO
    labels: list[str] = field(default_factory=list)
    held_out_path: str | None = None
    ahead: int = 64
    idle_s: float | None = None
    on_bad_row: str = "error"
    max_waiting: int = 10_000
    verifier: str | None = None
    max_new_tokens: int = 32

    def __post_init__(self) -> None:
        check_choice("source.kind", self.kind, KINDS)
        for name in ("ahead", "max_new_tokens", "max_waiting"):
            check_number(f"source.{name}", vars(self)[name], low=1)
        if self.idle_s is not None:
            check_number("source.idle_s", self.idle_s, above=0, high=threading.TIMEOUT_MAX)
        check_choice("source.on_bad_row", self.on_bad_row, ("error", "skip"))
        if self.verifier is not None:
            find("verifier", self.verifier, "source.verifier")
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError(describe("source.labels", "names a label twice", self.labels, "Name each once"))

    def arrivals(self) -> Arrivals:
        """Return where the rows come from."""
        raise NotImplementedError

    def first(self) -> bytes:
        """Return the first line, waiting for it; it is handed out all the same. Empty where there is none."""
        waiter = Waiter()
        try:
            arrival = next(self.arrivals().read(None, waiter), None)
        finally:
            waiter.close()
        return b"" if arrival is None else arrival.raw

    def settled(self) -> "LiveSource":
        """Return the source with the kind that its first row is of, where it is left open: it may wait for that row.

        Raises:
            StreamError: if there is no row, or it tells no kind.
        """
        if self.kind != AUTO:
            return self
        if self.held_out_path is not None:
            return replace(self, kind="prompt")
        line = self.first()
        row = parse_line(line, is_first=True) if line else "there is none"
        kind = kind_of_row(row) if isinstance(row, dict) else None
        if kind is None:
            what = f"its first row tells no kind ({row})" if isinstance(row, str) else "its first row tells no kind"
            got = row if isinstance(row, dict) else line.decode(errors="replace")
            way_out = f"Give rows {' or '.join(f'{ASKS[one]} and {ANSWERS[one]}' for one in ANSWERS)}; or name the kind"
            raise StreamError(describe("source.kind", what, got, way_out))
        return replace(self, kind=kind)

    def held_out(self, n: int) -> list[Row]:
        """Return the first `n` held-out rows, or all that there are."""
        if self.held_out_path is None:
            way_out = "Name a JSONL file of prompts and completions that are never learned from"
            raise ConfigError(describe("source.held_out_path", "prompts need held-out ones", None, way_out))
        with LiveRows(arrivals_of(self.held_out_path), on_bad_row=self.on_bad_row, rules=PROBLEMS) as rows:
            found = [live.row for live, _ in zip(rows, range(n), strict=False)]
        if not found:
            raise ConfigError(describe("source.held_out_path", "holds no row", self.held_out_path, "Give it some"))
        return found

    def feed(self, seed: int, n_episodes: int) -> "RowsFeed":
        """Return the rows; all seeds get the same."""
        return RowsFeed(self)


@register("source", "rows")
@dataclass(frozen=True)
class RowsSource(LiveSource):
    """Rows of a file, of a folder's files, or of standard input; see `LiveSource`.

    Args:
        path: a JSONL file; a folder, whose .jsonl files are read one after another by name; or `-` for standard input.
        follow: wait for lines that are added to the file, or for files that are laid into the folder.
    """

    path: str
    follow: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.follow and self.path == STANDARD_INPUT:
            way_out = "Only a file can be followed; standard input is read until it ends anyway"
            raise ConfigError(describe("source.follow", "has nothing to follow", self.path, way_out))

    def arrivals(self) -> Arrivals:
        """Return the lines of the file or folder, or of standard input."""
        folder = Path(self.path).expanduser()
        return FolderLines(folder, self.follow) if folder.is_dir() else arrivals_of(self.path, follow=self.follow)

    def first(self) -> bytes:
        return first_line_of_input() if self.path == STANDARD_INPUT else super().first()


@dataclass
class RowsFeed(Feed):
    """Rows of one run, read ahead by a thread. What was given and isn't saved with the run comes again."""

    source: LiveSource
    position: dict[str, Any] | None = None  # behind the last row given
    rows: LiveRows | None = None
    stopped: bool = False
    joining: Joining = field(init=False)
    arrivals: Arrivals = field(init=False)

    def __post_init__(self) -> None:
        kind = "prompt" if self.source.kind == AUTO else self.source.kind
        self.joining = Joining(kind, self.source.labels, self.source.max_waiting)
        self.arrivals = self.source.arrivals()

    def next(self) -> Row | None:
        live = next(self._open(), None)
        if live is None:
            return None
        self.position = live.position
        return live.row

    def known(self, n: int) -> list[Row]:
        """Return the rows that are in the file already."""
        if not isinstance(self.source, RowsSource) or self.source.path == STANDARD_INPUT:
            return []
        arrivals = replace(self.source, follow=False).arrivals()
        joining = Joining(self.joining.kind, self.source.labels, self.source.max_waiting)
        with LiveRows(arrivals, on_bad_row="skip", check=joining.take) as rows, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a bad row is told of when it is to be learned
            return [live.row for live, _ in zip(rows, range(n), strict=False)]

    def asked(self, row: Row, answer: Any) -> None:
        self.joining.answered(row, answer)

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
            self.rows = LiveRows(self.arrivals, position=self.position, check=self.joining.take, **options)
            if self.stopped:  # before there was anything to stop
                self.rows.stop()
        return self.rows

    def state(self) -> dict[str, Any]:
        return {"position": self.position, **self.joining.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]
        if "waiting" in state:  # runs of before have none
            self.joining.load_state(state)


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
