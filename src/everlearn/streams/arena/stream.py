"""The reasoning arena as a stream: one task for each problem type, learned one after another."""

from dataclasses import dataclass

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.registry import register
from everlearn.streams.arena.generate import SPLITS, TYPES, check_types, distinct_problems, levels_of
from everlearn.streams.arena.problem import Problem
from everlearn.types import Stream, Task

MAX_NEW_TOKENS = 8  # the longest answers are a word, a date, or seven signs such as 113/216


@register("stream", "arena")
@dataclass(frozen=True)
class ArenaStream:
    """The types of `TYPES`, or those named, with items drawn by seed and answers checked by the `arena` verifier.

    Args:
        types: problem types in the order of the tasks.
        n_train: training items a task.
        n_validation: validation items a task; 0 for none.
        n_eval: evaluation items a task.
        difficulty: one level of 1 to 5, several, or None for all; several are mixed evenly.
        data_seed: which items are drawn.

    Raises:
        ConfigError: if a field is out of its range.
    """

    types: tuple[str, ...] = TYPES
    n_train: int = 300
    n_validation: int = 40
    n_eval: int = 100
    difficulty: int | tuple[int, ...] | None = None
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_types(self.types, "arena.types")
        levels_of(self.difficulty, "arena.difficulty")
        for name, value, least in (
            ("n_train", self.n_train, 1),
            ("n_validation", self.n_validation, 0),
            ("n_eval", self.n_eval, 1),
        ):
            if type(value) is not int or value < least:
                way_out = f"Give a whole number of at least {least}"
                raise ConfigError(describe(f"arena.{name}", "is no number of items", value, way_out))
        if type(self.data_seed) is not int:
            raise ConfigError(describe("arena.data_seed", "is no seed", self.data_seed, "Give a whole number"))

    def build(self) -> Stream:
        """Return the stream. Within a task all items differ in content, and no two splits share one.

        Raises:
            StreamError: if a pool has fewer different items than asked for, or two splits share an item.

        Cost: about 0.4 s for the default sizes.
        """
        return Stream("arena", tuple(self._task(name) for name in self.types))

    def _task(self, type_name: str) -> Task:
        levels = levels_of(self.difficulty, "arena.difficulty")
        sizes = dict(zip(SPLITS, (self.n_train, self.n_validation, self.n_eval), strict=True))
        pools = {
            split: distinct_problems(type_name, n, levels=levels, seed=self.data_seed, split=split)
            for split, n in sizes.items()
        }
        check_disjoint(type_name, pools)
        rows = {split: [problem.row() for problem in problems] for split, problems in pools.items()}
        return Task(
            name=type_name,
            kind="prompt",
            train=rows["train"],
            evaluation=rows["evaluation"],
            validation=rows["validation"] or None,
            verifier="arena",
            max_new_tokens=MAX_NEW_TOKENS,
        )


def check_disjoint(type_name: str, pools: dict[str, list[Problem]]) -> None:
    """Raise StreamError if two pools share a content or a prompt."""
    owner: dict[str, str] = {}
    for split, problems in pools.items():
        for problem in problems:
            for key in (problem.content, problem.prompt):
                if owner.setdefault(key, split) != split:
                    raise StreamError(
                        describe(
                            f"arena {type_name!r}",
                            f"{owner[key]} and {split} share an item",
                            key,
                            "Make the type's content() tell all that its problems differ in",
                        )
                    )
