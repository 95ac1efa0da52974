"""Where the problems of an online learner come from."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from everlearn.errors import StreamError, describe
from everlearn.streams.checking import NOTES, Rules, check_row, content_of
from everlearn.streams.labels import BadRow, LabelBook
from everlearn.types import Row

PROBLEMS = Rules("prompt", LabelBook(), notes=tuple(NOTES))  # what a row of a source must look like


class Feed:
    """The problems of one run, one after another. Its state is JSON: a resumed run goes on with the same problems."""

    def next(self) -> Row | None:
        """Return the next problem, or None where there are no more. It may wait for one."""
        raise NotImplementedError

    def answered(self, row: Row, right: bool) -> None:
        """Learn that the problem was answered, before learning it, rightly or not."""

    def asked(self, row: Row, answer: Any) -> None:
        """Learn what was answered to a row that came with an id and without its right answer; give it later, whole and
        with `answered`: that answer."""  # fmt: skip
        raise StreamError(describe("source", "a row that it gave has no answer", row, "Mend the source"))

    def known(self, n: int) -> Iterable[Row]:
        """Return up to `n` problems that are known to come, without taking them; empty where none is."""
        return ()

    def wait(self, seconds: float) -> bool:
        """Wait, at most so long, until `next` would return at once; tell whether it would."""
        return True

    def stop(self) -> None:
        """End, from a signal handler, a `next` or `wait` that waits, and all later ones."""

    def saved(self, state: Mapping[str, Any]) -> None:
        """Learn that what `state` returned was saved with all that was learned by then: it is never gone back behind.

        It may be told so again.
        """  # fmt: skip

    def close(self) -> None:
        """Give back what the feed holds; it is used no more."""

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the feed that returned `state` stood."""
        raise NotImplementedError


class Source(Protocol):
    """What `@register("source", NAME)` expects: a frozen dataclass of options.

    Rows have `prompt` and `completion`, and optionally `choices`, `type`, `difficulty`, `explanation` (the steps to the
    answer) and `content`: what makes two rows the same problem, beside the prompt.
    """

    verifier: str | None
    max_new_tokens: int

    def held_out(self, n: int) -> list[Row]:
        """Return `n` problems (or all there are, where they are given) that are never learned from."""
        ...

    def feed(self, seed: int, n_episodes: int) -> Feed:
        """Return the problems of a run; `n_episodes`: how many will be asked for."""
        ...


def names_of(row: Row) -> set[tuple[str, str]]:
    """Return what names a problem: its prompt, and its `content` if it has one. Two rows are the same problem if they
    share a name.
    """  # fmt: skip
    prompt = ("prompt", content_of({"prompt": row["prompt"]}))
    return {prompt, ("content", row["content"])} if row.get("content") is not None else {prompt}


def check_problem(row: Any) -> None:
    """Raise StreamError if what a source gave is no problem to learn from."""
    reason = "is no mapping"
    if isinstance(row, Mapping):
        try:
            check_row({name: value for name, value in row.items() if name != "choices"}, PROBLEMS)
            return
        except BadRow as error:
            reason = f"is bad: {error}"
    raise StreamError(describe("source", f"a row that it gave {reason}", row, "Mend the source"))
