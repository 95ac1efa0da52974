"""What a new version is compared with: the current version and the best before it, by each task's own metric, or by
log-likelihood where that metric can't tell what is lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everlearn.config import from_mapping
from everlearn.errors import StateError
from everlearn.evaluation.answers import without_answers
from everlearn.home.gate import Comparison, Gate, can_guard
from everlearn.home.store import Kept, Version
from everlearn.home.versions import Versions
from everlearn.types import Score, Task


@dataclass(frozen=True)
class Reference:
    """A version's score on a task.

    items: positions of its items among the task's present ones; None: it is of all of them. n_chosen_from: how many
    versions it is the best of; 0: it is the current version.
    """

    version: int
    score: Score
    items: tuple[int, ...] | None = None
    n_chosen_from: int = 0


@dataclass(frozen=True)
class References:
    """What a new version is compared with on one task: by its own metric, and by log-likelihood where that was taken.

    The current version comes first, then the best before it, if that is better. n_tests: how many comparisons there
    could be, whatever the scores.
    """

    own: tuple[Reference, ...]
    stand_ins: tuple[Reference, ...] = ()
    n_tests: int = 1
    notes: tuple[str, ...] = ()


def references_values(references: Mapping[str, References]) -> dict[str, Any]:
    """Return references as JSON values; `references_from` undoes it."""
    return {name: without_answers(one) for name, one in references.items()}


def references_from(values: Mapping[str, Any]) -> dict[str, References]:
    """Return what `references_values` was given."""
    return {name: from_mapping(References, one, f"references of {name!r}") for name, one in values.items()}


def has_stand_in(task: Task) -> bool:
    """Return whether log-likelihood can take the place of the task's metric."""
    return task.kind == "prompt" and task.metrics[:1] not in (("token_log_likelihood",), ("perplexity",))


def find_references(versions: Versions, gate: Gate, parent: int, before: Mapping[str, Score]) -> dict[str, References]:
    """Return what the gate compares with on each task that the current version has learned.

    The best version before is found among those that the current one comes from, back to the one that last learned the
    task, or that was accepted although it lost more of it than the gate allows; by what was kept of them, on the items
    that are still the task's. What was measured on another device or software is measured again.

    Args:
        before: the current version's scores.
    Cost: reads the kept scores; opens a version only to measure it again, or its log-likelihoods.
    """
    lineage = versions.store.lineage(parent)
    found = {}
    for name in lineage[0].learned:
        others = _since(lineage, name, gate)[1:]
        own, notes = _with_best(versions, others, Reference(parent, before[name]), stand_in=False)
        stand_ins: tuple[Reference, ...] = ()
        if has_stand_in(versions.tasks[name]) and not can_guard(before[name], gate.tolerance):
            score = versions.scores(parent, [name], stand_in=True)[name]
            stand_ins, more = _with_best(versions, others, Reference(parent, score), stand_in=True)
            notes += more
        n_tests = 1 + bool(others) * (2 if stand_ins else 1)
        found[name] = References(own, stand_ins, n_tests, tuple(notes))
    return found


def comparisons_of(
    gate: Gate, references: Mapping[str, References], after: Mapping[str, Score], stand_ins: Mapping[str, Score]
) -> list[Comparison]:
    """Return a new version's scores beside those before: by a task's own metric where that can tell what is lost, else
    by log-likelihood; where there is none either, the comparison is marked as unguarded.

    Args:
        after, stand_ins: the new version's scores, and its log-likelihoods of tasks whose own metric can't tell.
    """
    comparisons = []
    for name, one in references.items():
        guarding = [r for r in one.own if can_guard(r.score, gate.tolerance)]
        if guarding or can_guard(after[name], gate.tolerance):
            comparisons += [_comparison(r, after[name]) for r in one.own]
        elif name not in stand_ins or not one.stand_ins:
            comparisons.append(replace(_comparison(one.own[0], after[name]), unguarded=True))
        if name in stand_ins and one.own[0] not in guarding and not can_guard(after[name], gate.tolerance):
            comparisons += [replace(_comparison(r, stand_ins[name]), stands_in=True) for r in one.stand_ins]
    return comparisons


