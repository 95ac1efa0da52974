"""A real language model learns from what its own answers to conversations are worth."""

import json

import pytest

from everlearn.runs import resume, run
from everlearn.state import checkpoints, load_value


@pytest.mark.real_model
@pytest.mark.xdist_group("real_model")
def test_smollm2_learns_from_answers_to_conversations(smollm2, tmp_path):
    rows = [{"role": "user", "content": f"Name a colour of {what}."} for what in ("the sea", "snow", "grass")]
    told = [{"messages": [row, {"role": "assistant", "content": "Red"}]} for row in rows]
    paths = {"train": tmp_path / "train.jsonl", "eval": tmp_path / "eval.jsonl"}
    for path, part in zip(paths.values(), (told[:2], told[2:]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    files = {role: str(path) for role, path in paths.items()}
    task = {"name": "colours", **files, "verifier": "support.policy:is_odd", "max_new_tokens": 3}
    learner = {"name": "ppo", "iterations": 1, "prompts": 2, "samples": 4, "learning_rate": 1e-3, "stop_signal": None}
    recipe = {
        "stream": {"name": "files", "tasks": [task]}, "model": {"name": smollm2, "adapter": {"rank": 4}},
        "learner": learner, "strategies": ["replay"], "device": "cpu",
    }  # fmt: skip
    run(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "iterations.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["type"] == "iteration"]
    assert [line["n_answers"] for line in told] == [8]
    assert told[0]["gradient_norm"] > 0
    kept = load_value(checkpoints(tmp_path / "run" / "checkpoints")[-1])["strategies"]["replay"]["memory_"]
    for row in (row for stored in kept.values() for row in stored["rows"]):
        assert row["own_answer"] == "Red"
        assert row["messages"][-1]["content"] != row["own_answer"]  # the model's own
    assert resume(tmp_path / "run")["complete"]
