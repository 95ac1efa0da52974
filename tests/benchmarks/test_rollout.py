import json

import pytest
import rollout
import torch

from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.rl.rollouts import Answered
from support.tasks import prompt_task


def turns(*costs):
    return [{"wall_s": wall, "cpu_s": cpu} for wall, cpu in costs]


ENDS = {
    "ours_float32": {"peak_memory_bytes": 1, "n_tokens": [9, 100, 50], "gradient_norms": [0.5]},
    "trl_float32": {"peak_memory_bytes": 2, "n_tokens": [9, 100, 100], "gradient_norms": [0.502]},
}
TAKEN = {"ours_float32": turns((1.0, 0.5), (0.5, 0.25)), "trl_float32": turns((3.0, 2.0), (3.0, 2.0))}


def test_drawing_is_compared_by_tokens():
    found = rollout.compare("draw", TAKEN, ENDS)
    assert found["tokens_per_s"]["ours_float32"] == pytest.approx(100)
    assert found["times_as_fast"]["ours_float32 as trl_float32"]["wall_s"]["median"] == pytest.approx(3)
    assert found["times_as_fast"]["ours_float32 as trl_float32"]["cpu_s"]["median"] == pytest.approx(4)


def test_learning_is_compared_by_steps_and_has_its_bar():
    found = rollout.compare("learn", TAKEN, ENDS)
    assert found["steps_per_s"]["trl_float32"] == pytest.approx(1 / 3)
    rollout.judge(found, "learn")
    assert found["bar"] == {"times": 2.0, "wall_s": True, "cpu_s": True}


def test_sides_that_did_other_work_are_refused(tmp_path):
    rollout.check_norms(ENDS)
    with pytest.raises(SystemExit, match="the comparison is void"):
        rollout.check_norms(ENDS | {"trl_float32": {"gradient_norms": [0.51]}})
    assert rollout.check_same(tmp_path) is None
    torch.save(torch.zeros(3), tmp_path / "ours_float32.pt")
    torch.save(torch.full((3,), 1e-6), tmp_path / "trl_float32.pt")
    assert rollout.check_same(tmp_path) == pytest.approx(1e-6)
    torch.save(torch.full((3,), 1e-4), tmp_path / "trl_float32.pt")
    with pytest.raises(SystemExit, match="the comparison is void"):
        rollout.check_same(tmp_path)


def test_answers_are_written_one_by_one_as_often_as_they_were_drawn(tmp_path, llama):
    answered = [Answered(None, {}, (0, 0), [5, 6], [[7], [8, 9]], [2, 1], rewards=[1.0, 0.25])]
    rollout.write_answers(tmp_path, answered, {})
    rows = json.loads((tmp_path / "answers.json").read_text())
    assert [row["answer"] for row in rows] == [[7], [7], [8, 9]]
    assert [row["advantage"] for row in rows] == pytest.approx([0.5**0.5, 0.5**0.5, -(2**0.5)])
    model = load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)], 0)
    model.network.eval()
    found = rollout.log_p(model, answered, packed=True)
    assert len(found) == 4
    assert found[0] == found[1]
    torch.testing.assert_close(found, rollout.log_p(model, answered, packed=False), atol=1e-5, rtol=1e-5)
