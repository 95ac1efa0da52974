"""The logs of a run by reinforcement, made up."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("add", "subtract")
N = 20  # held-out problems of a task


def outcomes(n_right: int, n: int = N) -> list[float]:
    """Return n outcomes of which the first n_right are right."""
    return [float(place < n_right) for place in range(n)]


def evaluation(
    seed: int, after: int, trained: str | None, right: Mapping[str, int], iteration: int | None = None, **numbers: float
) -> dict[str, Any]:
    """Return a measurement: so many of each task's likeliest answers are right, and two fewer at temperature 1."""
    tasks = {
        task: {"greedy": outcomes(n), "sampled": outcomes(max(0, n - 2)), "length": 9.5, "cut_off": 0.0}
        for task, n in right.items()
    }
    where = {"type": "evaluation", "seed": seed, "after": after, "trained": trained, "iteration": iteration}
    return {**where, "tasks": tasks, "dormant": 0.1, **numbers}


def iteration(seed: int, after: int, trained: str, number: int, **numbers: Any) -> dict[str, Any]:
    """Return an iteration's line."""
    line = {"type": "iteration", "seed": seed, "after": after, "trained": trained, "iteration": number}
    line |= {"success": 0.1 * number, "reward": 0.2, "signal": 0.5, "length": 9.0, "cut_off": 0.0, "n_answers": 8}
    line |= {"entropy": 1.0 / number, "gradient_norm": 0.5, "weight_change": 0.01 * number}
    return {**line, "seconds": {"draw": 2.0, "judge": 0.5, "learn": 1.0}, **numbers}


def policy_lines(schedule: Sequence[str], seed: int, n_iterations: int, gain: int, loss: int) -> list[dict[str, Any]]:
    """Return a seed's lines: each step gives its own task `gain` right answers and takes `loss` from the others.

    A warm start gives every task three, and has no iterations.
    """
    right = dict.fromkeys(TASKS, 2)
    lines, learned = [evaluation(seed, -1, None, right)], False
    for after, name in enumerate(schedule):
        if name.startswith("warm start"):
            right = {task: n + 3 for task, n in right.items()}
        else:
            learned = True
            for number in range(1, n_iterations + 1):
                lines.append(iteration(seed, after, name, number))
                if number == 2:
                    numbers = {"kl_to_start": 0.1 * (after + 0.5), "weight_change": 0.01 * (after + 0.5)}
                    lines.append(evaluation(seed, after, name, right, number, **numbers))
            right = {task: n + gain if task == name else max(0, n - loss) for task, n in right.items()}
        numbers = {"kl_to_start": 0.1 * (after + 1), "weight_change": 0.01 * (after + 1)} if learned else {}
        lines.append(evaluation(seed, after, name, right, **numbers))
    return lines


def write_policy_run(
    folder: Path,
    *,
    schedule: Sequence[str] = ("warm start", *TASKS),
    seeds: Sequence[int] = (0,),
    n_iterations: int = 3,
    gain: int = 8,
    loss: int = 2,
) -> Path:
    """Write the logs of a whole run."""
    own = {seed: policy_lines(schedule, seed, n_iterations, gain, loss) for seed in seeds}
    recipe = {"stream": {"name": "made_up"}}
    header = {
        "type": "header",
        "schema": 1,
        "recipe": recipe,
        "env": {},
        "tasks": {str(s): list(schedule) for s in seeds},
    }
    log: list[dict[str, Any]] = [header]
    rows = {name: 0 if name.startswith("warm start") else N for name in schedule}
    log += [{"type": "data", "task": name, "n": {"train": 50, "evaluation": n}} for name, n in rows.items()]
    for seed, lines in own.items():
        for line in lines:
            if line["type"] == "evaluation" and line["iteration"] is None:
                log += _scores(line)
                if line["after"] >= 0:
                    log.append({"type": "cost", "seed": seed, "after": line["after"], "trained": line["trained"]})
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("kind: reinforcement\n")
    write_lines(folder / "results.jsonl", log)
    write_lines(folder / "iterations.jsonl", [line for lines in own.values() for line in lines])
    return folder


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write a log."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _scores(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {name: line[name] for name in ("seed", "after", "trained")}
    found = []
    for task, answers in line["tasks"].items():
        value = float(np.mean(answers["greedy"]))
        ends = {"value": value, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1)}
        found.append(
            {
                "type": "score",
                **where,
                "task": task,
                "metric": "exact_match",
                **ends,
                "n": N,
                "outcomes": answers["greedy"],
            }
        )
    return found
