r"""Arena problems whose concept drifts: a rule flips, the format changes, another kind of problem fades in.

>>> row, concept = DriftStream().row_at(0)
>>> row["prompt"]
'Dora outranks Tina. Tina outranks Leo.\nWho is the highest in rank?\nAnswer:'
>>> row["completion"], concept
(' Dora', 0)
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from everlearn.errors import ConfigError, check_choice, check_number, describe, nearest
from everlearn.registry import find, register
from everlearn.seeds import seed_for
from everlearn.streams.apart import keep_apart
from everlearn.streams.arena.generate import distinct_problems, levels_of, problem_at
from everlearn.streams.arena.problem import CUE, Problem
from everlearn.types import Row, Stream, Task

PATTERNS = ("sudden", "gradual", "recurring")
MAX_NEW_TOKENS = 12  # the arena's longest answer, and "It is" before it
_INVERTED = {"yes": "no", "no": "yes"}


@dataclass(frozen=True)
class DriftPattern:
    """Which concept holds at which position of a stream.

    Concept 0 holds first, and every `period` rows the next one begins. Its probability then rises evenly over `window`
    rows; with 0 it holds at once.

    Args:
        kind: "sudden" (no window), "gradual" (with one), or "recurring": after the last concept the first returns,
            and so on, with a window or without.
        n_concepts: at least 2.
        period: rows from one drift to the next.
        window: rows in which both concepts occur, at most `period`.
        seed: decides which of the two a row in a window has.
    """

    kind: str
    n_concepts: int
    period: int
    window: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("drift.pattern", self.kind, PATTERNS)
        check_number("drift.concepts (their number)", self.n_concepts, low=2)
        check_number("drift.period", self.period, low=1)
        low, high = {"sudden": (0, 0), "gradual": (1, self.period), "recurring": (0, self.period)}[self.kind]
        check_number(f"drift.window of a {self.kind} drift", self.window, low=low, high=high)

    def concept_at(self, position: int) -> int:
        """Return the number of the concept at a position: with window w, the new one with probability (i + 1)/(w + 1)
        at row i of the window.

        Cost: the same at any position.
        """
        turn, row = divmod(position, self.period)
        begins = turn > 0 and (self.kind == "recurring" or turn < self.n_concepts)
        if begins and row < self.window:
            drawn = random.Random(seed_for("drift", self.seed, position)).random()
            if drawn >= (row + 1) / (self.window + 1):
                turn -= 1
        return turn % self.n_concepts if self.kind == "recurring" else min(turn, self.n_concepts - 1)

    def drift_points(self, n_rows: int) -> list[int]:
        """Return the positions below `n_rows` where a drift begins."""
        points = range(self.period, n_rows, self.period)
        return list(points if self.kind == "recurring" else points[: self.n_concepts - 1])


@register("stream", "drift")
@dataclass(frozen=True)
class DriftStream:
    """Arena problems, one after another, whose concept changes at known points.

    A concept is a problem type, alone or with a rule after a dash: `comparison-opposite` asks for one end and wants the
    other, `causal-inverted` swaps yes and no, `sequence-twice` takes the last step twice, and with any type
    `-sentence` wants the answer as a sentence and `-question` asks in another format.

    `rows` is the stream for a learner that isn't told of drifts. `build` makes a task of each concept, with the rows
    that it has in the stream: what a learner that knew all would be given.

    Args:
        concepts: two or more, in the order in which they come.
        pattern: sudden, gradual or recurring; see `DriftPattern`.
        period: rows from one drift to the next.
        window: rows over which a new concept fades in.
        n_rows: length of the stream.
        n_eval: evaluation items a concept; concepts of one type are asked the same problems, each by its own rule.
        difficulty: one level of 1 to 5, several, or None for all, drawn row by row.
        data_seed: which problems are drawn, and where old and new mix.

    Raises:
        ConfigError: if a field is wrong, or the stream ends before its last concept begins.
    """

    concepts: tuple[str, ...] = ("comparison", "comparison-opposite")
    pattern: str = "sudden"
    period: int = 1000
    window: int = 0
    n_rows: int = 2000
    n_eval: int = 100
    difficulty: int | tuple[int, ...] | None = 1
    data_seed: int = 0

    def __post_init__(self) -> None:
        for name in self.concepts:
            _check_concept(name)
        if len(set(self.concepts)) < len(self.concepts):
            way_out = "Name each once; with pattern: recurring they come again"
            raise ConfigError(describe("drift.concepts", "a concept stands twice", list(self.concepts), way_out))
        check_number("drift.n_eval", self.n_eval, low=1)
        levels_of(self.difficulty, "drift.difficulty")
        begins = (len(self.concepts) - 1) * self.timing().period
        check_number("drift.n_rows", self.n_rows, low=begins + 1)

    def timing(self) -> DriftPattern:
        """Return which concept holds when."""
        return DriftPattern(self.pattern, len(self.concepts), self.period, self.window, self.data_seed)

    def drift_points(self) -> list[int]:
        """Return the positions where a drift begins."""
        return self.timing().drift_points(self.n_rows)

    def row_at(self, position: int) -> tuple[Row, int]:
        """Return the row at a position, and the number of its concept; both depend on nothing but the fields.

        Two positions may by chance hold the same problem.

        Cost: the same at any position, 25 µs for the default concepts.
        """
        number = self.timing().concept_at(position)
        name, _, rule = self.concepts[number].partition("-")
        levels = levels_of(self.difficulty, "drift.difficulty")
        level = levels[seed_for("drift level", self.data_seed, position) % len(levels)]
        problem = problem_at(name, position, difficulty=level, seed=self.data_seed)
        return _ruled(problem, rule).row(), number

    def rows(self, start: int = 0) -> Iterator[tuple[Row, int]]:
        """Yield the rows from position `start` to the end, each with the number of its concept."""
        for position in range(start, self.n_rows):
            yield self.row_at(position)

    def evaluation(self, number: int) -> list[Row]:
        """Return the evaluation items of concept `number`, from the arena's evaluation pool: never a training row's.

        Raises:
            StreamError: if there are fewer different ones than `n_eval`.
        """
        name, _, rule = self.concepts[number].partition("-")
        levels = levels_of(self.difficulty, "drift.difficulty")
        problems = distinct_problems(name, self.n_eval, levels=levels, seed=self.data_seed, split="evaluation")
        return [_ruled(problem, rule).row() for problem in problems]

    def build(self) -> Stream:
        """Return a stream with a task for each concept, as if all drifts were known.

        Raises:
            StreamError: if evaluation items are too few, or one is also a training row.

        Cost: that of `n_rows` rows.
        """
        train: list[list[Row]] = [[] for _ in self.concepts]
        for row, number in self.rows():
            train[number].append(row)
        evaluation = [self.evaluation(number) for number in range(len(self.concepts))]
        return keep_apart(Stream("drift", tuple(map(_task, self.concepts, train, evaluation))), self.concepts)


def _task(name: str, train: list[Row], evaluation: list[Row]) -> Task:
    return Task(name, "prompt", train, evaluation, verifier="arena", max_new_tokens=MAX_NEW_TOKENS)


def _check_concept(name: str) -> None:
    type_name, _, rule = name.partition("-")
    find("problem", type_name, "drift.concepts")
    fitting = [known for known, (types, _) in RULES.items() if types is None or type_name in types]
    if rule != "" and rule not in fitting:
        way_out = f"{nearest(rule, fitting)}Rules of {type_name}: {', '.join(fitting)}"
        raise ConfigError(describe("drift.concepts", "has no such rule", name, way_out))


def _ruled(problem: Problem, rule: str) -> Problem:
    return RULES[rule][1](problem) if rule else problem


def _opposite(problem: Problem) -> Problem:
    """Answer with the one at the other end; who stands in the middle stays right."""
    chain = problem.content.split(" > ")
    return problem._replace(answer=chain[-1 - chain.index(problem.answer)])


def _inverted(problem: Problem) -> Problem:
    """Say yes for no and no for yes; unknown stays."""
    return problem._replace(answer=_INVERTED.get(problem.answer, problem.answer))


def _twice(problem: Problem) -> Problem:
    """Take the step to the next number twice."""
    *_, last, following = map(int, problem.content.split())
    return problem._replace(answer=str(2 * following - last))


def _sentence(problem: Problem) -> Problem:
    """Answer with a sentence."""
    choices = tuple(f"It is {choice}" for choice in problem.choices)
    return problem._replace(answer=f"It is {problem.answer}", choices=choices)


def _question(problem: Problem) -> Problem:
    """Ask with `Q:` and `A:` around the question."""
    return problem._replace(prompt=f"Q: {problem.prompt.removesuffix(CUE)}\nA:")


# rule -> the types that it goes with (None: all), and what it makes of a problem
RULES: dict[str, tuple[tuple[str, ...] | None, Callable[[Problem], Problem]]] = {
    "opposite": (("comparison",), _opposite),
    "inverted": (("causal",), _inverted),
    "twice": (("sequence",), _twice),
    "sentence": (None, _sentence),
    "question": (None, _question),
}
