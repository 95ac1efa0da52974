"""How often the gate of a model home refuses, by simulation: harmless updates, losses of known size, losses in a row.

    python benchmarks/gate.py [--homes N] [--out FILE]

A task has 100 items, 80% of them right. An update draws 10% of all answers anew, which changes nothing in truth; a loss
of 0.10 in one task makes wrong, besides, what was right in such a share of all items. `estimate` is a gate that looks
at the estimated loss alone, beside the current version alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paired import write
from workload import results_path

from everlearn.evaluation.stats import wilson_interval
from everlearn.home.gate import RULES, Comparison, Gate, judge_all
from everlearn.types import Score

SEED = 0
N_ITEMS, SHARE_RIGHT, REDRAWN = 100, 0.8, 0.1
N_TASKS = (1, 5, 20)
LOSSES = (0.0, 0.05, 0.1, 0.2)
N_VERSIONS = 20  # harmless ones in a row
SMALL_LOSS, LONGEST = 0.02, 50  # of each version in a row, and how many at most
TOLERANCE = Gate().tolerance

Answers = np.ndarray  # [n_items], right (1.0) or wrong (0.0)


def first(generator: np.random.Generator) -> Answers:
    """Return the answers of a version that has just learned a task."""
    return (generator.random(N_ITEMS) < SHARE_RIGHT).astype(float)


def updated(answers: Answers, loss: float, redrawn: float, generator: np.random.Generator) -> Answers:
    """Return the answers after an update that loses a share of all items in truth."""
    new = answers.copy()
    drawn = generator.random(N_ITEMS) < redrawn
    new[drawn] = generator.random(int(drawn.sum())) < SHARE_RIGHT
    right = np.flatnonzero(new)
    new[generator.permutation(right)[: round(loss * N_ITEMS)]] = 0.0
    return new


def score(answers: Answers) -> Score:
    """Return answers as a task's score."""
    return Score("task", "accuracy", float(answers.mean()), None, None, len(answers), tuple(answers.tolist()))


def comparisons(history: Sequence[Answers], new: Answers, *, counted: bool = True) -> list[Comparison]:
    """Return what a home compares: the new answers with the current ones, and with the best before if that is better.

    Args:
        history: answers of the versions so far, oldest first. counted: a best counts as one of many tests.
    """
    *others, current = history
    found = [Comparison(score(current), score(new), len(history))]
    best = max(others, key=np.mean, default=current)
    if best.mean() > current.mean():
        found.append(Comparison(score(best), score(new), 0, len(others) if counted else 1))
    return found


def refused(rule: str, found: Sequence[Comparison], n_tests: int) -> bool:
    """Return whether a rule refuses."""
    if rule == "estimate":
        return any(one.before.value - one.after.value > TOLERANCE + 1e-12 for one in found if not one.n_chosen_from)
    return judge_all(Gate(TOLERANCE, rule), found, n_tests).refused


