"""Problems by number: any item of any pool, at once and always the same.

Every item belongs to one pool, by the hash of its type and content: 70% of all contents are for training, 10% for
validation, 20% for evaluation, in all seeds and at all difficulties. So the pools can't share an item.
"""

from collections.abc import Iterator, Sequence

from everlearn.errors import ConfigError, StreamError, describe
from everlearn.registry import find
from everlearn.seeds import seed_of
from everlearn.streams.arena.draws import Draws
from everlearn.streams.arena.problem import DIFFICULTIES, Problem, Puzzle

TYPES = ("comparison", "sequence", "causal", "math", "logic")
ADVANCED_TYPES = (  # asked for by name
    *("multistep", "algebra", "probability", "geometry", "code"),
    *("deduction", "counterfactual", "analogy", "passage", "extraction"),
)
SPLITS = ("train", "validation", "evaluation")
MAX_REPEATS = 2_000  # draws in a row that bring nothing new before a pool counts as used up


def pool_of(type_name: str, content: str) -> str:
    """Return the split that alone may use an item of this content."""
    percent = seed_of(f"arena pool\x1f{type_name}\x1f{content}") % 100
    return "train" if percent < 70 else "validation" if percent < 80 else "evaluation"


def problem_at(type_name: str, index: int, *, difficulty: int, seed: int = 0, split: str = "train") -> Problem:
    """Return item `index` of one type, difficulty, seed and split. It depends on nothing else.

    Two indices may by chance hold the same content: `distinct_problems` skips repeats.

    Args:
        type_name: a registered problem type.
        index: any whole number from 0 on.
        difficulty: 1 (easy) to 5.
        seed: another seed is another endless row of items.
        split: `train`, `validation` or `evaluation`.

    Raises:
        ConfigError: if the type, the difficulty or the split is unknown, or the index negative.

    Cost: the same at any index; 14 to 50 µs in `train`, two to three times as much in the smaller pools.
    """
    puzzle = find("problem", type_name, "problem_at: type_name")
    levels_of(difficulty, "problem_at: difficulty")
    _check_split(split, "problem_at: split")
    _check_count(index, "problem_at: index")
    return _draw(Draws(), puzzle, type_name, index, difficulty, seed, split)


def generate_batch(
    n: int,
    *,
    mix: bool = True,
    types: Sequence[str] | None = None,
    difficulty: int | Sequence[int] | None = None,
    seed: int = 0,
    split: str = "train",
    start: int = 0,
) -> list[Problem]:
    """Return `n` problems of several types.

    The endless row alternates the types, and within each type the difficulties; a batch is the part of that row from
    `start` on. Consecutive batches therefore continue each other.

    Args:
        n: how many.
        mix: keep the alternation; if False, the same problems come type after type.
        types: registered problem types; by default the five of `TYPES`.
        difficulty: one level, several, or None for 1 to 5 in turn.
        seed: another seed is another row.
        split: `train`, `validation` or `evaluation`.
        start: position in the row of the first problem.

    Raises:
        ConfigError: if an argument is out of its range.

    Cost: linear in `n`, whatever `start`.
    """
    _check_count(n, "generate_batch: n")
    _check_count(start, "generate_batch: start")
    _check_split(split, "generate_batch: split")
    chosen = check_types(TYPES if types is None else types, "generate_batch: types")
    levels = levels_of(difficulty, "generate_batch: difficulty")
    puzzles = [find("problem", name) for name in chosen]
    rng, problems = Draws(), []
    for position in range(start, start + n):
        index, which = divmod(position, len(chosen))
        item, level = divmod(index, len(levels))
        problems.append(_draw(rng, puzzles[which], chosen[which], item, levels[level], seed, split))
    return problems if mix else sorted(problems, key=lambda problem: chosen.index(problem.type))


def distinct_problems(
    type_name: str, n: int, *, levels: Sequence[int] = DIFFICULTIES, seed: int = 0, split: str = "train"
) -> list[Problem]:
    """Return the first `n` problems of a type that differ in content, difficulties in turn.

    Raises:
        StreamError: if the pool has fewer different items at one of the levels.
    """
    puzzle = find("problem", type_name)
    rows = [_unlimited(puzzle, type_name, level, seed, split) for level in levels]
    found: list[Problem] = []
    seen: set[str] = set()
    while len(found) < n:
        row = rows[len(found) % len(rows)]
        problem = next((new for new in (next(row) for _ in range(MAX_REPEATS)) if new.content not in seen), None)
        if problem is None:
            level = levels[len(found) % len(levels)]
            raise StreamError(
                describe(
                    f"arena {type_name!r}, {split}",
                    f"has too few different items at difficulty {level}; {len(found)} in all were found",
                    n,
                    "Ask for fewer items or allow more difficulties",
                )
            )
        seen.add(problem.content)
        found.append(problem)
    return found


def check_types(types: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the type names if they are known, different and at least one; raise ConfigError otherwise."""
    if not isinstance(types, tuple | list) or not types:
        raise ConfigError(describe(where, "is no list of problem types", types, f"For example {list(TYPES)}"))
    for name in types:
        find("problem", name, where)
    if len(set(types)) < len(types):
        raise ConfigError(describe(where, "names a type twice", list(types), "Name each type once"))
    return tuple(types)


def levels_of(difficulty: int | Sequence[int] | None, where: str) -> tuple[int, ...]:
    """Return the difficulties that are meant, in turn: all for None; raise ConfigError for one outside 1 to 5."""
    if difficulty is None:
        return DIFFICULTIES
    levels = tuple(difficulty) if isinstance(difficulty, tuple | list) else (difficulty,)
    if not levels or any(type(level) is not int or level not in DIFFICULTIES for level in levels):
        raise ConfigError(
            describe(where, "is no difficulty", difficulty, "Give 1 to 5, several of them, or None for all")
        )
    if len(set(levels)) < len(levels):
        raise ConfigError(describe(where, "names a difficulty twice", difficulty, "Name each difficulty once"))
    return levels


def _unlimited(puzzle: type[Puzzle], type_name: str, level: int, seed: int, split: str) -> Iterator[Problem]:
    rng, index = Draws(), 0
    while True:
        yield _draw(rng, puzzle, type_name, index, level, seed, split)
        index += 1


def _draw(
    rng: Draws, puzzle: type[Puzzle], type_name: str, index: int, difficulty: int, seed: int, split: str
) -> Problem:
    """Seed `rng` for the item and draw until the content is in the split's pool: 1.4, 10 or 5 times on average."""
    rng.seed(seed_of(f"arena\x1f{seed}\x1f{type_name}\x1f{difficulty}\x1f{split}\x1f{index}"))
    while True:
        drawn = puzzle.draw(rng, difficulty)
        content = drawn.content()
        if pool_of(type_name, content) == split:
            return drawn.problem(rng, content)


def _check_split(split: str, where: str) -> None:
    if split not in SPLITS:
        raise ConfigError(describe(where, "is no split", split, f"Splits: {', '.join(SPLITS)}"))


def _check_count(value: int, where: str) -> None:
    if type(value) is not int or value < 0:
        raise ConfigError(describe(where, "is no count", value, "Give a whole number from 0 on"))
