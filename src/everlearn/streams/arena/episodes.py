"""The reasoning arena as a source of episodes: endless problems, types mixed or one after another."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everlearn.config import build
from everlearn.errors import check_choice
from everlearn.registry import register
from everlearn.seeds import seed_for
from everlearn.streams.arena.generate import TYPES, check_types, distinct_problems, levels_of, problem_at
from everlearn.streams.arena.problem import Problem
from everlearn.streams.arena.stream import MAX_NEW_TOKENS
from everlearn.streams.source import Feed
from everlearn.types import Row

ORDERS = ("mixed", "sequential")


@register("source", "arena")
@dataclass(frozen=True)
class ArenaSource:
    """Problems of several types, drawn by seed; those held out come from a pool that training never draws from.

    Args:
        types: problem types.
        difficulty: one level of 1 to 5, several, or None for all.
        order: mixed; or sequential: one type after another, each for its share of the episodes.
        curriculum: chooses type and difficulty of the next problem; in sequential order, its difficulty.
    """

    types: tuple[str, ...] = TYPES
    difficulty: int | tuple[int, ...] | None = None
    order: str = "mixed"
    curriculum: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})

    verifier = "arena"
    max_new_tokens = MAX_NEW_TOKENS

    def __post_init__(self) -> None:
        check_types(self.types, "source.types")
        levels_of(self.difficulty, "source.difficulty")
        check_choice("source.order", self.order, ORDERS)
        self._curriculum(1)

    def held_out(self, n: int) -> list[Row]:
        """Return `n` problems of the evaluation pool, types and difficulties in turn, all different."""
        levels = levels_of(self.difficulty, "source.difficulty")
        sizes = [n // len(self.types) + (i < n % len(self.types)) for i in range(len(self.types))]
        by_type = [
            distinct_problems(name, size, levels=levels, split="evaluation")
            for name, size in zip(self.types, sizes, strict=True)
        ]
        return [row_of(problem) for problems in by_type for problem in problems]

    def feed(self, seed: int, n_episodes: int) -> "ArenaFeed":
        """Return the problems of a run."""
        return ArenaFeed(self, seed, n_episodes, self._curriculum(n_episodes))

    def _curriculum(self, n_episodes: int) -> Any:
        levels = levels_of(self.difficulty, "source.difficulty")
        curriculum = build("curriculum", self.curriculum, "source.curriculum")
        curriculum.begin(self.types, levels, n_episodes)
        return curriculum


@dataclass
class ArenaFeed(Feed):
    """The problems of one run, in the order in which its curriculum asks for them."""

    source: ArenaSource
    seed: int
    n_episodes: int
    curriculum: Any
    n_drawn: int = 0
    drawn: dict[str, int] = field(default_factory=dict)  # type/difficulty -> problems drawn

    def next(self) -> Row:
        rng = random.Random(seed_for(self.seed, "curriculum", self.n_drawn))
        type_name, difficulty = self.curriculum.next(rng)
        if self.source.order == "sequential":
            type_name = self.source.types[
                min(self.n_drawn, self.n_episodes - 1) * len(self.source.types) // self.n_episodes
            ]
        key = f"{type_name}/{difficulty}"
        index = self.drawn.get(key, 0)
        self.drawn[key], self.n_drawn = index + 1, self.n_drawn + 1
        return row_of(problem_at(type_name, index, difficulty=difficulty, seed=seed_for(self.seed, "online")))

    def known(self, n: int) -> list[Row]:
        """Return the problems that would come if no answer changed the curriculum's course."""
        ahead = self.source.feed(self.seed, self.n_episodes)
        return [ahead.next() for _ in range(n)]

    def answered(self, row: Row, right: bool) -> None:
        self.curriculum.update(row["type"], row["difficulty"], right)

    def state(self) -> dict[str, Any]:
        return {"n_drawn": self.n_drawn, "drawn": dict(self.drawn), "curriculum": self.curriculum.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.n_drawn, self.drawn = state["n_drawn"], dict(state["drawn"])
        self.curriculum.load_state(state["curriculum"])


def row_of(problem: Problem) -> Row:
    """Return a problem as a row that also says what it is."""
    return {
        **problem.row(),
        "type": problem.type,
        "difficulty": problem.difficulty,
        "content": f"{problem.type}: {problem.content}",
    }
