"""Small recipes for whole runs, and what a run left behind in a form that can be compared."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from support.tasks import prompt_task

TIMES = ("train_s", "eval_s", "peak_memory_bytes")
LEARNER = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01}


def plain_recipe(strategies: list[Any], **changes: Any) -> dict[str, Any]:
    """Return a recipe for an MLP on three tasks of two digits."""
    return {
        "stream": {"name": "digits", "n_tasks": 3, "per_task": 48, "per_task_eval": 20},
        "model": {"name": "mlp", "options": {"hidden": [16]}},
        "learner": dict(LEARNER),
        "strategies": strategies,
        **changes,
    }


def language_recipe(strategies: list[Any], llama: Path, folder: Path, dropout: float = 0.0, **changes: Any) -> dict:
    """Return a recipe for a tiny causal LM on two files of prompts, which are written below `folder`."""
    entries = []
    for number in range(2):
        task = prompt_task(number, n_train=16, n_eval=6)
        paths = {"train": folder / f"{task.name}.train.jsonl", "eval": folder / f"{task.name}.eval.jsonl"}
        for path, rows in zip(paths.values(), (task.train, task.evaluation), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entries.append({"name": task.name, "max_new_tokens": 2, **{role: str(path) for role, path in paths.items()}})
    return {
        "stream": {"name": "files", "tasks": entries},
        "model": {"name": str(llama), "adapter": {"rank": 4, "dropout": dropout}},
        "learner": {**LEARNER, "batch_size": 4},
        "strategies": strategies,
        **changes,
    }


def reinforcement_recipe(strategies: list[Any], llama: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe for a tiny causal LM that is paid for how its answers begin, on two files of problems.

    A part of a mapping may be changed: `learner={"kl": 0.1}`.
    """
    recipe = language_recipe(strategies, llama, folder)
    for task in recipe["stream"]["tasks"]:
        task["verifier"] = "support.policy:starts_low"
    ppo = {"name": "ppo", "iterations": 2, "prompts": 4, "samples": 4, "learning_rate": 0.01}
    learner = {**ppo, **changes.pop("learner", {})}
    return {**recipe, "learner": learner, "warm_start": {"rows": 4, "epochs": 1}, "device": "cpu", **changes}


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log without times, memory and environment."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in (*TIMES, "env")} for line in lines]


def final_weights(out: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a seed's final state."""
    return load_file(out / "final" / f"seed-{seed}" / "tensors.safetensors")
