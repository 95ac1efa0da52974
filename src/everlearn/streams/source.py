"""Where the problems of an online learner come from."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from everlearn.types import Row


class Feed:
    """The problems of one run, one after another. Its state is JSON: a resumed run goes on with the same problems."""

    def next(self) -> Row | None:
        """Return the next problem, or None where there are no more. It may wait for one."""
        raise NotImplementedError

    def answered(self, row: Row, right: bool) -> None:
        """Learn that the problem was answered, before learning it, rightly or not."""

    def known(self, n: int) -> Iterable[Row]:
        """Return up to `n` problems that are known to come, without taking them; empty where none is."""
        return ()

    def saved(self) -> None:
        """Learn that all problems given so far are learned and the run's state is on the disk."""

    def stop(self) -> None:
        """End, from a signal handler, a `next` that waits."""

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the feed that returned `state` stood."""
        raise NotImplementedError


class Source(Protocol):
    """What `@register("source", NAME)` expects: a frozen dataclass of options.

    Rows have `prompt` and `completion`, and optionally `choices`, `type`, `difficulty` and `content`: what makes two
    rows the same problem, by default the prompt.
    """

    verifier: str | None
    max_new_tokens: int

    def held_out(self, n: int) -> list[Row]:
        """Return `n` problems (or all there are, where they are given) that are never learned from."""
        ...

    def feed(self, seed: int, n_episodes: int) -> Feed:
        """Return the problems of a run; `n_episodes`: how many will be asked for."""
        ...


def content_of(row: Row) -> str:
    """Return what makes two rows the same problem: `content`, or the prompt without its case and spacing."""
    return row["content"] if "content" in row else " ".join(row["prompt"].split()).casefold()
