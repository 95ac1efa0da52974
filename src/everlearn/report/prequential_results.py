"""From the log of an online run over labelled rows to its `results.json`: scores of rows before they were learned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.errors import StateError, describe
from everlearn.evaluation.prequential import SCORES
from everlearn.evaluation.stats import SHARE, Interval, seeds_interval
from everlearn.record import read_lines
from everlearn.report.online_results import EVALUATIONS, ONLINE_SCHEMA
from everlearn.report.results import plain

PARTS = ("whole", "faded")


@dataclass(frozen=True)
class PrequentialRun:
    """What the folder of an online run over labelled rows says.

    scorings, drifts: {seed: lines in order}; ended: seeds that came to their end.
    """

    folder: Path
    recipe: Mapping[str, Any]
    env: Mapping[str, Any]
    scorings: Mapping[int, list[dict[str, Any]]]
    drifts: Mapping[int, list[int]]
    ended: Sequence[int]


def is_prequential(folder: Path) -> bool:
    """Tell whether an online run is over labelled rows.

    Raises:
        StateError: if its log is missing or damaged.
    """
    return _header(read_lines(folder / EVALUATIONS), folder)["recipe"].get("source", {}).get("kind") in SCORES


def read_prequential_run(folder: Path) -> PrequentialRun:
    """Read the log of an online run over labelled rows.

    Raises:
        StateError: if it is missing or damaged.
    """
    lines = read_lines(folder / EVALUATIONS)
    header = _header(lines, folder)
    recipe = header["recipe"]
    seeds = recipe["seeds"] or [recipe["seed"] or 0]

    def of(kind: str, seed: int) -> list[dict[str, Any]]:
        return [line for line in lines if line["type"] == kind and line["seed"] == seed]

    scorings = {seed: found for seed in seeds if (found := of("prequential", seed))}
    return PrequentialRun(
        folder, recipe, header["env"], scorings,
        {seed: [line["episode"] for line in of("drift", seed)] for seed in scorings},
        [line["seed"] for line in lines if line["type"] == "end"],
    )  # fmt: skip


def prequential_results(run: PrequentialRun) -> dict[str, Any]:
    """Return the content of `results.json`.

    `score` is that of all rows, each taken before it was learned: `accuracy` of labels, `entity_f1` of tags, of numbers
    `mean_error`; a mean over seeds with its interval, with one seed over the rows, which are taken as independent.
    `whole` and `faded` hold all scores at the end, means over seeds.
    """
    seeds = [_seed_entry(run, seed) for seed in run.scorings]
    intervals = [Interval(*(_or_nan(seed["score"][end]) for end in ("value", "low", "high"))) for seed in seeds]
    bounds = SHARE if run.recipe["source"]["kind"] != "score" else (0.0, math.inf)
    score = seeds_interval(intervals, bounds) if seeds else None
    return plain(
        {
            "schema": ONLINE_SCHEMA,
            "kind": "online",
            "rows": run.recipe["source"]["kind"],
            "complete": len(run.ended) == len(run.recipe["seeds"] or [0]),
            "recipe": run.recipe,
            "env": run.env,
            "n": seeds[0]["n"] if seeds else 0,
            "score": None if score is None else {
                "name": seeds[0]["score"]["name"], "value": score.value, "low": _or_none(score.low),
                "high": _or_none(score.high), "n_seeds": len(seeds),
            },
            **{part: _means([seed[part] for seed in seeds]) for part in PARTS},
            "seeds": seeds,
        }
    )  # fmt: skip


def _seed_entry(run: PrequentialRun, seed: int) -> dict[str, Any]:
    scorings = run.scorings[seed]
    last = scorings[-1]
    return {
        "seed": seed,
        "complete": seed in run.ended,
        "n": last["episode"],
        "score": last["main"],
        **{part: last[part] for part in PARTS},
        "labels": last["labels"],
        "drifts": run.drifts[seed],
        "curve": [
            {name: line[name] for name in ("episode", *PARTS, "loss", "learning_rate", "seconds")} for line in scorings
        ],
        **{name: last[name] for name in ("n_waiting", "n_given_up", "n_unmatched", "strategy_bytes")},
        "seconds": last["seconds"],
    }


def _header(lines: Sequence[Mapping[str, Any]], folder: Path) -> Mapping[str, Any]:
    if not lines or lines[0].get("type") != "header":
        raise StateError(describe(str(folder / EVALUATIONS), "begins with no header", lines[:1], "Start the run again"))
    return lines[0]


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]} if parts else {}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
