"""The demo: a language model forgets, everlearn prevents it, joint training tells how good it could be."""

from pathlib import Path
from typing import Any

from everlearn.config import load_recipe
from everlearn.errors import ConfigError, check_choice, describe
from everlearn.listener import Listener
from everlearn.report.html import write_report
from everlearn.runs import run_or_resume

SETTINGS: dict[str, dict[str, Any]] = {
    "pocket": {
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
    },
    "smollm2": {
        "stream": {
            "name": "arena",
            "difficulty": 1,
            "n_train": 88,
            "n_validation": 0,
            "n_eval": 50,
            "types": ["math", "logic", "sequence"],
            "order": ["math", "logic", "sequence"],
        },
        "model": {"name": "smollm2", "chat": "never", "adapter": {"name": "lora", "rank": 16}},
        "learner": {
            "name": "sft",
            "epochs": 4,
            "batch_size": 8,
            "learning_rate": 1.0e-3,
            "schedule": "linear",
            "warmup": 0.1,
            "precision": "bf16",
            "early_stopping": False,
        },
    },
}
REPLAY_EWC = [{"name": "replay", "capacity": 1000, "ratio": 1.0}, {"name": "ewc", "strength": 100.0}]
RUNS: dict[str, dict[str, list[Any]]] = {
    "pocket": {"plain": [], "replay_ewc": REPLAY_EWC, "joint": ["joint"]},
    "smollm2": {"plain": [], "replay_ewc": REPLAY_EWC},
}


def run_demo(out: Path, seed: int, listener: Listener, model: str = "pocket") -> dict[str, Path]:
    """Run a model's runs below `out`, each in its folder, and write the report beside them.

    What a demo that was stopped has done already is kept.

    Args:
        model: pocket, or smollm2: a real model, without joint training.

    Returns:
        {name: run folder}.

    Raises:
        ConfigError: if there is no demo of the model, or the folder holds a demo with another model or seed.
    """
    check_choice("demo: model", model, tuple(SETTINGS))
    folders = {name: out / name for name in RUNS[model]}
    for name, strategies in RUNS[model].items():
        recipe = {**SETTINGS[model], "strategies": strategies, "seed": seed}
        _check_same(folders[name], model, seed)
        listener.part(name)
        run_or_resume(recipe, folders[name], listener=listener)
    write_report(folders, out)
    return folders


def _check_same(folder: Path, model: str, seed: int) -> None:
    if not (folder / "recipe.yaml").exists():
        return
    begun = load_recipe(folder / "recipe.yaml")
    if (begun.model.name, begun.seed) != (SETTINGS[model]["model"]["name"], seed):
        got = {"model": begun.model.name, "seed": begun.seed}
        raise ConfigError(describe("demo", "the folder holds another demo", got, "Name another folder: --out"))
