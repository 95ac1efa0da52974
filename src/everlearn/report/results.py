"""From a run's log to `results.json`: the matrices, the stream metrics with their intervals, the cost, the summary."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.evaluation.stats import Interval
from everlearn.report.abilities import seed_entry, summary_entry
from everlearn.report.matrix import NEVER, SeedMatrix, build_matrix
from everlearn.report.records import SCHEMA, Run, StepCost, read_run
from everlearn.report.summary import stream_metrics, summarise
from everlearn.state import write_json

RESULTS = "results.json"


def write_results(run_folder: Path) -> dict[str, Any]:
    """Read a run folder's log, write `results.json` beside it and return its content (docs/results-schema.md).

    A run that was stopped is summed up over the tasks learned so far and says `"complete": false`.

    Raises:
        StateError: if the log is missing or damaged.
    """
    results = build_results(read_run(run_folder))
    write_json(Path(run_folder) / RESULTS, results)
    return results


def build_results(run: Run) -> dict[str, Any]:
    """Return the content of `results.json` for a run; NaN becomes null."""
    matrices = [build_matrix(run, seed) for seed in run.schedule]
    found = {matrix.seed: stream_metrics(matrix) for matrix in matrices}
    return plain(
        {
            "schema": SCHEMA,
            "complete": all(matrix.complete for matrix in matrices),
            "recipe": run.recipe,
            "env": run.env,
            "data": list(run.data),
            "seeds": [
                {**_seed_entry(matrix, found[matrix.seed], run.costs), **seed_entry(run, matrix.seed)}
                for matrix in matrices
            ],
            "summary": summarise(matrices, found),
            **summary_entry(run, _used(matrices)),
        }
    )


def _used(matrices: Sequence[SeedMatrix]) -> list[int]:
    """Return the seeds that a summary is of: the complete ones if there are any."""
    complete = [matrix.seed for matrix in matrices if matrix.complete]
    return complete or [matrix.seed for matrix in matrices]


def total_cost(costs: Iterable[StepCost]) -> dict[str, Any]:
    """Return one seed's cost: times, steps and tokens summed, the highest memory, bytes and facts as at the end."""
    steps = sorted(costs, key=lambda step: step.after)
    return {
        "train_s": sum(step.cost.train_s for step in steps),
        "eval_s": sum(step.cost.eval_s for step in steps),
        "n_steps": sum(step.cost.n_steps for step in steps),
        "n_tokens": sum(step.cost.n_tokens for step in steps),
        "peak_memory_bytes": max((step.cost.peak_memory_bytes for step in steps), default=0),
        "strategy_bytes": dict(steps[-1].cost.strategy_bytes) if steps else {},
        "strategy_facts": dict(steps[-1].cost.strategy_facts) if steps else {},
    }


def _seed_entry(matrix: SeedMatrix, found: Mapping[str, Interval | None], costs: Iterable[StepCost]) -> dict[str, Any]:
    own = sorted((cost for cost in costs if cost.seed == matrix.seed), key=lambda cost: cost.after)
    steps = [{"after": step.after, "trained": step.trained, **_passes(step), **total_cost([step])} for step in own]
    return {
        "seed": matrix.seed,
        "complete": matrix.complete,
        "n_steps_done": matrix.last_step + 1,
        "schedule": list(matrix.schedule),
        "tasks": list(matrix.tasks),
        "task_metrics": [matrix.metric_names.get(task) for task in matrix.tasks],
        "learned_at": [None if step == NEVER else step for step in matrix.learned_at],
        "matrix": matrix.values.tolist(),
        "low": matrix.low.tolist(),
        "high": matrix.high.tolist(),
        "n": [[None if np.isnan(count) else int(count) for count in row] for row in matrix.n],
        "baseline": matrix.baseline.tolist(),
        "metrics": {name: interval.value if interval else None for name, interval in found.items()},
        "intervals": {
            name: {"low": interval.low, "high": interval.high} if interval else None for name, interval in found.items()
        },
        "cost": {"total": total_cost(own), "steps": steps},
    }


def _passes(step: StepCost) -> dict[str, Any]:
    return {
        name: vars(step.cost)[name] for name in ("mean_loss", "n_epochs", "best_epoch", "learning_rate", "batch_size")
    }


def plain(value: Any) -> Any:
    """Return the value with NaN and infinities replaced by None, ready for strict JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
