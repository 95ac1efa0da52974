from pathlib import Path

import pytest

from everlearn.errors import ConfigError
from everlearn.models.pocket.recipe import PocketRecipe, load_pocket_recipe


def test_the_shipped_recipe_is_the_default():
    shipped = load_pocket_recipe(Path(__file__).parents[3] / "recipes" / "pocket.yaml")
    assert shipped == PocketRecipe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 2}, "n_layer"),
        ({"n_layers": "two"}, "n_layers"),
        ({"n_layers": 0}, "n_layers"),
        ({"optimizer": "mun"}, "Did you mean 'muon'"),
        ({"hidden_size": 33}, "multiple of n_heads"),
        ({"batch_tokens": 90}, "batch_tokens"),
        ({"learning_rates": [[0.5, 0.1]]}, "learning_rates"),
        ({"learning_rates": [[0, 0.1], [0.9, 0.1], [0.5, 0.1]]}, "learning_rates"),
        ({"learning_rates": [[0, -0.1]]}, "learning_rates"),
    ],
)
def test_a_wrong_recipe_is_refused(tiny_file, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_pocket_recipe(tiny_file(**changes))
