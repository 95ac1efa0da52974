"""The gate: is a new version good enough to take the place of the current one? Pure functions on per-item outcomes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.errors import check_choice, check_number
from everlearn.evaluation.abilities import DIVERGENCE
from everlearn.evaluation.gain import LOG_LIKELIHOOD, WITHOUT_FLOOR
from everlearn.evaluation.losses import CHANCE, holm, loss_p_value
from everlearn.evaluation.stats import items_needed, paired_difference
from everlearn.types import Score

RULES = ("point", "confident", "safe")
# metric -> what is compared item by item where the metric itself is no mean over items
COMPARED = {
    "entity_f1": "each sentence's own entity F1",
    "f1": "right or wrong per item",
    "matthews": "right or wrong per item",
    "micro_f1": "each text's own F1",
    "macro_f1": "each text's own F1",
    "pearson": "each item's part in the correlation (jackknife)",
    "spearman": "each item's part in the correlation (jackknife)",
    LOG_LIKELIHOOD: "each item's mean log-likelihood, nats per token",
    DIVERGENCE: "each text's mean KL(base || model), nats per token",
}


@dataclass(frozen=True)
class Gate:
    """When a new version is refused: if any earlier task lost too much, beside any version that it is compared with.

    What the base model could do is watched as well; of a loss there is a warning, and with `safe` it is refused.

    Args:
        tolerance: the loss that is accepted: a share of the items (nats per token where log-likelihoods are compared).
        rule: refuse if, in any comparison,
            point: the estimated loss is above the tolerance, and it is sure that something was lost;
            confident: it is sure that the loss is above the tolerance;
            safe: it is not sure that the loss is within the tolerance (upper end of the 95% interval).
        abilities: the loss of an ability that is accepted: nats per token of KL(base || model), or as `tolerance` is.

    `point` and `confident` are sure with a chance of 5% at most to refuse wrongly, over all comparisons together.
    """

    tolerance: float = 0.02
    rule: str = "point"
    abilities: float = 0.05

    def __post_init__(self) -> None:
        check_number("gate", self.tolerance, low=0)
        check_number("gate abilities", self.abilities, low=0)
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
class Comparison:
    """A new version's score on a task beside that of a version before it, item by item.

    version: number of the version that `before` is of; None: the current one. n_chosen_from: where that version is the
    best before, how many it was chosen from; 0 for the current one. stands_in: the task's own metric can't tell what is
    lost, so log-likelihoods are compared. unguarded: it can't tell, and there is nothing to take its place.
    """

    before: Score
    after: Score
    version: int | None = None
    n_chosen_from: int = 0
    stands_in: bool = False
    unguarded: bool = False


@dataclass(frozen=True)
class Verdict:
    """The gate's judgement on one comparison. undecided: its items can't tell whether the loss exceeds the tolerance.

    n_needed: how many items could, for a change that loses nothing in truth (None where no number could).
    version, n_chosen_from, stands_in, unguarded: as in `Comparison`. p_value: how likely such a loss is in any of the
    comparisons if nothing was lost in truth (`confident`: no more than the tolerance); None where there is no test.
    """

    change: Change
    refused: bool
    undecided: bool
    n_needed: int | None
    version: int | None = None
    n_chosen_from: int = 0
    stands_in: bool = False
    unguarded: bool = False
    p_value: float | None = None


@dataclass(frozen=True)
class GateReport:
    """The gate's judgement on every earlier task: beside the current version, and beside the best before it.

    abilities: on what the base model could do, as if it were refused for it; only with rule `safe` it is.
    """

    tolerance: float
    rule: str
    verdicts: tuple[Verdict, ...] = ()
    abilities: tuple[Verdict, ...] = ()
    abilities_tolerance: float = Gate.abilities

    @property
    def refused(self) -> bool:
        """Whether any task lost too much, or with `safe` any ability."""
        return bool(self.lost)

    @property
    def lost(self) -> dict[str, list[Verdict]]:
        """{task: the comparisons in which it lost too much}; with `safe` abilities as well."""
        return _refused([*self.verdicts, *(self.abilities if self.rule == "safe" else ())])

    @property
    def warned(self) -> list[str]:
        """The abilities of which too much was lost, where that is no reason to refuse."""
        return [] if self.rule == "safe" else list(_refused(self.abilities))


def can_guard(score: Score, tolerance: float) -> bool:
    """Return whether a score can fall by more than the tolerance, so that a loss could show.

    A tolerance of 1 or more accepts any loss of items, so that there is nothing to guard.
    """
    mean = sum(score.outcomes) / len(score.outcomes)
    return score.metric in WITHOUT_FLOOR or tolerance >= 1 or mean > tolerance


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
    """Return the gate's judgement on every task of `before`, beside one version."""
    return judge_all(gate, [Comparison(before[task], after[task]) for task in before], len(before))


