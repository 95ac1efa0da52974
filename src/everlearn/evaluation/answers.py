"""What an item asks, what is right and what a model answered, as texts for people to read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from everlearn.streams.checking import answer_of, text_of
from everlearn.types import Row, Score, Task

KEPT_CHARACTERS = 500  # of an answer; also of the question and the right answer that a run keeps beside it
_JOINERS = "\u200c\u200d"  # invisible, and part of how Persian, Hindi and emoji are written


@dataclass(frozen=True)
class Flip:
    """An item on which two models differ.

    question, right: what it asks, and the right answer. row: the item itself, where it is at hand. before, after: how
    right each was. answer_before, answer_after: what each answered; None where that was not kept.
    """

    task: str
    question: str
    right: str
    row: Row | None
    before: float
    after: float
    answer_before: str | None = None
    answer_after: str | None = None

    @property
    def lost(self) -> bool:
        """Whether the second is less right than the first."""
        return self.after < self.before


def flips_of(asked: Sequence[tuple[str, str, Row | None]], before: Score, after: Score) -> list[Flip]:
    """Return the items on which two scores differ, in the order of the items.

    Args:
        asked: question, right answer and row (or None) of each item.
    """
    texts = [score.answers or [None] * len(score.outcomes) for score in (before, after)]
    items = zip(asked, before.outcomes, after.outcomes, *texts, strict=True)
    return [Flip(after.task, *item, b, a, said, says) for item, b, a, said, says in items if b != a]


def without_answers(holder: Any) -> dict[str, Any]:
    """Return a score, or a dataclass that holds scores, as JSON values, without the answers."""
    return asdict(holder, dict_factory=lambda pairs: {name: value for name, value in pairs if name != "answers"})


def has_answers(task: Task) -> bool:
    """Return whether the task's items are questions with an answer, told in words."""
    return task.kind not in ("text", "tensor")


def question_of(row: Row) -> str:
    """Return what a row asks: its prompt, its text or texts, its words, or the turns before its answer."""
    if row.get("messages") is not None:
        return _turns(row["messages"][:-1])
    if isinstance(row.get("prompt"), list | tuple):
        return _turns(row["prompt"])
    if "prompt" in row:
        return row["prompt"]
    if "tokens" in row:
        return " ".join(row["tokens"])
    return "\n".join(text for text in (row.get("text"), row.get("text_pair")) if text)


def _turns(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"{message['role']}: {text_of(message.get('content'))}" for message in messages)


def right_answer(task: Task, row: Row) -> str:
    """Return the answer to a row as it was given, labels by name, numbers to six digits; empty for running text."""
    answer = answer_of(row)
    if task.kind == "tag":
        return " ".join(task.labels[tag] for tag in answer if tag >= 0)
    if task.kind == "classify":
        return task.labels[answer]
    if task.kind == "preference":
        return answer[0]
    if task.kind == "multilabel":
        return told_labels(task.labels[label] for label in answer)
    if task.kind == "score":
        return f"{answer:.6g}"
    return answer or ""


def told_labels(names: Iterable[str]) -> str:
    """Return several labels in words."""
    return ", ".join(names) or "none"


def told(answer: str | None, outcome: float, limit: int) -> str:
    """Return an answer, a dash where it wasn't kept, and in a second line how right it is."""
    words = "–" if answer is None else readable(answer, limit) or "(nothing)"
    how_right = {1.0: "right", 0.0: "wrong"}.get(outcome, f"{outcome:.3g}")
    return f"{words}\n{how_right}"


def kept_text(text: str) -> str:
    """Return a text as it is kept: at most `KEPT_CHARACTERS`, of longer ones the middle goes; fit to be written."""
    return _without_middle(text, KEPT_CHARACTERS).encode("utf-8", "replace").decode("utf-8")


def readable(text: str, limit: int) -> str:
    """Return a text in one line that no terminal or page can take for anything but text.

    White space becomes a blank; other characters that show nothing, or change what others show (control characters,
    marks of direction), become their escapes, such as \\x1b. At most `limit` characters are kept; of longer texts the
    middle goes.
    """
    text = " ".join(_without_middle(text, 4 * limit).split())
    shown = "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text)
    return _without_middle(shown, limit)


def _without_middle(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return text[: limit - 1 - tail] + "…" + (text[-tail:] if tail else "")
