"""A real language model learns a problem online: the worked steps, in the format of a conversation."""

import json

import pytest

from everlearn.kinds.online import load_online_recipe
from everlearn.runs import run


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
@pytest.mark.filterwarnings("ignore:task 'stream'. prompts and completions are put as turns:UserWarning")
def test_smollm2_learns_the_steps_of_a_problem_and_answers_by_them(smollm2, tmp_path):
    content = {
        "source": {"name": "arena", "types": ["math"], "difficulty": 1}, "model": {"name": smollm2},
        "learner": {"learning_rate": 2e-3, "updates": 6}, "episodes": 1, "evaluation": {"n": 1, "interval": 1},
        "device": "cpu",
    }  # fmt: skip
    run(load_online_recipe(content), tmp_path / "run")
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()]
    assert line["after"].endswith(f"\nAnswer: {line['answer']}")
    assert line["correct_after"]
    assert line["before"] != line["after"]