def _since(lineage: Sequence[Version], task: str, gate: Gate) -> list[Version]:
    """Return the versions whose scores on a task still count, the current one first."""
    counting = []
    for record in lineage:
        counting.append(record)
        if record.task == task or _was_accepted(record, task, gate):
            break
    return counting


def _was_accepted(record: Version, task: str, gate: Gate) -> bool:
    """Return whether the user took a loss of the task into the bargain: by force, or by a wider gate than this one."""
    if record.gate is None:
        return False
    for verdict in record.gate["verdicts"]:
        loss, wider = -verdict["change"]["difference"], record.gate["tolerance"] > gate.tolerance
        if verdict["change"]["task"] == task and (verdict["refused"] or (wider and loss > gate.tolerance)):
            return True
    return False


def _with_best(
    versions: Versions, others: Sequence[Version], current: Reference, *, stand_in: bool
) -> tuple[tuple[Reference, ...], list[str]]:
    """Return the current version's score with the best of the others', if that is better; and notes."""
    name = current.score.task
    kept = [(record.number, _kept_here(versions, record.number, name, stand_in)) for record in others]
    usable = [(number, one, _positions(versions, name, one)) for number, one in kept if one is not None]
    references = [_restricted(number, one.score, positions) for number, one, positions in usable if positions]
    best = max(references, key=lambda one: _gain(one, current), default=None)
    if best is None or _gain(best, current) <= 0:
        return (current,), []
    best = replace(best, n_chosen_from=len(references))
    where = next(one.measured_on for number, one, _ in usable if number == best.version)
    if where != versions.measured_on():
        try:
            score = versions.scores(best.version, [name], stand_in=stand_in)[name]
        except StateError as error:
            note = f"{name}: version {best.version}, the best before, can't be measured again and is left out. {error}"
            return (current,), [note]
        best = replace(best, score=score, items=None)
    return (current, best) if _gain(best, current) > 0 else (current,), []


def _kept_here(versions: Versions, number: int, task: str, stand_in: bool) -> Kept | None:
    """Return what is kept of a version's score on a task, as measured on this device and software if there is such."""
    kept = versions.store.kept(number, task, stand_in=stand_in)
    here = [one for one in kept if one.measured_on == versions.measured_on()]
    return next(iter([*here, *kept]), None)


def _positions(versions: Versions, task: str, kept: Kept) -> dict[int, float]:
    """Return {position among the task's present items: outcome} of those that a score was measured on."""
    present = versions.items(task)
    names = present[: kept.score.n] if kept.items is None else kept.items
    place = {name: position for position, name in enumerate(present)}
    return {place[name]: value for name, value in zip(names, kept.score.outcomes, strict=False) if name in place}


def _restricted(number: int, score: Score, outcome_of: Mapping[int, float]) -> Reference:
    """Return a score on the items that are still there."""
    positions = tuple(sorted(outcome_of))
    if len(positions) == score.n and [outcome_of[i] for i in positions] == list(score.outcomes):
        return Reference(number, score, positions)
    return Reference(number, _of_items(score, [outcome_of[i] for i in positions]), positions)


def _comparison(reference: Reference, after: Score) -> Comparison:
    new = after if _is_whole(reference, after) else _of_items(after, [after.outcomes[i] for i in reference.items])
    return Comparison(reference.score, new, reference.version, reference.n_chosen_from)


def _is_whole(reference: Reference, score: Score) -> bool:
    return reference.items is None or len(reference.items) == score.n


def _of_items(score: Score, outcomes: Sequence[float]) -> Score:
    """Return a score of some of its items: its value is the mean of their outcomes."""
    value = sum(outcomes) / len(outcomes)
    return Score(score.task, score.metric, value, None, None, len(outcomes), tuple(outcomes))


def _gain(reference: Reference, current: Reference) -> float:
    """Return by how much a version was better than the current one on the items of both."""
    outcomes = current.score.outcomes
    mine = [outcomes[i] for i in (range(len(outcomes)) if reference.items is None else reference.items)]
    return (sum(reference.score.outcomes) - sum(mine)) / len(mine)
