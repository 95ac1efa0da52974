"""What meta-learning showed: the starts beside each other, as numbers with intervals and as a picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from everlearn.evaluation.stats import Interval, mean_interval, outcome_interval, paired_difference
from everlearn.report.style import new_figure, run_style, tidy
from everlearn.report.table import Grid
from everlearn.report.text import estimate

Line = Mapping[str, Any]


def summarise_meta(lines: Sequence[Line]) -> dict[str, Any]:
    """Return means and 95% intervals by start and number of steps, and the differences of meta from the others.

    A seed's number is the mean over held-out tasks; intervals are Student's over seeds, on the same items. With one
    seed they are over items, and say nothing about other seeds.

    Returns:
        {metric, n_seeds, n_items (of a seed), scores: {start: {steps: {mean, low, high}}},
        differences: {"meta - plain": {steps: {mean, low, high}}}}.
    """
    seeds = sorted({line["seed"] for line in lines})
    starts = list(dict.fromkeys(line["start"] for line in lines))
    steps = sorted({line["steps"] for line in lines})
    outcomes = {(start, n, seed): _outcomes(lines, start, n, seed) for start in starts for n in steps for seed in seeds}
    others = [start for start in starts if start != "meta" and "meta" in starts]
    return {
        "metric": lines[0]["metric"],
        "n_seeds": len(seeds),
        "n_items": sum(len(items) for items in outcomes[starts[0], steps[0], seeds[0]]),
        "scores": {
            start: {str(n): _entry(_mean([outcomes[start, n, seed] for seed in seeds])) for n in steps}
            for start in starts
        },
        "differences": {
            f"meta - {other}": {
                str(n): _entry(
                    _difference(
                        [outcomes[other, n, seed] for seed in seeds], [outcomes["meta", n, seed] for seed in seeds]
                    )
                )
                for n in steps
            }
            for other in others
        },
    }


def meta_grid(summary: Mapping[str, Any]) -> Grid:
    """Return starts × numbers of gradient steps, and the differences below."""
    steps = list(next(iter(summary["scores"].values())))
    rows = [
        (name, *(" ".join(estimate(entry, signed)) for entry in by_steps.values()))
        for part, signed in (("scores", False), ("differences", True))
        for name, by_steps in summary[part].items()
    ]
    over = f"{summary['n_seeds']} seeds" if summary["n_seeds"] > 1 else "the items of one seed"
    note = f"{summary['metric']}, {summary['n_items']} held-out items a seed; 95% intervals over {over}."
    heads = (f"{n} step" if n == "1" else f"{n} steps" for n in steps)
    return Grid("Steps on a held-out task", ("start", *heads), tuple(rows), note)


def draw_meta(summary: Mapping[str, Any]) -> Figure:
    """Return the score against the number of gradient steps, a line for each start; bands are 95% intervals."""
    figure = new_figure(5.6, 3.8)
    axes = figure.subplots()
    for position, (start, by_steps) in enumerate(summary["scores"].items()):
        steps, style = [int(n) for n in by_steps], run_style(position)
        axes.plot(steps, [entry["mean"] for entry in by_steps.values()], label=start, markersize=5, **style)
        known = [
            (n, e["low"], e["high"]) for n, e in zip(steps, by_steps.values(), strict=True) if e["low"] is not None
        ]
        if known:
            axes.fill_between(*zip(*known, strict=True), color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="gradient steps on the held-out task", ylabel=summary["metric"].replace("_", " "), xticks=steps)
    tidy(axes)
    axes.legend(title="start", frameon=False)
    return figure


def _outcomes(lines: Sequence[Line], start: str, n_steps: int, seed: int) -> list[Sequence[float]]:
    """Return the outcomes of each held-out task."""
    wanted = (start, n_steps, seed)
    return [line["outcomes"] for line in lines if (line["start"], line["steps"], line["seed"]) == wanted]


def _mean(per_seed: Sequence[Sequence[Sequence[float]]]) -> Interval:
    if len(per_seed) == 1:
        return outcome_interval(_flat(per_seed[0]))
    return mean_interval([_mean_over_tasks(tasks) for tasks in per_seed])


def _difference(
    before: Sequence[Sequence[Sequence[float]]], after: Sequence[Sequence[Sequence[float]]]
) -> Interval:  # fmt: skip
    if len(before) == 1:
        found = paired_difference(_flat(before[0]), _flat(after[0]))
        return Interval(found.difference, found.low, found.high)
    pairs = zip(before, after, strict=True)
    return mean_interval([_mean_over_tasks(b) - _mean_over_tasks(a) for a, b in pairs])


def _mean_over_tasks(tasks: Sequence[Sequence[float]]) -> float:
    return sum(sum(items) / len(items) for items in tasks) / len(tasks)


def _flat(tasks: Sequence[Sequence[float]]) -> list[float]:
    return [outcome for items in tasks for outcome in items]


def _entry(found: Interval) -> dict[str, float | None]:
    low, high = (None if math.isnan(end) else end for end in (found.low, found.high))
    return {"mean": found.value, "low": low, "high": high}
