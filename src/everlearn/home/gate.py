"""The gate: is a new version good enough to take the place of the current one? Pure functions on per-item outcomes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everlearn.errors import check_choice, check_number
from everlearn.evaluation.stats import items_needed, paired_difference
from everlearn.types import Score

RULES = ("point", "confident", "safe")
# metric -> what is compared item by item where the metric itself is no mean over items
COMPARED = {
    "entity_f1": "each sentence's own entity F1",
    "f1": "right or wrong per item",
    "matthews": "right or wrong per item",
    "token_log_likelihood": "each item's mean log-likelihood, nats per token",
}


@dataclass(frozen=True)
class Gate:
    """When a new version is refused: if any earlier task lost too much.

    Args:
        tolerance: the loss that is accepted: a share of the items (nats per token for text).
        rule: with the loss's estimate and its 95% interval, refuse a task if
            point: estimate > tolerance; confident: lower end > tolerance, so only a loss that is sure;
            safe: not (upper end ≤ tolerance), so unless it is sure that there is none.
    """

    tolerance: float = 0.02
    rule: str = "point"

    def __post_init__(self) -> None:
        check_number("gate", self.tolerance, low=0)
        check_choice("gate rule", self.rule, RULES)


@dataclass(frozen=True)
class Change:
    """How one task's score changed between two versions, on the same items.

    before, after: the scores. difference: mean of after − before over the items' outcomes, with its 95% interval (None
    where the items can't give one) and p-value; it is not `after − before` for metrics that are no mean over items,
    `compared` then says what was compared.
    """

    task: str
    metric: str
    n: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    n_lost: int
    n_gained: int
    discordance: float
    test: str
    compared: str = ""


@dataclass(frozen=True)
class Verdict:
    """The gate's judgement on one task. undecided: its items can't tell whether the loss exceeds the tolerance.

    n_needed: how many items could, for a change that loses nothing in truth (None where no number could).
    """

    change: Change
    refused: bool
    undecided: bool
    n_needed: int | None


@dataclass(frozen=True)
class GateReport:
    """The gate's judgement on every earlier task."""

    tolerance: float
    rule: str
    verdicts: tuple[Verdict, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether any task lost too much."""
        return any(verdict.refused for verdict in self.verdicts)


def compare_scores(before: Score, after: Score) -> Change:
    """Return how a score changed, item by item. Both must be of the same items in the same order.

    Raises:
        ConfigError: if the two have different numbers of outcomes.
    Source: see `everlearn.evaluation.stats.paired_difference`.
    """
    paired = paired_difference(before.outcomes, after.outcomes)
    return Change(
        task=after.task,
        metric=after.metric,
        n=paired.n,
        before=before.value,
        after=after.value,
        difference=paired.difference,
        low=_number(paired.low),
        high=_number(paired.high),
        p_value=_number(paired.p_value),
        n_lost=paired.n_lost,
        n_gained=paired.n_gained,
        discordance=paired.discordance,
        test=paired.test,
        compared=COMPARED.get(after.metric, ""),
    )


def judge(gate: Gate, before: Mapping[str, Score], after: Mapping[str, Score]) -> GateReport:
    """Return the gate's judgement on every task of `before`.

    The loss is −difference, so that its interval is [−high, −low].
    """
    verdicts = tuple(judge_change(gate, compare_scores(before[task], after[task])) for task in before)
    return GateReport(gate.tolerance, gate.rule, verdicts)


def judge_change(gate: Gate, change: Change) -> Verdict:
    """Return the gate's judgement on one change. Without an interval `confident` passes and `safe` refuses."""
    loss = -change.difference
    low = -math.inf if change.high is None else -change.high
    high = math.inf if change.low is None else -change.low
    refused = {
        "point": loss > gate.tolerance + 1e-12,  # 0.02 as 1 of 50 items must not exceed 0.02 by rounding
        "confident": low > gate.tolerance,
        "safe": not high <= gate.tolerance,
    }[gate.rule]
    undecided = low <= gate.tolerance < high
    return Verdict(change, refused, undecided, _n_needed(gate, change) if undecided else None)


def report_values(report: GateReport) -> dict[str, Any]:
    """Return a report as JSON values; `report_from` undoes it."""
    verdicts = [{**vars(verdict), "change": dict(vars(verdict.change))} for verdict in report.verdicts]
    return {"tolerance": report.tolerance, "rule": report.rule, "verdicts": verdicts}


def report_from(values: Mapping[str, Any]) -> GateReport:
    """Return the report that `report_values` was given."""
    verdicts = tuple(Verdict(**{**entry, "change": Change(**entry["change"])}) for entry in values["verdicts"])
    return GateReport(values["tolerance"], values["rule"], verdicts)


def _n_needed(gate: Gate, change: Change) -> int | None:
    loss = 0.0 if gate.tolerance > 0 else max(0.0, -change.difference)
    return items_needed(gate.tolerance, change.discordance, loss)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
