"""The reward's file: it judges as the reward of that name, and nothing of ours is imported."""

import subprocess
import sys

import pytest

from everlearn.kinds.reinforcement.verl.reward import FORMULAS, reward_file
from everlearn.registry import find
from everlearn.rl.reward import Rewards

RESPONSES = (
    "<answer>3 + 5 * 2</answer>", "<answer>3 + 5 + 2</answer>", "<answer>3 - 5</answer>", "", "<answer></answer>",
    "<think>3 * 5 - 2, 2 * 5 + 3</think> <answer>13</answer>", "<think>3 * 5 - 2</think>", "<answer>5 ** 2</answer>",
)  # fmt: skip
TRUTH = {"target": 13, "numbers": [3, 5, 2], "operators": "+-*"}


@pytest.mark.parametrize("name", FORMULAS)
def test_it_scores_as_ours(name):
    defined = {}
    exec(compile(reward_file(name), "reward.py", "exec"), defined)
    found = [defined["compute_score"]("countdown_2", text, TRUTH, {"index": 0}) for text in RESPONSES]
    with Rewards.of(name, verifier="countdown") as rewards:
        ours = rewards([""] * len(RESPONSES), RESPONSES, [TRUTH] * len(RESPONSES))
    assert [one["score"] for one in found] == ours.values.tolist()
    assert [one["acc"] for one in found] == [find("verifier", "countdown")(text, TRUTH) for text in RESPONSES]
    assert max(one["acc"] for one in found) == 1


def test_it_needs_nothing_of_ours(exported):
    code = "from reward import compute_score as f; import sys; print(f('', '<answer>4 - 1</answer>', "
    code += "{'target': 3, 'numbers': [1, 4], 'operators': '-'}), any('everlearn' in name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.')\n{code}"], cwd=exported,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "{'score': 1.0, 'acc': 1.0} False"
