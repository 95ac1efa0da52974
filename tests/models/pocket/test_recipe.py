import json
from importlib import resources
from pathlib import Path

import pytest

from everlearn.errors import ConfigError
from everlearn.models.pocket.recipe import load_pocket_recipe


def test_the_shipped_recipe_makes_a_network_of_the_shipped_size():
    shipped = load_pocket_recipe(Path(__file__).parents[3] / "recipes" / "pocket.yaml")
    config = json.loads((resources.files("everlearn.models") / "pocket" / "config.json").read_text())
    assert shipped.vocabulary_size == config["vocab_size"]
    assert shipped.hidden_size == config["hidden_size"]
    assert shipped.intermediate_size == config["intermediate_size"]
    assert shipped.n_layers == config["num_hidden_layers"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 2}, "n_layer"),
        ({"n_layers": "two"}, "n_layers"),
        ({"n_layers": 0}, "n_layers"),
        ({"opening_documents": 0}, "opening_documents"),
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
