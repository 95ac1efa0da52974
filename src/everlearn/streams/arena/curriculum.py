"""Curricula: which type and difficulty a learner meets next; and a batch of problems whose difficulty ramps.

    problem_type, difficulty = curriculum.next(rng)              # draws, and changes nothing but rng
    curriculum.update(problem_type, difficulty, correct)         # once the learner has answered

Fields are settings; what a curriculum has seen stands in attributes whose names end in `_`. `state()` is JSON.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.errors import ConfigError, StateError, check_number, describe
from everlearn.registry import register
from everlearn.strategy import learned
from everlearn.streams.arena.generate import TYPES, check_types, levels_of, problem_at
from everlearn.streams.arena.problem import DIFFICULTIES, Problem


def generate_curriculum(
    n_tasks: int,
    start_difficulty: int = 1,
    end_difficulty: int = 5,
    *,
    types: Sequence[str] | None = None,
    seed: int = 0,
    split: str = "train",
) -> list[Problem]:
    """Return problems of several types in turn, whose difficulty goes from start to end, all levels for equally long.

    Args:
        n_tasks: how many problems.
        start_difficulty: of the first, 1 to 5.
        end_difficulty: of the last; it may also be the lower one.
        types: registered problem types; by default the five of `TYPES`.
        seed: another seed gives other problems.
        split: `train`, `validation` or `evaluation`.

    Raises:
        ConfigError: if an argument is out of its range.

    Cost: linear in `n_tasks`.
    """
    _check_count("generate_curriculum: n_tasks", n_tasks)
    ramp = Ramp(
        n_episodes=n_tasks,
        start_difficulty=start_difficulty,
        end_difficulty=end_difficulty,
        types=check_types(TYPES if types is None else types, "generate_curriculum: types"),
    )
    problems = []
    for position in range(n_tasks):
        index, which = divmod(position, len(ramp.types))
        level = ramp.level_at(position)
        problems.append(problem_at(ramp.types[which], index, difficulty=level, seed=seed, split=split))
    return problems


@dataclass(kw_only=True)
class Curriculum:
    """Base of all curricula: the types to draw from, and the state of what was seen."""

    types: tuple[str, ...] = TYPES

    def __post_init__(self) -> None:
        self.types = check_types(self.types, "curriculum.types")

    def next(self, rng: random.Random) -> tuple[str, int]:
        """Return the type and the difficulty of the next problem, drawn from `rng`."""
        raise NotImplementedError

    def update(self, problem_type: str, difficulty: int, correct: bool) -> None:
        """Take note of how the learner answered a problem."""

    def state(self) -> dict[str, Any]:
        """Return what was seen, as JSON values: with it and the state of `rng`, a run goes on bit for bit."""
        return copy.deepcopy({name: value for name, value in vars(self).items() if name.endswith("_")})

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            StateError: if it comes from another curriculum, or one with other types or difficulties.
        """
        if _shape(state) != _shape(self.state()):
            way_out = "Restore it into the curriculum that it comes from"
            raise StateError(describe("curriculum", "the state doesn't fit its settings", _shape(state), way_out))
        for name, value in copy.deepcopy(state).items():
            setattr(self, name, value)


@register("curriculum", "none")
@dataclass(kw_only=True)
class Uniform(Curriculum):
    """No curriculum: every type and difficulty is equally likely, at all times.

    Args:
        types: problem types to draw from.
        difficulty: one level of 1 to 5, several, or None for all.

    Source: no method; the baseline of the others.
    """

    difficulty: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        levels_of(self.difficulty, "curriculum.difficulty")

    def next(self, rng: random.Random) -> tuple[str, int]:
        """Draw both."""
        return rng.choice(self.types), rng.choice(levels_of(self.difficulty, "curriculum.difficulty"))


