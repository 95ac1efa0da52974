"""What can't be learned from, and what goes wrong meanwhile: one sentence each, and nothing learned is lost."""

import json

import pytest

from everlearn.errors import ConfigError, StreamError, TrainingError
from everlearn.listener import Listener
from everlearn.runs import resume, run
from everlearn.state import read_json
from support.recipes import final_weights, reinforcement_recipe
from support.runs import assert_same

REFUSED = {
    "one answer a problem": ({"learner": {"samples": 1}}, "learner.samples: advantage group compares"),
    "a negative number": ({"learner": {"prompts": -3}}, "learner.prompts: is out of range. Got -3"),
    "no number": ({"learner": {"kl": float("nan")}}, "learner.kl: is out of range. Got nan"),
    "gae without critic": ({"learner": {"advantage": "gae", "critic": "none"}}, "learner.critic: advantage gae needs"),
    "a misspelt key": ({"learner": {"smaples": 3}}, "learner.smaples: is unknown.*Did you mean 'samples'"),
    "no temperature": ({"learner": {"temperature": 0}}, "learner.temperature: is out of range"),
    "an unknown reward": ({"learner": {"reward": "countdwn"}}, "reward: is no reward.*Did you mean 'countdown'"),
    "a reward that isn't there": ({"learner": {"reward": "nope:f"}}, "reward: can't be imported"),
    "no interval": ({"evaluation": {"interval": 0}}, "evaluation.interval: is out of range"),
    "no rows to warm up": ({"warm_start": {"rows": 0}}, "warm_start.rows: is out of range"),
    "too many rows": ({"warm_start": {"rows": 17}}, "warm_start.rows: task 'add_0' has 16 training rows. Got 17"),
    "a context's answer": ({"learner": {"max_new_tokens": 63}}, "learner.max_new_tokens: leaves the context no prompt"),
    "a base that moves": (
        {"learner": {"kl": 0.1, "reference": "base"}, "adapter": {"name": "full"}}, "learner.reference: with all",
    ),
    "a warm start that is undone": (
        {"warm_start": {"rows": 2, "when": "task"}, "strategies": ["packnet"]}, "warm_start.when: packnet holds",
    ),
}  # fmt: skip


class Noting(Listener):
    """Keeps what the user is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def recipe_of(llama, folder, adapter=None, strategies=(), **changes):
    recipe = reinforcement_recipe(list(strategies), llama, folder, **changes)
    return recipe if adapter is None else {**recipe, "model": {**recipe["model"], "adapter": adapter}}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_before_anything_is_learned(name, llama, tmp_path):
    changes, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        run(recipe_of(llama, tmp_path, **changes), tmp_path / "run")
    log = tmp_path / "run" / "iterations.jsonl"
    assert not log.exists() or not log.read_text()


@pytest.mark.parametrize("row", [{"text": "running text"}, {"text": "is it", "label": "yes"}])
def test_tasks_that_cannot_be_answered_are_refused(row, llama, tmp_path):
    rows = [{**row, "text": f"{row['text']} {n}"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    stream = {"name": "files", "tasks": [{"name": "texts", "train": str(tmp_path / "rows.jsonl")}]}
    with pytest.raises(StreamError, match="task 'texts': can't be answered"):
        run(recipe_of(llama, tmp_path, stream=stream), tmp_path / "run")


def test_a_policy_that_runs_away_is_stopped(llama, tmp_path):
    recipe = recipe_of(llama, tmp_path, learner={"learning_rate": 1e20}, warm_start=None)
    with pytest.raises(TrainingError, match="task 'add_0', iteration 1 of 2: the policy has run away"):
        run(recipe, tmp_path / "run")


@pytest.fixture(scope="module")
def judged(llama, tmp_path_factory):
    """Return a recipe whose reward is `judge`, and the folder of a run in which it never fails."""
    folder = tmp_path_factory.mktemp("judged")
    learner = {"reward": "support.rewards:judge", "reward_seconds": 0.5, "reward_workers": 1}
    recipe = recipe_of(llama, folder, learner=learner, warm_start=None, checkpoint={"every_s": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULT", "")
        run(recipe, folder / "whole")
    return recipe, folder / "whole"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "raises 'ValueError: no such thing'"),
        ("nan", "returns nan, which is not finite"),
        ("hangs", "gives nothing within 0.5 s"),
    ],
)
def test_a_reward_that_fails_is_named_and_resume_goes_on_when_it_is_mended(
    fault, message, judged, tmp_path, monkeypatch
):
    recipe, whole = judged
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(
        TrainingError, match=rf"reward support.rewards:judge: on this response to .* it {message}.*resume"
    ):
        run(recipe, tmp_path / "run")
    kept = read_json(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "values.json")
    assert "add_1" in json.dumps(kept)  # what came before was saved as it failed
    monkeypatch.setenv("FAULT", "")
    resume(tmp_path / "run")
    assert_same(final_weights(tmp_path / "run"), final_weights(whole))


@pytest.mark.parametrize(
    ("verifier", "options"),
    [
        ("is_anything", {}),  # all answers earn the same
        ("is_anything", {"advantage": "gae", "kl": 0.1, "entropy": 0.01}),
        (None, {"max_new_tokens": 1}),  # all are cut off and wrong: no row has a verifier
    ],
)
def test_without_anything_to_tell_answers_apart_numbers_stay_finite(verifier, options, llama, tmp_path):
    recipe = recipe_of(
        llama, tmp_path, strategies=["replay", "ewc"], learner={"stop_signal": None, **options}, warm_start=None
    )
    for task in recipe["stream"]["tasks"]:
        task["verifier"] = verifier and f"support.policy:{verifier}"
    run(recipe, tmp_path / "run")
    lines = [json.loads(text) for text in (tmp_path / "run" / "iterations.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["type"] == "iteration"]
    assert len(told) == 4
    assert {line["signal"] for line in told} == {0.0}
    assert {line["success"] for line in told} == {1.0 if verifier else 0.0}


def test_prompts_longer_than_the_context_are_told(llama, tmp_path):
    rows = [{"prompt": f"{n} {'long ' * 20}", "completion": "yes"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stream = {"name": "files", "tasks": [{"name": "long", "train": str(tmp_path / "rows.jsonl"), "max_new_tokens": 3}]}
    recipe = recipe_of(llama, tmp_path, stream=stream, warm_start=None)
    listener = Noting()
    run(recipe, tmp_path / "run", listener=listener)
    assert any("lose the start of their prompt" in note for note in listener.notes)
