"""What a home is made with."""

import pytest

from everlearn.errors import ConfigError
from everlearn.home.settings import settings_from


def test_recipe_is_taken_without_what_only_a_stream_needs() -> None:
    recipe = {
        "stream": {"name": "arena"}, "seeds": [1, 2], "track": ["wandb"], "processes": 2, "seed": None,
        "model": {"name": "pocket", "adapter": {"rank": 4}}, "learner": {"epochs": 2}, "strategies": ["agem"],
    }  # fmt: skip
    settings = settings_from(recipe)
    assert (settings.model.adapter.rank, settings.build_learner().epochs, settings.seed) == (4, 2, 0)
    assert [strategy.name for strategy in settings.build_strategies()] == ["agem"]


def test_defaults_protect() -> None:
    assert [strategy.name for strategy in settings_from({}).build_strategies()] == ["replay", "ewc"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"modle": {}}, "Did you mean 'model'"),
        ({"learner": {"epoch": 2}}, r"learner\.epoch: is unknown"),
        ({"strategies": ["joint"]}, "a home doesn't keep all earlier training rows"),
        ({"strategies": ["cumulative"]}, "Use replay"),
        ({"seed": "1"}, r"seed: has the wrong type"),
    ],
)
def test_mistakes_are_named(recipe: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from(recipe)
