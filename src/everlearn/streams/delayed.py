"""Rows whose answer comes later: a question waits until another line brings its answer, by `id`.

{"id": 7, "text": "It broke after a day."}      is answered at once, and waits
{"id": 7, "label": "bad"}                       the answer: now it is scored, and learned
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.errors import ConfigError, check_number, describe
from everlearn.streams.checking import NOTES, Rules, check_row
from everlearn.streams.labels import BadRow, LabelBook
from everlearn.types import Kind, Row

ANSWERS: dict[str, str] = {
    "prompt": "completion",
    "classify": "label",
    "score": "score",
    "tag": "tags",
}  # kind -> column
ASKS: dict[str, str] = {"prompt": "prompt", "classify": "text", "score": "text", "tag": "tokens"}


def kind_of_row(row: Mapping[str, Any]) -> Kind | None:
    """Return what kind of row this is, by what it answers or asks; None where that can't be told. A text that waits for
    its answer counts as one to classify."""  # fmt: skip
    told = [(column, kind) for columns in (ANSWERS, ASKS) for kind, column in columns.items()]
    return next((kind for column, kind in told if row.get(column) is not None), None)


def is_question(row: Row) -> bool:
    """Tell whether a row that `Joining.take` gave waits for its answer."""
    return "id" in row and not any(column in row for column in ANSWERS.values())


class Joining:
    """Puts answers to the questions that wait for them; checks every row.

    Labels that aren't declared are numbered as they come, so that numbers given stay.

    Args:
        kind: of the rows: prompt, classify, score or tag.
        labels: declared names, or none.
        max_waiting: questions that wait, at most; the oldest is given up for a new one.

    Attributes:
        waiting: {id: [question, what was answered to it]}.
        n_given_up: questions that were given up. n_unmatched: answers to no question that waits; they are left out.
    """

    def __init__(self, kind: str, labels: Sequence[str] = (), max_waiting: int = 10_000) -> None:
        check_number("source.max_waiting", max_waiting, low=1)
        if labels and kind in ("prompt", "score"):
            raise ConfigError(
                describe("source.labels", f"rows of kind {kind} have none", list(labels), "Leave them out")
            )
        self.kind, self.answer, self.max_waiting = kind, ANSWERS[kind], max_waiting
        self.rules = Rules(kind, LabelBook(labels), notes=tuple(NOTES))
        self.waiting: dict[str, list[Any]] = {}
        self.n_given_up = self.n_unmatched = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names that rows' numbers stand for."""
        return self.rules.book.names()

    def take(self, row: Mapping[str, Any]) -> Row | None:
        """Return a row as it is to be handed out: whole; or a question, without its answer; or None for an answer that
        nothing waits for. A row that is whole by a later line has as `answered` what was answered to its question.

        Raises:
            BadRow: with the reason why the row can't be used.
        """  # fmt: skip
        asks, answers = (row.get(column) is not None for column in (ASKS[self.kind], self.answer))
        if asks and answers:
            return check_row(row, self.rules)
        name = row.get("id")
        if name is None or isinstance(name, bool | float) or not isinstance(name, str | int):
            missing = self.answer if asks else ASKS[self.kind]
            raise BadRow(f"column {missing!r} is missing, and without an 'id' (a text or a whole number) none can come")
        return self._question(str(name), row) if asks else self._answer(str(name), row)

    def answered(self, question: Row, answer: Any) -> None:
        """Note what was answered to a question that now waits. answer: JSON."""
        self.waiting[question["id"]] = [question, answer]

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs, as JSON."""
        return {
            "waiting": list(self.waiting.values()),
            "labels": list(self.labels),
            "n_given_up": self.n_given_up,
            "n_unmatched": self.n_unmatched,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the one that returned `state` stood."""
        self.waiting = {row["id"]: [row, answer] for row, answer in state["waiting"]}
        if not self.rules.book.declared:
            for name in state["labels"]:
                self.rules.book.number(name, untyped=True)
        self.n_given_up, self.n_unmatched = state["n_given_up"], state["n_unmatched"]

    def _question(self, name: str, row: Mapping[str, Any]) -> Row:
        if name in self.waiting:
            raise BadRow(f"a question with the id {name!r} waits already")
        tokens = row[ASKS[self.kind]]
        fill = {
            "prompt": "?",
            "classify": 0,
            "score": 0.0,
            "tag": [0] * len(tokens) if isinstance(tokens, list) else [],
        }[self.kind]
        any_answer = Rules(self.kind, LabelBook(), notes=tuple(NOTES))
        checked = {**check_row({**row, self.answer: fill}, any_answer), "id": name}
        question = {column: value for column, value in checked.items() if column != self.answer}
        if len(self.waiting) >= self.max_waiting:
            self.waiting.pop(next(iter(self.waiting)))
            self.n_given_up += 1
        self.waiting[name] = [question, None]
        return question

    def _answer(self, name: str, row: Mapping[str, Any]) -> Row | None:
        if name not in self.waiting:
            self.n_unmatched += 1
            return None
        question, answered = self.waiting[name]
        whole = check_row({**question, **row}, self.rules)
        del self.waiting[name]
        return {**whole, "id": name, "answered": answered}
