"""Which problems an iteration asks, and which old rows stand beside them: a pure function of its number."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from everlearn.errors import StreamError, describe
from everlearn.learners.loader import EncodedMixture, MixedIn, mixed_in
from everlearn.models.objectives import Objective
from everlearn.seeds import generator_for
from everlearn.types import Mixture, Row, Task

OWN_ANSWER = "own_answer"  # column of a row that carries an answer of the model's: its own, that counts as right
Asked = tuple[tuple[int, int], Task, Row]  # (group of the mixture, row within it), whose task, the row


class Problems:
    """What a mixture's rows are to a learner that answers them.

    The first group's rows, and with `ask_again` those that strategies mix in, are problems, answered by the model.
    Other rows that are mixed in (texts, or answers that were kept) are learned as they stand.
    """

    def __init__(self, mixture: Mixture, objective: Objective, seed_parts: tuple[Any, ...], *, ask_again: bool):
        self.groups = [[part for part in group.parts if len(part)] for group in mixture.groups]
        self.sizes = [sum(map(len, parts)) for parts in self.groups]
        self.seed_parts = seed_parts
        self._orders: dict[tuple[int, int], list[int]] = {}
        for part in self.groups[0]:
            if part.task.kind != "prompt":
                way_out = "Give rows with prompts, and what they are judged by"
                raise StreamError(describe(f"task {part.task.name!r}", "can't be answered", part.task.kind, way_out))
        asked = {0} | {
            number
            for number, parts in enumerate(self.groups)
            if ask_again and all(part.task.kind == "prompt" for part in parts)
        }
        # ratios hold over the whole task, each group's to less than a row
        mixed = mixed_in([group.ratio for group in mixture.groups], self.sizes)
        self._asked_again = [each for each in mixed if each.group in asked]
        self._as_they_are = [each for each in mixed if each.group not in asked]
        left = (
            group if number not in asked else replace(group, parts=()) for number, group in enumerate(mixture.groups)
        )
        self.encoded = EncodedMixture(Mixture(tuple(left)), objective) if self._as_they_are else None

    def asked(self, iteration: int, n: int) -> list[Asked]:
        """Return n problems of the first group, and the old ones that are asked again beside them."""
        addresses = [*self._rows(0, iteration * n, n), *self._mixed(self._asked_again, iteration * n, n)]
        return [(address, *self._at(*address)) for address in addresses]

    def as_they_are(self, iteration: int, n: int) -> list[tuple[int, int]]:
        """Return the addresses of the rows that are learned as they stand beside n problems."""
        return list(self._mixed(self._as_they_are, iteration * n, n))

    def _mixed(self, groups: Sequence[MixedIn], done: int, n: int) -> Iterator[tuple[int, int]]:
        for each in groups:
            before = each.n_due(0, done)
            yield from self._rows(each.group, before, each.n_due(done, done + n))

    def _rows(self, group: int, start: int, n: int) -> list[tuple[int, int]]:
        """Return n addresses of a group from place `start` on, in one shuffled pass after another."""
        size = self.sizes[group]
        return [(group, self._order(group, place // size)[place % size]) for place in range(start, start + n)]

    def _order(self, group: int, number: int) -> list[int]:
        if (group, number) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != group}
            generator = generator_for(*self.seed_parts, "pass", group, number)
            self._orders[group, number] = torch.randperm(self.sizes[group], generator=generator).tolist()
        return self._orders[group, number]

    def _at(self, group: int, row: int) -> tuple[Task, Row]:
        for part in self.groups[group]:
            if row < len(part):
                return part.task, as_asked(part.rows[row])
            row -= len(part)
        raise IndexError(row)


def with_answer(row: Row, text: str) -> Row:
    """Return a row that is answered by `text`; its own answer is kept beside it."""
    if row.get("messages") is None:
        return {**row, "completion": text, OWN_ANSWER: row["completion"]}
    *before, last = row["messages"]
    return {**row, "messages": [*before, {**last, "content": text}], OWN_ANSWER: last["content"]}


def as_asked(row: Row) -> Row:
    """Return a row with its own answer, by which others are judged, where `with_answer` put another in its place."""
    if row.get(OWN_ANSWER) is None:
        return dict(row)
    asked = with_answer(row, row[OWN_ANSWER])
    return {name: value for name, value in asked.items() if name != OWN_ANSWER}
