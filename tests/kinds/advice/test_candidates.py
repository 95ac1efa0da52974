"""What `--stream` and `--strategies` stand for."""

import pytest
import yaml

from everlearn.errors import ConfigError
from everlearn.kinds.advice.candidates import BASE, choose_candidates, completed, content_of

TENSOR, CAUSAL = ("tensor", "full", "task_head"), ("causal", "lora")


def names(candidates):
    return [candidate.name for candidate in candidates]


def test_a_streams_name():
    content = content_of(["digits"], model="mlp", settings=["stream.n_tasks=3", "learner.epochs=2"], seed=4)
    assert content == {
        "stream": {"name": "digits", "n_tasks": 3},
        "model": {"name": "mlp"},
        "learner": {"name": "sft", "epochs": 2},
        "seed": 4,
    }


def test_a_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    recipe = {"stream": {"name": "digits"}, "model": {"name": "mlp", "options": {"hidden": [8]}}, "seeds": [3, 4]}
    path.write_text(yaml.safe_dump(recipe))
    assert content_of([str(path)]) == {**recipe, "learner": {"name": "sft"}}
    changed = content_of([str(path)], model="other", seed=1)
    assert changed["model"] == {"name": "other", "options": {"hidden": [8]}}
    assert changed["seed"] == 1
    assert "seeds" not in changed


def test_what_a_recipe_leaves_open():
    assert completed({"stream": {"name": "digits"}}) == {
        "stream": {"name": "digits"}, "model": {"name": "mlp"}, "learner": {"name": "sft"}
    }  # fmt: skip
    told = {"seed": 4, "stream": {"name": "arena"}, "learner": {"epochs": 2}}
    assert completed(told) == {**told, "model": {"name": "pocket"}, "learner": {"name": "sft", "epochs": 2}}
    assert "name" not in told["learner"]


def test_files_and_folders(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    paths = [str(tmp_path / "a.jsonl"), str(tmp_path)]
    assert content_of(paths)["stream"] == {"name": "files", "paths": paths}
    assert content_of(paths)["model"] == {"name": "pocket"}


def test_what_is_not_there():
    with pytest.raises(ConfigError, match=r"--stream: is no file .*Did you mean 'digits'"):
        content_of(["digit"])
    with pytest.raises(ConfigError, match=r"nowhere.jsonl"):
        content_of(["nowhere.jsonl"])
    with pytest.raises(ConfigError, match=r"nowhere.yaml: can't be read"):
        content_of(["nowhere.yaml"])


def test_the_usual_ones_suit_the_model():
    assert names(choose_candidates(None, [], TENSOR))[:2] == ["none", "replay"]
    assert names(choose_candidates(None, [], CAUSAL)) == [*BASE, "olora", "joint"]
    assert "olora" not in names(choose_candidates(None, [], ("causal", "full")))
    for traits in (("classify", "lora", "task_head"), ("tag", "full", "shared_head")):
        assert set(BASE) <= set(names(choose_candidates(None, [], traits)))


def test_options_and_the_combination_come_from_the_recipe():
    own = [{"name": "ewc", "strength": 5}, "replay", "lwf"]
    found = {candidate.name: candidate for candidate in choose_candidates(None, own, TENSOR)}
    assert found["replay+ewc"].strategies == ("replay", {"name": "ewc", "strength": 5})
    assert found["ewc+replay+lwf"].strategies == ({"name": "ewc", "strength": 5}, "replay", "lwf")
    assert len(choose_candidates(None, ["ewc", "replay"], TENSOR)) == len(choose_candidates(None, [], TENSOR))


def test_named_ones_stand_between_plain_and_joint():
    found = choose_candidates(["lwf", "ewc + replay", "joint", "lwf"], [], TENSOR)
    assert names(found) == ["none", "lwf", "ewc+replay", "joint"]
    assert [candidate.cost for candidate in found] == [1.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("named", "traits", "message"),
    [
        (["replay+ewcc"], TENSOR, "Did you mean 'ewc'"),
        (["olora"], ("causal", "full"), "no LoRA"),
        (["none", "joint"], TENSOR, "nothing to compare"),
        (["joint+replay"], TENSOR, "can't stand beside"),
        (["replay+replay"], TENSOR, "stands twice"),
    ],
)
def test_what_is_refused(named, traits, message):
    with pytest.raises(ConfigError, match=message):
        choose_candidates(named, [], traits)
