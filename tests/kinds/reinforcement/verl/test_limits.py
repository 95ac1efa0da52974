"""What verl can't do is refused with a sentence."""

from dataclasses import replace

import pytest

from everlearn.errors import ConfigError
from everlearn.kinds.reinforcement.verl.limits import check_recipe
from support.countdown import recipe_with


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ["ewc"]}, r"strategies: .*train with everlearn run"),
        ({"warm_start": {"rows": 5}}, r"warm_start: "),
        ({"evaluation": {"abilities": ["self"]}}, r"evaluation\.abilities: "),
        ({"seeds": [0, 1]}, r"seeds: .*--set seed=0"),
        ({"stream": {"per_task": 4}}, r"stream\.per_task: "),
        ({"stream": {"split_rounds": True}}, r"stream\.split_rounds: "),
        ({"model": {"name": "pocket"}}, r"model\.name: .*a hub id"),
        ({"model": {"name": "tiny.gguf"}}, r"model\.name: "),
        ({"model": {"chat": "never"}}, r"model\.chat: .*Write auto"),
        ({"model": {"quantization": "4bit", "adapter": {"name": "lora"}}}, r"model\.quantization: .*Leave it at None"),
        ({"model": {"adapter": {"name": "prompt"}}}, r"model\.adapter\.name: .*Write full or lora"),
        ({"model": {"adapter": {"name": "lora", "dropout": 0.1}}}, r"model\.adapter\.dropout: .*Leave it at 0\.0"),
        ({"learner": {"learning_rate": "auto"}}, r"learner\.learning_rate: .*Give a number"),
        ({"learner": {"reward": "builtins:len"}}, r"learner\.reward: .*countdown, countdown_attempts"),
        ({"learner": {"critic": "head"}}, r"learner\.critic: .*critic: model"),
        ({"learner": {"precision": "no"}}, r"learner\.precision: .*bf16"),
        ({"learner": {"kl": 0.1, "reference": "last"}}, r"learner\.reference: .*Write start"),
        ({"learner": {"stop_success": 0.9}}, r"learner\.stop_success: .*Write null"),
        ({"learner": {"advantage": "group"}}, r"learner\.stop_signal: .*Write null"),
        ({"learner": {"minibatches": 3}}, r"learner\.minibatches: doesn't divide 8\. Got 3"),
        ({"processes": 5}, r"processes: doesn't divide 32\. Got 5"),
    ],
)
def test_it_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_recipe(recipe_with(**changes))


def test_supervised_learning_is_refused():
    with pytest.raises(ConfigError, match=r"learner\.name: can't be exported to verl\. Got 'sft'"):
        check_recipe(replace(recipe_with(), learner={"name": "sft"}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learner": {"advantage": "rloo", "critic": "head", "stop_signal": None}},  # without gae there is no critic
        {"learner": {"kl": 0.1, "reference": "base"}},
        {"model": {"adapter": None}},
    ],
)
def test_it_is_not(changes):
    check_recipe(recipe_with(**changes))


def test_the_verifier_of_files_is_to_be_countdown(problems):
    stream = {"name": "files", "paths": [str(problems)], "max_new_tokens": 8}
    check_recipe(replace(recipe_with(learner={"reward": "countdown"}), stream=stream))
    with pytest.raises(ConfigError, match=r"stream\.verifier: .*Got None\. Write verifier: countdown"):
        check_recipe(replace(recipe_with(learner={"reward": "verifier"}), stream=stream))