def one_update(n_homes: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return how often one update is refused, by number of tasks and the loss in one of them."""
    lines = []
    for n_tasks in N_TASKS:
        for loss in LOSSES:
            counts = dict.fromkeys(("estimate", *RULES), 0)
            for _ in range(n_homes):
                found = []
                for task in range(n_tasks):
                    before = first(generator)
                    found += comparisons([before], updated(before, loss if task == 0 else 0.0, REDRAWN, generator))
                for rule in counts:
                    counts[rule] += refused(rule, found, n_tasks)
            lines.append({"n_tasks": n_tasks, "loss": loss, **_shares(counts, n_homes)})
    return lines


def after_many(n_homes: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return how often the last of many harmless updates is refused; also if the best before counted as one test."""
    lines = []
    for n_tasks in N_TASKS:
        counts = {f"{rule}{how}": 0 for rule in ("point", "confident") for how in ("", ", the best counted once")}
        for _ in range(n_homes):
            found: dict[bool, list[Comparison]] = {True: [], False: []}
            for _ in range(n_tasks):
                history = [first(generator)]
                for _ in range(N_VERSIONS):
                    history.append(updated(history[-1], 0.0, REDRAWN, generator))
                for counted, list_of in found.items():
                    list_of += comparisons(history[:-1], history[-1], counted=counted)
            for name in counts:
                rule, _, once = name.partition(",")
                counts[name] += refused(rule, found[not once], 2 * n_tasks)
        lines.append({"n_tasks": n_tasks, "n_versions": N_VERSIONS, **_shares(counts, n_homes)})
    return lines


def in_a_row(n_homes: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return how much of one task is lost in truth when small losses in a row are first refused.

    All items are right at first. The other tasks, which count for the number of comparisons, lose nothing.
    """
    lines = []
    for n_tasks in (1, 20):
        for redrawn in (0.0, REDRAWN):
            for rule in ("estimate", "point", "confident"):
                ends = [_lost_when_refused(rule, n_tasks, redrawn, generator) for _ in range(n_homes)]
                low, median, high = np.quantile(ends, (0.05, 0.5, 0.95)).tolist()
                line = {"n_tasks": n_tasks, "redrawn": redrawn, "rule": rule}
                lines.append({**line, "lost": {"median": median, "low": low, "high": high, "n": n_homes}})
    return lines


def _lost_when_refused(rule: str, n_tasks: int, redrawn: float, generator: np.random.Generator) -> float:
    """Return the true loss in the version before the first that is refused. An answer drawn anew keeps the truth."""
    answers = np.ones(N_ITEMS)
    history, share = [answers], 1.0
    for _ in range(LONGEST):
        next_share = share - SMALL_LOSS
        new = history[-1].copy()
        new[generator.permutation(np.flatnonzero(new))[: round(SMALL_LOSS * N_ITEMS)]] = 0.0
        drawn = generator.random(N_ITEMS) < redrawn
        new[drawn] = generator.random(int(drawn.sum())) < next_share
        if refused(rule, comparisons(history, new), n_tasks * (1 if len(history) == 1 else 2)):
            break
        history, share = [*history, new], next_share
    return round(1.0 - share, 6)


def _shares(counts: dict[str, int], n: int) -> dict[str, Any]:
    found = {name: wilson_interval(count, n) for name, count in counts.items()}
    return {name: {"share": i.value, "low": i.low, "high": i.high, "n": n} for name, i in found.items()}


def table(lines: Sequence[dict[str, Any]]) -> None:
    """Print lines as a table of shares, or of the loss at the end."""
    for line in lines:
        cells = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in
                 line.items() if not isinstance(value, dict)]  # fmt: skip
        numbers = [(name, value) for name, value in line.items() if isinstance(value, dict)]
        cells += [f"{name} {value.get('share', value.get('median')):.3f} "
                  f"[{value['low']:.3f}, {value['high']:.3f}]" for name, value in numbers]  # fmt: skip
        print("  " + " | ".join(cells))


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--homes", type=int, default=1000, help="simulated homes for each line")
    parser.add_argument("--out", type=Path, default=results_path("gate"))
    arguments = parser.parse_args()
    numbers = {}
    experiments = {
        "one update": one_update,
        "after many harmless updates": after_many,
        "small losses in a row": in_a_row,
    }
    for number, (name, experiment) in enumerate(experiments.items()):
        lines = experiment(arguments.homes, np.random.default_rng([SEED, number]))
        print(f"{name}: share refused" if number < 2 else f"{name}: true loss before the first refusal, median, 90%")
        table(lines)
        numbers[name] = lines
    config = {"homes": arguments.homes, "seed": SEED, "n_items": N_ITEMS, "share_right": SHARE_RIGHT}
    config |= {"redrawn": REDRAWN, "tolerance": TOLERANCE, "small_loss": SMALL_LOSS, "longest": LONGEST}
    write(arguments.out, config, numbers)


if __name__ == "__main__":
    main()
