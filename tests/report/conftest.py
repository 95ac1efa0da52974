"""Made-up runs in the format of `results.jsonl`, realistic enough to look at."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest


def score_line(seed: int, after: int, trained: str | None, task: str, outcomes: Sequence[float]) -> dict:
    """Return one score line with plain bounds."""
    value = float(np.mean(outcomes))
    return {
        "type": "score",
        "seed": seed,
        "after": after,
        "trained": trained,
        "task": task,
        "metric": "accuracy",
        "value": value,
        "low": max(0.0, value - 0.1),
        "high": min(1.0, value + 0.1),
        "n": len(outcomes),
        "metrics": {"accuracy": value},
        "outcomes": list(outcomes),
    }


def cost_line(seed: int, after: int, trained: str | None, strategy_bytes: Mapping[str, int]) -> dict:
    """Return one cost line."""
    cost = {"train_s": 12.5 + after, "eval_s": 2.0, "n_steps": 50, "n_tokens": 64_000, "peak_memory_bytes": 3 * 10**8}
    step = {"type": "cost", "seed": seed, "after": after, "trained": trained, **cost}
    return {**step, "strategy_bytes": dict(strategy_bytes), "mean_loss": 1.25}


def header_line(schedule: Mapping[int, Sequence[str]], recipe: Mapping | None = None) -> dict:
    """Return the first line of a log."""
    tasks = {str(seed): list(names) for seed, names in schedule.items()}
    recipe = dict(recipe or {"stream": {"name": "made_up"}})
    return {"type": "header", "schema": 1, "recipe": recipe, "env": {"python": "3"}, "tasks": tasks}


def write_log(folder: Path, lines: Sequence[Mapping]) -> Path:
    """Write the lines as a run folder's log and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def stream_lines(schedule: Mapping[int, Sequence[str]], forget: float, learn: float, n: int, kept: Mapping) -> list:
    """Return the lines of a run whose tasks reach `learn` and lose the share `forget` of it at each later step."""
    lines = [header_line(schedule)]
    for seed, names in schedule.items():
        rng = np.random.default_rng(seed)
        luck = {name: rng.random(n) for name in names}  # one hard or easy draw an item: outcomes pair across steps
        level = {name: 0.2 + 0.1 * rng.random() for name in names}
        lines += [score_line(seed, -1, None, name, _outcomes(luck[name], level[name])) for name in names]
        for step, name in enumerate(names):
            for earlier in names[:step]:
                level[earlier] = 0.2 + (level[earlier] - 0.2) * (1 - forget)
            level[name] = learn + 0.08 * rng.standard_normal()
            lines += [score_line(seed, step, name, task, _outcomes(luck[task], level[task])) for task in names]
            lines.append(cost_line(seed, step, name, kept))
    return lines


def joint_lines(schedule: Mapping[int, Sequence[str]], learn: float, n: int) -> list:
    """Return the lines of joint training: one step named `joint`, after which every task is scored."""
    recipe = {"stream": {"name": "made_up"}, "strategies": ["joint"]}
    lines = [header_line({seed: ["joint"] for seed in schedule}, recipe)]
    for seed, names in schedule.items():
        rng = np.random.default_rng(seed)
        luck = {name: rng.random(n) for name in names}
        lines += [score_line(seed, 0, "joint", name, _outcomes(luck[name], learn)) for name in names]
        lines.append(cost_line(seed, 0, "joint", {}))
    return lines


def _outcomes(luck: np.ndarray, level: float) -> list[float]:
    return [float(value) for value in luck < level]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a made-up run of `tasks` and `seeds` and returns its folder."""

    def make(name: str, tasks: Sequence[str], seeds: int = 1, forget: float = 0.2, n: int = 60, **kept: int) -> Path:
        schedule = {seed: list(tasks) for seed in range(seeds)}
        return write_log(tmp_path / name, stream_lines(schedule, forget, 0.85, n, kept))

    return make
