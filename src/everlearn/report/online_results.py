"""From an online run's log to its `results.json`: accuracy before, at the end and at its peak, by type, as a curve."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.errors import StateError, describe
from everlearn.evaluation.stats import (
    SHARE,
    Interval,
    highest_interval,
    paired_difference,
    seeds_interval,
    wilson_interval,
)
from everlearn.record import read_lines
from everlearn.report.results import plain

EPISODES = "episodes.jsonl"
EVALUATIONS = "evaluations.jsonl"
QUESTIONS = "questions.jsonl"  # answers to rows whose right answer comes later
ONLINE_SCHEMA = 1
CHANGE = (-1.0, 1.0)  # range of the difference of two shares
NOT_GIVEN = "not given"  # the group of held-out problems without a type, or a difficulty


@dataclass(frozen=True)
class OnlineRun:
    """What an online run's folder says. evaluations, tasks, episodes: {seed: lines in order}; ended: seeds that came to
    it; asked: question and right answer of each held-out problem, empty where they aren't kept."""  # fmt: skip

    folder: Path
    recipe: Mapping[str, Any]
    env: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]  # type and difficulty of each held-out problem
    evaluations: Mapping[int, list[dict[str, Any]]]
    tasks: Mapping[int, list[dict[str, Any]]]
    episodes: Mapping[int, list[dict[str, Any]]]
    ended: Sequence[int]
    asked: Sequence[Sequence[str]] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds that were begun, in the recipe's order."""
        return list(self.evaluations)


def read_online_run(folder: Path) -> OnlineRun:
    """Read an online run's log.

    Raises:
        StateError: if it is missing or damaged.
    """
    folder = Path(folder)
    found = read_lines(folder / EVALUATIONS)
    if not found:
        raise StateError(describe(str(folder / EVALUATIONS), "is empty", "", "Start the run again"))
    header, *lines = found
    if header.get("type") != "header":
        raise StateError(describe(str(folder / EVALUATIONS), "begins with no header", header, "Start the run again"))
    recipe = header["recipe"]
    seeds = recipe["seeds"] or [recipe["seed"] or 0]
    evaluations, tasks = (
        {seed: [line for line in lines if (line["type"], line["seed"]) == (kind, seed)] for seed in seeds}
        for kind in ("evaluation", "task")
    )
    episodes = read_lines(folder / EPISODES)
    begun = {seed: found for seed, found in evaluations.items() if found}
    return OnlineRun(
        folder, recipe, header["env"], header["items"], begun, tasks,
        {seed: [line for line in episodes if line["seed"] == seed] for seed in begun},
        [line["seed"] for line in lines if line["type"] == "end"],
        header.get("asked", ()),
    )  # fmt: skip


def online_results(run: OnlineRun) -> dict[str, Any]:
    """Return the content of `results.json`.

    `initial_accuracy`, `final_accuracy`, `peak_accuracy`, `improvement` and `backward_transfer` are means over seeds
    with a 95% interval over seeds and held-out problems, see `seeds_interval`; with one seed it is Wilson's over the
    problems, for the two differences that of the paired difference, for the peak that of the highest of all scorings.
    `lost_early` and `lost_late` count each problem once in their interval, however often it was lost; `n` is the number
    of problems. `backward_transfer` is null unless the types came one after another, and all but the last were
    scored at their end: from then to the last scoring, over the held-out problems of these types. A seed's `episode_s`
    is the time of its episodes, `task_s` that of the strategies' work where tasks begin and end.
    """
    seeds = [_seed_entry(run, seed) for seed in run.seeds]
    groups = {name: _over_seeds([entry[name] for entry in seeds]) for name in ("by_type", "by_difficulty")}
    names = ("initial_accuracy", "final_accuracy", "peak_accuracy")
    transfers = [entry["backward_transfer"] for entry in seeds]
    return plain(
        {
            "schema": ONLINE_SCHEMA,
            "kind": "online",
            "complete": len(run.ended) == len(run.recipe["seeds"] or [0]),
            "recipe": run.recipe,
            "env": run.env,
            "n": len(run.items),
            **{name: _combined([entry[name] for entry in seeds]) for name in names},
            "improvement": _combined([entry["improvement"] for entry in seeds], CHANGE),
            "backward_transfer": None if None in transfers else _combined(transfers, CHANGE),
            **groups,
            "curve": _combined_curve([entry["curve"] for entry in seeds]),
            "seeds": seeds,
        }
    )