def judge_abilities(gate: Gate, comparisons: Sequence[Comparison]) -> tuple[Verdict, ...]:
    """Return the judgement on abilities, by the gate's rule and their own tolerance. They are tested by themselves, so
    that the verdicts on tasks are the same with or without them."""  # fmt: skip
    return judge_all(Gate(gate.abilities, gate.rule), comparisons, len(comparisons)).verdicts


def judge_all(gate: Gate, comparisons: Sequence[Comparison], n_tests: int) -> GateReport:
    """Return the gate's judgement on all comparisons.

    A p-value counts once for each version that the one compared with was chosen from: the best of many scores is too
    good by chance. Then Holm's step-down bounds the chance of a false refusal over all comparisons.

    Args:
        n_tests: how many comparisons there could have been, whatever the scores; at least those that there are.
    """
    margin = gate.tolerance if gate.rule == "confident" else 0.0
    p_values = [loss_p_value(one.before.outcomes, one.after.outcomes, margin) for one in comparisons]
    tried = [
        1.0 if p is None else min(1.0, p * max(1, one.n_chosen_from))
        for p, one in zip(p_values, comparisons, strict=True)
    ]
    adjusted = [None if p is None else a for p, a in zip(p_values, holm(tried, n_tests), strict=True)]
    verdicts = (_judge_one(gate, one, p) for one, p in zip(comparisons, adjusted, strict=True))
    return GateReport(gate.tolerance, gate.rule, tuple(verdicts), abilities_tolerance=gate.abilities)


def report_values(report: GateReport) -> dict[str, Any]:
    """Return a report as JSON values; `report_from` undoes it."""
    verdicts, abilities = (
        [{**vars(verdict), "change": dict(vars(verdict.change))} for verdict in some]
        for some in (report.verdicts, report.abilities)
    )
    return {**vars(report), "verdicts": verdicts, "abilities": abilities}


def report_from(values: Mapping[str, Any]) -> GateReport:
    """Return the report that `report_values` was given; one that was kept before a field came has its default."""
    verdicts, abilities = (
        tuple(Verdict(**{**entry, "change": Change(**entry["change"])}) for entry in values.get(name, ()))
        for name in ("verdicts", "abilities")
    )
    tolerance = values.get("abilities_tolerance", Gate.abilities)
    return GateReport(values["tolerance"], values["rule"], verdicts, abilities, tolerance)


def _refused(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.refused:
            found.setdefault(verdict.change.task, []).append(verdict)
    return found


def _judge_one(gate: Gate, one: Comparison, p_value: float | None) -> Verdict:
    """Return the judgement on one comparison. The loss is −difference, so that its interval is [−high, −low]."""
    change = compare_scores(one.before, one.after)
    low = -math.inf if change.high is None else -change.high
    high = math.inf if change.low is None else -change.low
    above = -change.difference > gate.tolerance + 1e-12  # 0.02 as 1 of 50 items must not exceed 0.02 by rounding
    refused = {
        "point": above and (p_value is None or p_value <= CHANCE),  # one text alone gives no test, only an estimate
        "confident": above and p_value is not None and p_value <= CHANCE,
        "safe": not high <= gate.tolerance,
    }[gate.rule]
    undecided = low <= gate.tolerance < high and not (refused and gate.rule == "confident")
    return Verdict(
        change=change,
        refused=refused,
        undecided=undecided,
        n_needed=_n_needed(gate, change) if undecided else None,
        version=one.version,
        n_chosen_from=one.n_chosen_from,
        stands_in=one.stands_in,
        unguarded=one.unguarded,
        p_value=p_value,
    )


def _n_needed(gate: Gate, change: Change) -> int | None:
    loss = 0.0 if gate.tolerance > 0 else max(0.0, -change.difference)
    return items_needed(gate.tolerance, change.discordance, loss)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
