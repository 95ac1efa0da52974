from pathlib import Path

import pytest

from everlearn.errors import ConfigError
from everlearn.kinds.meta.recipe import load_meta_recipe

RECIPE = {
    "stream": {"name": "digits", "mode": "split", "n_tasks": 5, "scenario": "domain"},
    "model": {"name": "mlp"},
    "learner": {"algorithm": "reptile", "outer_lr": 0.5, "inner_lr": 0.2, "n_support": 7},
    "n_steps": 3,
}


@pytest.fixture(scope="module")
def names():
    content = {**RECIPE, "held_out": ["?"]}
    with pytest.raises(ConfigError, match="is no task of the stream") as caught:
        load_meta_recipe(content).tasks()
    return str(caught.value).partition("Tasks: ")[2].rstrip(".").split(", ")


def test_tasks_are_parted(names):
    learned_from, held_out = load_meta_recipe({**RECIPE, "held_out": names[1:3]}).tasks()
    assert [task.name for task in held_out] == names[1:3]
    assert [task.name for task in learned_from] == [names[0], *names[3:]]
    with pytest.raises(ConfigError, match="leaves no task to learn from"):
        load_meta_recipe({**RECIPE, "held_out": names}).tasks()


def test_the_control_is_plain_training_on_the_same_rows():
    recipe = load_meta_recipe({**RECIPE, "held_out": ["a"], "joint_lr": 0.002})
    assert recipe.learner_of("meta") is recipe.learner
    control = recipe.learner_of("joint")
    assert (control.algorithm, control.outer_lr, control.n_support) == ("joint", 0.002, 7)
    assert control.inner_lr == recipe.learner.inner_lr


@pytest.mark.parametrize("learner", [{"algorithm": "oml"}, {"inner_batch_size": 2}, {"algorithm": "mer"}, {}])
def test_each_start_takes_its_steps_on_the_same_rows(learner):
    recipe = load_meta_recipe({**RECIPE, "held_out": ["a"], "learner": learner})
    for start in ("plain", "joint"):
        control = recipe.learner_of(start)
        assert control.inner_rows == recipe.learner.inner_rows
        assert control.n_learned == recipe.learner.n_learned


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learner.algorithm=mamal", "Did you mean 'maml'"),
        ("learner.inner=1", r"learner\.inner: is unknown"),
        ("n_steps=0", "n_steps"),
        ("starts=[plan]", "Did you mean 'plain'"),
        ("starts=[]", "starts: is empty"),
        ("seeds=[1, 1]", "seeds: repeat"),
        ("evaluation.steps=[5, 1]", r"evaluation\.steps: don't rise"),
        ("evaluation.rates={adam: [0.1]}", "Did you mean 'adamw'"),
        ("evaluation.rates={sgd: []}", "are empty"),
        ("stream.name=digit", "Did you mean 'digits'"),
    ],
)
def test_a_bad_value_is_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_meta_recipe({**RECIPE, "held_out": ["a"]}, [override])


def test_the_projects_recipe_is_sound():
    load_meta_recipe(Path(__file__).parents[3] / "recipes" / "meta_arena.yaml")