def _seed_entry(run: OnlineRun, seed: int) -> dict[str, Any]:
    evaluations, episodes = run.evaluations[seed], run.episodes[seed]
    first, last = evaluations[0]["outcomes"], evaluations[-1]["outcomes"]
    answered_after = [line for line in episodes if line["correct_after"] is not None]
    instant = [line["correct_after"] and not line["correct"] for line in answered_after]
    half = len(evaluations) // 2
    return {
        "seed": seed,
        "complete": seed in run.ended,
        "n_episodes": len(episodes),
        "initial_accuracy": _share(first),
        "final_accuracy": _share(last),
        "peak_accuracy": _highest([line["outcomes"] for line in evaluations]),
        "improvement": _change(first, last),
        "backward_transfer": _backward_transfer(run, evaluations, stretches_of(episodes)),
        "by_type": _by(run, "type", evaluations),
        "by_difficulty": _by(run, "difficulty", evaluations),
        "curve": _curve(evaluations, range(len(run.items))),
        "lost_early": _lost(evaluations[: half + 1]),
        "lost_late": _lost(evaluations[half:]),
        "episodes_right_before": _share([line["correct"] for line in episodes]) if episodes else None,
        "instant_learning": _share(instant) if instant else None,
        "episode_s": sum(line["seconds"] for line in episodes),
        "task_s": sum(line["seconds"] for line in run.tasks[seed]),
        "evaluation_s": sum(line["seconds"] for line in evaluations),
        "strategy_bytes": evaluations[-1]["strategy_bytes"],
    }


def _lost(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how many of the held-out problems answered rightly at one scoring were answered wrongly at the next.

    A problem's scorings are no independent items: the interval is Wilson's for as many items as there are problems.
    """
    kept = [
        (place, after)
        for one, other in itertools.pairwise(evaluations)
        for place, (before, after) in enumerate(zip(one["outcomes"], other["outcomes"], strict=True))
        if before
    ]
    if not kept:
        return None
    n = len({place for place, _ in kept})
    return _entry(wilson_interval(n * sum(not after for _, after in kept) / len(kept), n), n)


def stretches_of(episodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return the first and last episode of each type, in order; empty unless each type came in one stretch."""
    stretches = {}
    for name, lines in itertools.groupby(episodes, key=lambda line: str(line["type"])):
        if name in stretches:
            return {}
        numbers = [line["episode"] for line in lines]
        if len(numbers) == 1:  # types that come by chance
            return {}
        stretches[name] = (numbers[0], numbers[-1])
    return stretches if len(stretches) > 1 else {}


def _backward_transfer(
    run: OnlineRun, evaluations: Sequence[Mapping[str, Any]], stretches: Mapping[str, tuple[int, int]]
) -> dict[str, Any] | None:
    """Return how the types learned earlier changed from the scoring at their end to the last one."""
    places = _places(run, "type")
    learned, kept = [], []
    for name, (_, end) in list(stretches.items())[:-1]:
        at_end = next((line["outcomes"] for line in evaluations if line["episode"] == end), None)
        if at_end is None:
            return None
        if name in places:
            learned += [at_end[i] for i in places[name]]
            kept += [evaluations[-1]["outcomes"][i] for i in places[name]]
    return _change(learned, kept) if learned else None


def _highest(scorings: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the highest share of right answers; its interval allows for its having been picked from so many."""

    def shares(level: float) -> list[Interval]:
        return [wilson_interval(sum(outcomes), len(outcomes), level) for outcomes in scorings]

    return _entry(highest_interval(shares, len(scorings)), len(scorings[0]))


def _change(before: Sequence[int], after: Sequence[int]) -> dict[str, Any]:
    change = paired_difference(before, after)
    return _entry(Interval(change.difference, change.low, change.high), change.n)


def _by(run: OnlineRun, key: str, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return accuracy at first, in the end and at every scoring, by the items' type or difficulty."""
    curves = {name: _curve(evaluations, places) for name, places in sorted(_places(run, key).items())}
    return {name: {"initial": curve[0], "final": curve[-1], "curve": curve} for name, curve in curves.items()}


def _places(run: OnlineRun, key: str) -> dict[str, list[int]]:
    """Return the places of the held-out problems of each type or difficulty."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(run.items):
        groups.setdefault(NOT_GIVEN if item[key] in ("", None) else str(item[key]), []).append(place)
    return groups


def _curve(evaluations: Sequence[Mapping[str, Any]], places: Sequence[int]) -> list[dict[str, Any]]:
    return [{"episode": line["episode"], **_share([line["outcomes"][i] for i in places])} for line in evaluations]


def _share(outcomes: Sequence[int | bool]) -> dict[str, Any]:
    return _entry(wilson_interval(sum(outcomes), len(outcomes)), len(outcomes))


def _entry(interval: Interval, n: int) -> dict[str, Any]:
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": n}


def _combined(entries: Sequence[Mapping[str, Any]], bounds: tuple[float, float] = SHARE) -> dict[str, Any]:
    """Return the mean over seeds with its interval; a single seed's entry stands for itself."""
    parts = [Interval(entry["value"], entry["low"], entry["high"]) for entry in entries]
    return {**_entry(seeds_interval(parts, bounds), entries[0]["n"]), "n_seeds": len(entries)}


def _over_seeds(by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not by_seed:
        return {}
    return {
        name: {
            **{end: _combined([by_name[name][end] for by_name in by_seed]) for end in ("initial", "final")},
            "curve": _combined_curve([by_name[name]["curve"] for by_name in by_seed]),
        }
        for name in by_seed[0]
    }


def _combined_curve(curves: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the mean curve over the seeds, as far as all of them went."""
    return [
        {"episode": points[0]["episode"], **_combined(points), "n_seeds": len(points)}
        for points in zip(*curves, strict=False)
    ]
