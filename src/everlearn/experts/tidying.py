"""Experts that came to be alike: one takes the place of two, where it answers all their tasks as well.

What is near is found by profiles and weights; whether one does for both is told by validation rows alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from everlearn.errors import ConfigError, check_number, describe
from everlearn.evaluation.stats import paired_difference
from everlearn.experts.library import Library
from everlearn.experts.lora import Lora
from everlearn.experts.merging import Merge, merged
from everlearn.experts.record import Head, Learned
from everlearn.experts.signals.joining import Space
from everlearn.experts.slots import Slots
from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.models.load import Model
from everlearn.types import Task
from everlearn.way import Run

Ask = Callable[[Task, Lora | int], Sequence[float]]  # outcomes of a task's validation rows, answered by an expert
HOW = Merge("svd")


@dataclass(frozen=True, kw_only=True)
class TidyConfig:
    """Which experts are looked at, and when one takes the place of two.

    Args:
        every: after so many tasks; 0: never.
        merge_above: least similarity of two experts' profiles: of the prototype of one that is least like the other's.
        deltas_above: least cosine of what the two add to the base's weights.
        margin: by how much the one may do worse than either, in the task's metric.
        confidence: of the interval, two-sided, whose lower end lies above -margin on every task.
        most: pairs that are looked at each time, the nearest first.
    """

    every: int = 0
    merge_above: float = 0.8
    deltas_above: float = 0.0
    margin: float = 0.05
    confidence: float = 0.9
    most: int = 4

    def __post_init__(self) -> None:
        check_number("tidy: every", self.every, low=0)
        check_number("tidy: merge_above", self.merge_above, low=-1, high=1)
        check_number("tidy: deltas_above", self.deltas_above, low=-1, high=1)
        check_number("tidy: margin", self.margin, above=0, high=1)
        check_number("tidy: confidence", self.confidence, above=0, high=0.999)
        check_number("tidy: most", self.most, low=1)


@dataclass(frozen=True)
class Pair:
    """Two experts, how alike their profiles are and what they add to the base's weights."""

    experts: tuple[int, int]
    similarity: float
    deltas: float


