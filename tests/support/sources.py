"""Sources of problems for online runs over the tiny causal model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everlearn.streams.source import Feed
from everlearn.types import Row

NAME = "support.sources:Sums"


def sum_row(number: int) -> Row:
    kind = "even" if number % 2 == 0 else "odd"
    return {"prompt": f"{number}+1=", "completion": str(number + 1), "type": kind, "difficulty": 1 + number % 5}


@dataclass(frozen=True)
class Sums:
    """Problems 0, 1, 2, ...; from `held_out_from` on they are held out. `by_type`: first all even ones.

    `explained`: those to learn say how they are worked out.
    """

    n: int = 1000
    held_out_from: int = 1000
    by_type: bool = False
    explained: bool = False

    verifier = None
    max_new_tokens = 4

    def held_out(self, n: int) -> list[Row]:
        return [sum_row(self.held_out_from + i) for i in range(n)]

    def feed(self, seed: int, n_episodes: int) -> "SumsFeed":
        numbers = list(range(self.n))[:n_episodes]
        numbers = sorted(numbers, key=lambda number: number % 2) if self.by_type else numbers
        return SumsFeed(numbers, self.explained)


@dataclass
class SumsFeed(Feed):
    numbers: list[int]
    explained: bool = False
    place: int = 0
    answers: list[bool] = field(default_factory=list)

    def next(self) -> Row | None:
        if self.place >= len(self.numbers):
            return None
        self.place += 1
        number = self.numbers[self.place - 1]
        return {**sum_row(number), "explanation": f"{number}, {number + 1}"} if self.explained else sum_row(number)

    def known(self, n: int) -> list[Row]:
        return [sum_row(number) for number in self.numbers[:n]]

    def answered(self, row: Row, right: bool) -> None:
        self.answers.append(right)

    def state(self) -> dict[str, Any]:
        return {"place": self.place, "answers": self.answers}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.place, self.answers = state["place"], list(state["answers"])


@dataclass(frozen=True)
class Turning:
    """The same problem again and again, whose answer changes `at` an episode."""

    at: int = 10

    verifier = None
    max_new_tokens = 4

    def held_out(self, n: int) -> list[Row]:
        return [sum_row(100 + i) for i in range(n)]

    def feed(self, seed: int, n_episodes: int) -> "TurningFeed":
        return TurningFeed(self.at)


@dataclass
class TurningFeed(Feed):
    at: int
    place: int = 0

    def next(self) -> Row:
        self.place += 1
        return {"prompt": "3+1=", "completion": "4" if self.place <= self.at else "9", "type": "odd"}

    def state(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]
