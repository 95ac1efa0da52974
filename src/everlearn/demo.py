"""The demo: a language model forgets, everlearn prevents it, joint training tells how good it could be."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from everlearn.report.html import write_report
from everlearn.runs import Listener, run_or_resume

SETTING: dict[str, Any] = {
    "stream": {
        "name": "arena",
        "difficulty": 1,
        "n_train": 160,
        "n_validation": 20,
        "n_eval": 100,
        "order": ["math", "sequence", "logic", "comparison", "causal"],
    },
    "model": {"name": "pocket", "adapter": {"name": "lora", "rank": 16}},
    "learner": {
        "name": "sft",
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 4.0e-3,
        "schedule": "linear",
        "warmup": 0.1,
        "precision": "bf16",
        "early_stopping": False,
        "group_by_length": False,
    },
}
RUNS: dict[str, list[Any]] = {
    "plain": [],
    "replay_ewc": [{"name": "replay", "capacity": 1000, "ratio": 1.0}, {"name": "ewc", "strength": 100.0}],
    "joint": ["joint"],
}


def run_demo(out: Path, seed: int, listen: Callable[[str], AbstractContextManager[Listener]]) -> dict[str, Path]:
    """Run the three runs below `out`, each in its folder, and write the report beside them.

    What a demo that was stopped has done already is kept.

    Args:
        listen: name of a run -> its listener.

    Returns:
        {name: run folder}.
    """
    folders = {name: out / name for name in RUNS}
    for name, strategies in RUNS.items():
        with listen(name) as listener:
            run_or_resume({**SETTING, "strategies": strategies, "seed": seed}, folders[name], listener=listener)
    write_report(folders, out)
    return folders