@dataclass(frozen=True)
class Check:
    """How the one for both does on a task beside the task's own expert: the difference, its interval, of n rows."""

    task: str
    n: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """What was found of a pair.

    Attributes:
        kept: the expert that covers the other, or None: both merged. checks: on every task of both. good: whether it
            may take their place.
    """

    pair: Pair
    kept: int | None
    checks: tuple[Check, ...]
    good: bool

    @property
    def gone(self) -> tuple[int, ...]:
        """The experts that are no longer needed."""
        return tuple(number for number in self.pair.experts if number != self.kept)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON value, for a log."""
        return {
            "experts": list(self.pair.experts), "similarity": self.pair.similarity, "deltas": self.pair.deltas,
            "kept": self.kept, "good": self.good, "checks": [vars(check) for check in self.checks],
        }  # fmt: skip

    def sentence(self) -> str:
        """Return it for people, with the task on which it does worst."""
        one, other = self.pair.experts
        what = f"expert {one} merged with {other}" if self.kept is None else f"expert {self.kept} for {self.gone[0]}"
        worst = min(self.checks, key=lambda check: check.low)
        verdict = "does as well" if self.good else "isn't known to do as well"
        told = f"{worst.difference:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}], {worst.n} rows of {worst.task!r}"
        return f"{what} {verdict}: at worst {told}."


def near_pairs(library: Library, among: Sequence[int], config: TidyConfig) -> list[Pair]:
    """Return the pairs of these experts that are alike in profile and weights, nearest first, at most `config.most`.

    Cost: of pairs whose profiles are near, both files are read and hashed once.
    """
    known = library.prototypes()
    if len(among) < 2 or library.profiled_with is None or not len(known.vectors):
        return []
    weights = (library.router() or {"config": {}})["config"].get("weights")
    joined = Space.of(known.vectors, library.profiled_with["blocks"], weights).joined(known.vectors)
    owners = torch.tensor(known.experts)
    rows = {number: joined[owners == number] for number in sorted(among) if number in known.experts}
    numbers = list(rows)
    near = sorted(
        ((_profiles_alike(rows[one], rows[other]), one, other)
         for i, one in enumerate(numbers) for other in numbers[i + 1 :]),
        key=lambda found: (-found[0], found[1:]),
    )  # fmt: skip
    found: list[Pair] = []
    loras: dict[int, Lora] = {}
    for similarity, one, other in near:
        if similarity < config.merge_above or len(found) == config.most:
            break
        for number in (one, other):
            loras[number] = loras.get(number) or library.lora(number)
        deltas = cosine(loras[one], loras[other])
        if deltas >= config.deltas_above:
            found.append(Pair((one, other), similarity, deltas))
    return found


def cosine(one: Lora, other: Lora) -> float:
    """Return the cosine of what two LoRAs add to the base's weights, all layers as one; 0 where one adds nothing.

    No matrix of a layer's size is made: <B1 A1, B2 A2> = sum of (B1ᵀ B2) ∘ (A1 A2ᵀ).
    """
    norms = _inner(one, one) * _inner(other, other)
    return _inner(one, other) / norms**0.5 if norms > 0 else 0.0


def findings(library: Library, tasks: Mapping[int, Sequence[Task]], ask: Ask, config: TidyConfig) -> Iterator[Finding]:
    """Yield what is found of near experts: what may stand for both, or else the merger that doesn't. Nothing changes.

    Looked at are the one with more tasks for both, the other for both, then both merged; the first that is no worse
    counts. An expert that may go, or be merged, isn't looked at again.

    Args:
        tasks: {expert: all that it answers, with validation rows}; others are left alone.
        ask: returns outcomes of a task's validation rows.

    Cost: a pair's validation rows are answered once by their own experts, and once by each of the three.
    """
    taken: set[int] = set()
    own: dict[tuple[int, str], Sequence[float]] = {}
    for pair in near_pairs(library, list(tasks), config):
        one, other = (library.expert(number) for number in pair.experts)
        if taken & set(pair.experts) or one.labels.keys() & other.labels.keys():  # two heads for one task
            continue
        both = [(number, task) for number in pair.experts for task in tasks[number]]
        own |= {(n, task.name): ask(task, n) for n, task in both if (n, task.name) not in own}
        for kept in (*sorted(pair.experts, key=lambda number: -len(tasks[number])), None):
            by = kept
            if kept is None:
                by = merged([library.lora(number) for number in pair.experts], HOW, library.base)
            asked = [(number, task) for number, task in both if number != kept]
            checks = tuple(
                _check(task, own[number, task.name], ask(task, by), config.confidence) for number, task in asked
            )
            finding = Finding(pair, kept, checks, all(check.low > -config.margin for check in checks))
            if finding.good:
                taken |= set(pair.experts)
                break
        yield finding


def tidy_by_rows(
    library: Library, model: Model, tasks: Sequence[Task], config: TidyConfig, *, dry_run: bool = False
) -> list[Finding]:
    """Let one expert take the place of two where it answers these rows as well, and return what was found.

    Args:
        model: of the library's base, with one LoRA. tasks: whose training rows are asked; experts that learned another
            task too are left alone.
        dry_run: change nothing.

    Raises:
        ConfigError: if no expert learned one of the tasks.
    """
    asked = {task.name: replace(task, validation=[*task.train, *task.evaluation]) for task in tasks}
    known = {name for expert in library.experts for name in expert.tasks}
    strange = [name for name in asked if name not in known]
    if strange:
        way_out = f"Name files as the tasks: {', '.join(sorted(known)) or 'no expert has learned one'}"
        raise ConfigError(describe(str(library.path), "no expert in use learned this", strange, way_out))
    learned = {expert.number: expert.tasks for expert in library.experts if expert.tasks}
    whole = {n: [asked[name] for name in names] for n, names in learned.items() if set(names) <= set(asked)}
    run = Run(model, SupervisedLearner(), [], start_accelerator())
    slots, heads = Slots(model, library), {}
    for number, of in whole.items():
        for task in of:
            run.add_labels(task)
            if task.name in library.expert(number).labels:
                heads[task.name] = library.head(number, task.name)
                heads[task.name].copy_to(model.adapters, task.name)

    def ask(task: Task, by: Lora | int) -> Sequence[float]:
        with slots.answering(by):
            return run.score(task, "validation").outcomes

    found = list(findings(library, whole, ask, config))
    for finding in found:
        if finding.good and not dry_run:
            carry_out(library, finding, heads)
    return found


def carry_out(library: Library, finding: Finding, heads: Mapping[str, Head]) -> int:
    """Let one expert take the place of two, and return its number; what goes is retired, and can be restored.

    Args:
        heads: of classifiers' tasks, as they are now.
    """
    with library.changing():
        records = [library.expert(number) for number in finding.pair.experts]
        if finding.kept is None:
            words = "; ".join(dict.fromkeys(record.description for record in records))
            number = library.merge(finding.pair.experts, words, HOW, tag=records[0].tag).number
        else:
            number = finding.kept
            for gone in finding.gone:
                known = library.expert(number).prototypes
                for task, prototype in library.profile(gone).items():
                    if task in known:
                        continue
                    if task in heads:  # is written beside the weights
                        told = Learned(task=task, prototype=prototype, head=heads[task])
                        library.adapt(number, library.lora(number), told)
                    else:
                        library.add_prototype(number, task, prototype)
        for gone in finding.gone:
            library.retire(gone, f"expert {number} answers as well")
        library.log("tidied", answers=number, **finding.as_json())
    return number


def _profiles_alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the lowest similarity of a prototype of either expert to the nearest of the other's."""
    scores = one @ other.T
    return float(torch.minimum(scores.amax(1).min(), scores.amax(0).min()))


def _inner(one: Lora, other: Lora) -> float:
    total = 0.0
    for name in set(one.layers) & set(other.layers):
        first, second = one.layer(name), other.layer(name)
        products = (first.up.double().T @ second.up.double()) * (first.down.double() @ second.down.double().T)
        total += first.scaling * second.scaling * float(products.sum())
    return total


def _check(task: Task, own: Sequence[float], new: Sequence[float], confidence: float) -> Check:
    found = paired_difference(own, new, confidence)
    return Check(task.name, len(own), found.difference, found.low, found.high)
