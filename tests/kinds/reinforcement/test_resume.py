"""A run that is paused goes on to the same end, bit for bit, whatever it keeps beside the weights."""

import json
import signal

import pytest

from everlearn.errors import Paused
from everlearn.listener import Listener
from everlearn.runs import resume, run
from support.recipes import final_weights, lines_of, reinforcement_recipe
from support.runs import assert_same

GAE = {"advantage": "gae", "updates": 2}
SETTINGS = {
    "a critic's head": GAE,
    "a critic of its own": {**GAE, "critic": "model"},
    "kl to the start": {"kl": 0.1},
    "kl to the last task": {"kl": 0.1, "reference": "last"},
    "kl to the base": {"kl": 0.1, "reference": "base"},
    "entropy": {"entropy": 0.1},
    "entropy at a target": {"entropy": 0.1, "entropy_target": 5.0, "minibatches": 2},
    "kept answers": {"replayed": "answer", "advantage": "rloo"},
}


class PausingAt(Listener):
    """Asks for a pause, as Ctrl-C does, where an iteration of a task ends: after a step, or in its measurement."""

    def __init__(self, left):
        self.left = left

    def step(self, done, loss):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)


def told(out):
    lines = [json.loads(text) for text in (out / "iterations.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_on_to_the_same_end(name, llama, tmp_path):
    recipe = reinforcement_recipe(
        ["replay"], llama, tmp_path, learner=SETTINGS[name], evaluation={"interval": 1}, checkpoint={"every_s": None}
    )
    run(recipe, tmp_path / "whole")
    with pytest.raises(Paused):
        run(recipe, tmp_path / "run", listener=PausingAt(2))  # in the first task, behind the warm start
    with pytest.raises(Paused):
        resume(tmp_path / "run", listener=PausingAt(2))  # in the second one
    resume(tmp_path / "run")
    assert_same(final_weights(tmp_path / "run"), final_weights(tmp_path / "whole"))
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "whole")


@pytest.mark.parametrize("when", ["start", "task"])
def test_a_warm_start_comes_where_it_is_told_to_and_is_no_task(when, llama, tmp_path):
    recipe = reinforcement_recipe(["replay"], llama, tmp_path, warm_start={"rows": 4, "epochs": 1, "when": when})
    run(recipe, tmp_path / "run")
    header = lines_of(tmp_path / "run")[0]
    names = ["warm start", "add_0", "add_1"]
    if when == "task":
        names = ["warm start of add_0", "add_0", "warm start of add_1", "add_1"]
    assert header["tasks"]["0"] == names
    costs = [line for line in lines_of(tmp_path / "run") if line["type"] == "cost"]
    assert [set(line["strategy_bytes"]) for line in costs] == [set() if "warm" in n else {"replay"} for n in names]
