"""The reasoning arena as a source of episodes: endless problems, types mixed or one after another."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from everlearn.config import build
from everlearn.errors import ConfigError, check_choice, describe
from everlearn.registry import find, register
from everlearn.seeds import seed_for
from everlearn.streams.arena.curriculum import Curriculum
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
        curriculum: chooses type and difficulty of the next problem; in sequential order each type has its own.
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
        self._curriculum(self.types, 1)

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
        if self.order == "mixed":
            return ArenaFeed(self, seed, [(n_episodes, self._curriculum(self.types, n_episodes))])
        ends = [n_episodes * (i + 1) // len(self.types) for i in range(len(self.types))]
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        parts = zip(ends, lengths, self.types, strict=True)
        return ArenaFeed(self, seed, [(end, self._curriculum((name,), max(1, n))) for end, n, name in parts])

    def _curriculum(self, types: tuple[str, ...], n_episodes: int) -> Curriculum:
        """Build the curriculum; what the source knows goes to those of its settings that aren't given."""
        name = self.curriculum.get("name", "none")
        taken = {option.name for option in fields(find("curriculum", name, "source.curriculum.name"))}
        if self.difficulty is not None and "difficulty" not in taken:
            way_out = "Leave it out: the curriculum chooses the difficulty"
            raise ConfigError(describe("source.difficulty", f"stands beside {name}", self.difficulty, way_out))
        known = {"types": list(types), "difficulty": self.difficulty, "n_episodes": n_episodes}
        options = {key: value for key, value in known.items() if key in taken}
        return build("curriculum", {"name": "none", **options, **self.curriculum}, "source.curriculum")


@dataclass
class ArenaFeed(Feed):
    """The problems of one run. parts: (episodes until the part ends, counted from the first; its curriculum)."""

    source: ArenaSource
    seed: int
    parts: list[tuple[int, Curriculum]]
    n_drawn: int = 0
    drawn: dict[str, int] = field(default_factory=dict)  # type/difficulty -> problems drawn

    def next(self) -> Row:
        rng = random.Random(seed_for(self.seed, "curriculum", self.n_drawn))
        type_name, difficulty = self._curriculum(self.n_drawn).next(rng)
        key = f"{type_name}/{difficulty}"
        index = self.drawn.get(key, 0)
        self.drawn[key], self.n_drawn = index + 1, self.n_drawn + 1
        return row_of(problem_at(type_name, index, difficulty=difficulty, seed=seed_for(self.seed, "online")))

    def known(self, n: int) -> list[Row]:
        """Return the problems that would come if no answer changed the curriculum's course."""
        ahead = self.source.feed(self.seed, n)
        return [ahead.next() for _ in range(n)]

    def answered(self, row: Row, right: bool) -> None:
        # a part's last answer comes when the next one's first problem may be drawn already
        curricula = [curriculum for _, curriculum in self.parts if row["type"] in curriculum.types]
        curricula[0].update(row["type"], row["difficulty"], right)

    def state(self) -> dict[str, Any]:
        curricula = [curriculum.state() for _, curriculum in self.parts]
        return {"n_drawn": self.n_drawn, "drawn": dict(self.drawn), "curricula": curricula}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.n_drawn, self.drawn = state["n_drawn"], dict(state["drawn"])
        for (_, curriculum), saved in zip(self.parts, state["curricula"], strict=True):
            curriculum.load_state(saved)

    def _curriculum(self, position: int) -> Curriculum:
        return next((curriculum for end, curriculum in self.parts if position < end), self.parts[-1][1])


def row_of(problem: Problem) -> Row:
    """Return a problem as a row that also says what it is, and how it is worked out."""
    return {
        **problem.row(),
        "type": problem.type,
        "difficulty": problem.difficulty,
        "content": f"{problem.type}: {problem.content}",
        "explanation": problem.explanation,
    }
