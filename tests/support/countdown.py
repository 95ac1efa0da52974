"""A small recipe of reinforcement on Countdown that can be exported to verl."""

from typing import Any

from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
from everlearn.runs import read_recipe

RECIPE = {
    "kind": "reinforcement",
    "stream": {"name": "countdown", "groups": ["0", "+*"], "n_train": 25, "n_eval": 5, "rounds": 2},
    "model": {"name": "some/model", "adapter": {"name": "full"}},
    "learner": {
        "name": "ppo", "epochs": 3, "prompts": 8, "samples": 4, "max_new_tokens": 64, "advantage": "gae",
        "critic": "model", "learning_rate": 1e-6, "critic_learning_rate": 1e-5, "precision": "bf16",
        "stop_success": None,
    },
}  # fmt: skip


def recipe_with(**changes: Any) -> ReinforcementRecipe:
    """Return the recipe, with changes: those of stream, model and learner are made key by key."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in RECIPE.items()}
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return read_recipe(content)[1]
