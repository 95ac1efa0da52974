"""Decisions on tasks as a run carries them out: kept in its state, told to people."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from everlearn.experts.router import Candidate, Decision

UNTRAINED = ("reuse", "compose")  # actions


def read_decision(value: Mapping[str, Any]) -> Decision:
    """Return the decision that `as_json` was called on; what else stands beside it is left out."""
    own = {part.name: value[part.name] for part in fields(Decision)}
    return Decision(**{**own, "candidates": tuple(Candidate(**one) for one in value["candidates"])})


def without_router(action: str, expert: int, reason: str) -> Decision:
    """Return a decision that no router took: it has no threshold."""
    return Decision(action, expert, (), None, False, 0.0, reason)


def is_untrained(decision: Decision) -> bool:
    """Tell whether the task is answered by what there is, without training."""
    return decision.action in UNTRAINED and not decision.trial


def nearest_of(decision: Decision) -> Candidate | None:
    """Return the candidate that a decision is for; of a new expert the best one, None where there is none."""
    return next((one for one in decision.candidates if decision.expert in (None, one.expert)), None)


def decision_sentence(decision: Decision) -> str:
    """Return what is done about a task, and why."""
    return f"{decision.action}. {decision.reason}" + (" A new expert is tried beside it." if decision.trial else "")


def outcome_sentence(decision: Decision, number: int | None, was_right: bool | None) -> str:
    """Return what came of a decision.

    Args:
        number: of the expert that answers the task; None: several do. was_right: whether reusing the nearest would have
            been as good; None: not known.
    """
    if decision.trial:
        how = "does as well as a new one" if number == decision.expert else "does worse than a new one, which is kept"
        return f"expert {decision.expert} {how}."
    answers = "several experts answer" if number is None else f"expert {number} answers"
    beside = {None: "", True: "; the nearest would have done as well", False: "; the nearest would have done worse"}
    return f"{answers}{beside[was_right]}."
