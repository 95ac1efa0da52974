"""Trials stop at the deadline, and what was not tried is named."""

import time

import pytest

from everlearn.errors import ConfigError
from everlearn.kinds.advice.candidates import Candidate
from everlearn.kinds.advice.sizing import Sizes, Timing
from everlearn.kinds.advice.trials import limits, plan_sizes, run_trials, time_trial, trial_content
from everlearn.listener import Listener
from everlearn.streams.digits import DigitsStream
from everlearn.streams.schedule import apply_schedule

CONTENT = {
    "stream": {"name": "digits", "n_tasks": 2},
    "model": {"name": "mlp", "options": {"hidden": [8]}},
    "learner": {"name": "sft", "epochs": 1},
    "evaluation": {"future": True, "batch_size": 32},
    "strategies": ["ewc"],
    "track": ["tensorboard"],
}


@pytest.fixture(scope="module")
def schedule():
    return apply_schedule(DigitsStream(n_tasks=2).build())


def test_a_trial_is_the_recipe_without_what_trials_do_not_need():
    trial = trial_content(CONTENT, 3)
    assert trial["learner"] == {"name": "sft", "epochs": 1, "early_stopping": False}
    assert trial["evaluation"] == {"batch_size": 32}
    assert trial["seed"] == 3
    assert {"strategies", "track"}.isdisjoint(trial)


def test_limits_never_exceed_what_is_there(schedule):
    found = limits(schedule, Sizes(50, 10**6))
    assert set(found["per_task"].values()) == {50}
    assert found["per_task_eval"] == {task.name: len(task.evaluation) for task in schedule.stream}


def test_no_time_left(schedule, tmp_path):
    trial = trial_content(CONTENT, 0)
    with pytest.raises(ConfigError, match=r"--budget: is too small .* need about"):
        time_trial(trial, schedule, tmp_path / "timing", time.monotonic() - 1, 1.0, Listener())
    assert not (tmp_path / "timing").exists()
    candidates = {tmp_path / "none": Candidate("none", ())}
    assert run_trials(trial, candidates, time.monotonic(), 1.0, Listener()) == {"none": "the budget had run out"}
    stopped = run_trials(trial, candidates, time.monotonic() + 1e-3, 0.0, Listener())
    assert stopped == {"none": "stopped when the budget ran out"}


def test_too_small_a_budget_says_what_would_do(schedule):
    candidates = [Candidate("none", ()), Candidate("replay", ("replay",)), Candidate("joint", ("joint",))]
    with pytest.raises(ConfigError, match=r"need about \d+m"):
        plan_sizes(Timing(100.0, 1.0, 0.1), schedule, candidates, time.monotonic() + 60, 60.0)
    enough = plan_sizes(Timing(0.0, 0.01, 0.001), schedule, candidates, time.monotonic() + 60, 60.0)
    assert enough.rows > 64


def test_a_method_that_fails_is_named_with_its_reason(schedule, tmp_path, monkeypatch):
    trial = trial_content({**CONTENT, "learner": {"name": "sft", "learning_rate": 1e30, "optimizer": "sgd"}}, 0)
    trial["stream"] |= limits(schedule, Sizes(64, 4))
    trial["learner"]["clip"] = None
    candidates = {tmp_path / "replay": Candidate("replay", ("replay",))}
    (reason,) = run_trials(trial, candidates, time.monotonic() + 600, 0.0, Listener()).values()
    assert "the loss is not finite" in reason
