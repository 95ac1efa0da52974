import pytest

from everlearn.config import load_recipe
from everlearn.errors import ConfigError
from everlearn.evaluation.probes import check_abilities


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["selfs"], r"is no ability\. Got 'selfs'\. Did you mean 'self'\?.*\.jsonl"),
        (["self", "a.pdf"], "is no ability. Got 'a.pdf'"),
        (["a\0.txt"], "is no ability"),
        (["arena", "self", "arena"], "names an ability twice"),
    ],
)
def test_what_is_no_ability_is_refused(names, message):
    with pytest.raises(ConfigError, match=f"here: {message}"):
        check_abilities("here", names)


def test_a_recipe_is_checked_before_anything_is_read():
    recipe = {"stream": {"name": "arena"}, "evaluation": {"abilities": ["self", "prose.TXT"]}}
    assert load_recipe(recipe).evaluation.abilities == ["self", "prose.TXT"]
    with pytest.raises(ConfigError, match=r"evaluation.abilities: is no ability"):
        load_recipe(recipe, ["evaluation.abilities=[areana]"])