@register("curriculum", "ramp")
@dataclass(kw_only=True)
class Ramp(Curriculum):
    """Difficulty goes from start to end over a known number of episodes, whatever the learner answers.

    Level in episode k of n: start + floor(k (|end - start| + 1) / n) towards the end; after n episodes it stays there.

    Args:
        types: problem types, drawn evenly.
        n_episodes: length of the ramp.
        start_difficulty: of the first episode, 1 to 5.
        end_difficulty: of the last; it may also be the lower one.

    Source: easy examples first, as Bengio et al. 2009 (Curriculum learning) propose; the equal stages are ours.
    """

    n_episodes: int
    start_difficulty: int = 1
    end_difficulty: int = 5

    episode_: int = learned(int)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("curriculum.n_episodes", self.n_episodes)
        _check_level("curriculum.start_difficulty", self.start_difficulty)
        _check_level("curriculum.end_difficulty", self.end_difficulty)

    def level_at(self, episode: int) -> int:
        """Return the difficulty of an episode, counted from 0."""
        n_steps = abs(self.end_difficulty - self.start_difficulty)
        step = min(n_steps, episode * (n_steps + 1) // self.n_episodes)
        return self.start_difficulty + (step if self.end_difficulty > self.start_difficulty else -step)

    def next(self, rng: random.Random) -> tuple[str, int]:
        """Draw the type."""
        return rng.choice(self.types), self.level_at(self.episode_)

    def update(self, problem_type: str, difficulty: int, correct: bool) -> None:
        """Count the episode."""
        self.episode_ += 1


@register("curriculum", "success")
@dataclass(kw_only=True)
class Success(Curriculum):
    """Raise the difficulty when the learner's rolling accuracy passes a bar, lower it when it falls to another.

    The accuracy is that of the last `window` answers since the difficulty changed; below so many nothing changes.

    Args:
        types: problem types, drawn evenly.
        start_difficulty: 1 to 5.
        window: answers that an accuracy is taken over.
        raise_at: accuracy from which on the difficulty rises by one.
        lower_at: accuracy down from which it falls by one; 0 to lower it only where all answers are wrong.
        per_type: keep a difficulty and an accuracy for each type, instead of one of each for all.

    Source: the threshold on success that Graves et al. 2017, arXiv 1704.03003, section 1, describe as the common
    practice. Departs: it also goes back, where that practice mixes in earlier levels with a fixed probability.
    """

    start_difficulty: int = 1
    window: int = 10
    raise_at: float = 0.8
    lower_at: float = 0.3
    per_type: bool = False

    levels_: dict[str, int] = learned(dict)
    answers_: dict[str, list[bool]] = learned(dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_level("curriculum.start_difficulty", self.start_difficulty)
        _check_count("curriculum.window", self.window)
        check_number("curriculum.raise_at", self.raise_at, above=0, high=1)
        check_number("curriculum.lower_at", self.lower_at, low=0, high=1)
        if self.lower_at >= self.raise_at:
            way_out = f"Give less than raise_at, {self.raise_at}"
            raise ConfigError(describe("curriculum.lower_at", "is not below raise_at", self.lower_at, way_out))
        groups = self.types if self.per_type else ("all",)
        self.levels_ = dict.fromkeys(groups, self.start_difficulty)
        self.answers_ = {group: [] for group in groups}

    def next(self, rng: random.Random) -> tuple[str, int]:
        """Draw the type."""
        problem_type = rng.choice(self.types)
        return problem_type, self.levels_[problem_type if self.per_type else "all"]

    def update(self, problem_type: str, difficulty: int, correct: bool) -> None:
        """Count the answer if it was given at the present difficulty, and change that if it is time."""
        group = problem_type if self.per_type else "all"
        level, answers = self.levels_[group], self.answers_[group]
        if difficulty != level:
            return
        answers.append(bool(correct))
        del answers[: -self.window]
        if len(answers) < self.window:
            return
        accuracy = sum(answers) / self.window
        change = 1 if accuracy >= self.raise_at else -1 if accuracy <= self.lower_at else 0
        if level + change != level and level + change in DIFFICULTIES:
            self.levels_[group] = level + change
            answers.clear()


@register("curriculum", "progress")
@dataclass(kw_only=True)
class Progress(Curriculum):
    """Draw each type at each difficulty in proportion to how much the learner's accuracy on it changes, up or down.

    p(a) = explore / n + (1 - explore) |change_a| / sum |change|, where change_a is the accuracy of the newest w answers
    to a less that of the w before them; w is `window`, or half of the answers where there are fewer. What was met less
    than twice counts as changing the most; where nothing changes all are equally likely.

    Args:
        types: problem types to draw from.
        difficulty: one level of 1 to 5, several, or None for all.
        window: answers that an accuracy is taken over.
        explore: share of the episodes in which all are equally likely.

    Cost: one pass over the answers that are kept for each problem, 2 n window at most.

    Source: the draw and the absolute change over two windows are those of Colas et al. 2019 (CURIOUS), arXiv
    1810.06284; the idea that a teacher follows a student's absolute progress on right or wrong answers is of Matiisen
    et al. 2017, arXiv 1707.00183. Departs: what was hardly met counts as changing the most, not as unchanged.
    """

    difficulty: int | tuple[int, ...] | None = None
    window: int = 10
    explore: float = 0.1

    answers_: dict[str, list[bool]] = learned(dict)  # by "type difficulty"

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = levels_of(self.difficulty, "curriculum.difficulty")
        _check_count("curriculum.window", self.window)
        check_number("curriculum.explore", self.explore, low=0, high=1)
        self.answers_ = {f"{problem_type} {level}": [] for problem_type in self.types for level in levels}

    def next(self, rng: random.Random) -> tuple[str, int]:
        """Draw one of all pairs of a type and a difficulty."""
        changes = self.changes()
        explores = rng.random() < self.explore or not any(changes.values())
        problem_type, level = rng.choices(tuple(changes), None if explores else changes.values())[0].split()
        return problem_type, int(level)

    def update(self, problem_type: str, difficulty: int, correct: bool) -> None:
        """Keep the answer."""
        answers = self.answers_[f"{problem_type} {difficulty}"]
        answers.append(bool(correct))
        del answers[: -2 * self.window]

    def changes(self) -> dict[str, float]:
        """Return by how much the accuracy of each pair changed, without sign."""
        known = {pair: _change(answers) for pair, answers in self.answers_.items() if len(answers) > 1}
        most = max(known.values(), default=0.0) or 1.0
        return {pair: known.get(pair, most) for pair in self.answers_}


def _change(answers: Sequence[bool]) -> float:
    """Return the accuracy of the newer half less that of the older one, without sign; an odd one out is the oldest."""
    width = len(answers) // 2
    return abs(sum(answers[-width:]) - sum(answers[-2 * width : -width])) / width


def _check_level(where: str, value: object) -> None:
    if type(value) is not int or value not in DIFFICULTIES:
        raise ConfigError(describe(where, "is no difficulty", value, "Give 1 to 5"))


def _check_count(where: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ConfigError(describe(where, "is no count", value, "Give a whole number of at least 1"))


def _shape(state: dict[str, Any]) -> dict[str, Any]:
    """Return the names in a state, and those within each of its mappings."""
    return {name: sorted(value) if isinstance(value, dict) else None for name, value in state.items()}
