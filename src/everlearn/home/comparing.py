"""Looking at a home: how two versions differ on the same items, how one drifted, whether its files are sound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from everlearn.errors import EverlearnError
from everlearn.evaluation.answers import Flip, flips_of, question_of, right_answer
from everlearn.experts.library import Library
from everlearn.files import read_sealed
from everlearn.home.abilities import ability_problems, measure_abilities
from everlearn.home.base import check_unchanged
from everlearn.home.gate import Change, can_guard, compare_scores
from everlearn.home.pending import read_failure, read_plan
from everlearn.home.references import has_stand_in
from everlearn.home.tasks import load_task
from everlearn.home.versions import Versions
from everlearn.types import Score


@dataclass(frozen=True)
class Diff:
    """Two versions on the same items, task by task. unlearned: tasks that one of the two has not learned."""

    before: int
    after: int
    changes: tuple[Change, ...]
    flips: tuple[Flip, ...]
    unlearned: dict[str, list[int]]


@dataclass(frozen=True)
class Drift:
    """How a task's score changed since version `learned_in` learned it, and on which items."""

    learned_in: int
    change: Change
    flips: tuple[Flip, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """The state of a home: what is wrong with its files, and how each task drifted since it was learned."""

    version: int
    problems: tuple[str, ...]
    drifts: tuple[Drift, ...]
    pending: str | None = None  # the task whose learning was begun and not finished
    failure: str | None = None  # why that could not go on

    @property
    def sound(self) -> bool:
        """Whether every file is as it was written."""
        return not self.problems


def compare_versions(versions: Versions, before: int, after: int) -> Diff:
    """Return how two versions differ on every task that one of them learned; where a metric is 0 in both, by
    log-likelihood too.

    Raises:
        StateError: if there is no such version, or it is damaged.
    Cost: scores are kept; those not measured yet take a pass over the items.
    """
    learned = {number: set(versions.learned_tasks(number)) for number in (before, after)}
    names = sorted(learned[before] | learned[after])
    first, second = versions.scores(before, names), versions.scores(after, names)
    changes = []
    for name in names:
        changes.append(compare_scores(first[name], second[name]))
        if _is_blind(versions, first[name], second[name]):
            pair = (versions.scores(number, [name], stand_in=True)[name] for number in (before, after))
            changes.append(compare_scores(*pair))
    flips = [flip for name in names for flip in _flips(versions, first[name], second[name])]
    unlearned = {name: [number for number in (before, after) if name not in learned[number]] for name in names}
    return Diff(
        before, after, tuple(changes), tuple(flips), {name: found for name, found in unlearned.items() if found}
    )


def measure_drift(versions: Versions, number: int, *, fresh: bool = True) -> tuple[Drift, ...]:
    """Return a version's score on every task it has learned, beside the score when each was learned last.

    Args:
        fresh: score it anew; else by the scores that are kept, as far as there are such.

    Returns:
        One a task, then one for each ability of the base that is watched, since the base, version 0.
    """
    names = list(versions.learned_tasks(number))
    if not names:
        return ()
    now = versions.scores(number, names, fresh=fresh)
    learned_in = {record.task: record.number for record in reversed(versions.store.lineage(number)) if record.task}
    then = {name: versions.scores(learned_in[name], [name])[name] for name in names}
    blind = [name for name in names if _is_blind(versions, then[name], now[name])]
    by_answers = versions.scores(number, blind, fresh=fresh, stand_in=True)
    drifts = []
    for name in names:
        change = compare_scores(then[name], now[name])
        drifts.append(Drift(learned_in[name], change, tuple(_flips(versions, then[name], now[name]))))
        if name in blind:
            before = versions.scores(learned_in[name], [name], stand_in=True)[name]
            drifts.append(Drift(learned_in[name], compare_scores(before, by_answers[name])))
    left, base = measure_abilities(versions, number, fresh=fresh), measure_abilities(versions, 0)
    return (*drifts, *(Drift(0, compare_scores(base[name], left[name])) for name in base))


def _flips(versions: Versions, before: Score, after: Score) -> list[Flip]:
    """Return the items of a task on which two scores differ, each with its row."""
    task = versions.tasks[after.task]
    asked = [(question_of(row), right_answer(task, row), row) for row in task.evaluation]
    return flips_of(asked, before, after)


def _is_blind(versions: Versions, before: Score, after: Score) -> bool:
    """Return whether a task's metric is 0 in both, so that log-likelihood tells more."""
    return has_stand_in(versions.tasks[after.task]) and not (can_guard(before, 0.0) or can_guard(after, 0.0))


def find_problems(versions: Versions, fingerprint: dict[str, str]) -> list[str]:
    """Return what is wrong with the files of a home and with its base model, a sentence each.

    Cost: reads every file once.
    """
    store = versions.store
    problems = [problem for number in store.numbers() for problem in store.problems(number)]
    problems += _complaints(lambda: check_unchanged(versions.settings.model, fingerprint))
    problems += _complaints(lambda: ability_problems(versions))
    problems += _complaints(store.events)
    problems += _complaints(store.current)
    if Library.is_library(store.library):
        problems += _complaints(lambda: Library(store.library).prototypes())
    if store.pending.exists():
        problems += _complaints(lambda: (read_plan(store), read_failure(store)))
    for folder in sorted(path for path in store.tasks.glob("*") if path.is_dir()):
        problems += _complaints(lambda folder=folder: load_task(folder))
    for path in sorted((store.path / "scores").rglob("*.json")):
        problems += _complaints(lambda path=path: read_sealed(path))
    return problems


def _complaints(check: Callable[[], Any]) -> list[str]:
    try:
        check()
    except EverlearnError as error:
        return [str(error)]
    return []
