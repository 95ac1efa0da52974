"""Versions brought to life."""

import shutil

import pytest
import torch

from everlearn.errors import StateError, TrainingError
from everlearn.home import Home
from everlearn.home.store import Store
from everlearn.home.versions import finite_score


def test_opened_version_has_its_weights_and_strategies(home: Home) -> None:
    versions = home._versions()
    run = versions.open(1, versions.learned_tasks(1))
    state = Store(home.path).state(1)
    for name, tensor in run.model.adapters.tensors().items():
        assert torch.equal(tensor, state["weights"][name]), name
    assert [strategy.name for strategy in run.strategies] == ["replay", "ewc"]
    assert len(run.strategies[0].memory_["colours"]["rows"]) == 12
    assert run.learned == ["colours"]


def test_scores_of_a_reopened_version_are_those_it_was_published_with(home: Home) -> None:
    published = {name: Store(home.path).learned_score(2, name) for name in ("colours", "animals")}
    assert home._versions().scores(2, ["colours", "animals"], fresh=True) == published


def test_missing_task_is_one_sentence(home: Home) -> None:
    shutil.rmtree(home.path / "tasks" / "colours")
    with pytest.raises(StateError, match=r"tasks are missing\. Got \['colours'\]"):
        home.check()


def test_broken_weights_do_not_make_a_score(home: Home) -> None:
    versions = home._versions()
    tasks = versions.learned_tasks(1)
    run = versions.open(1, tasks)
    finite_score(run, tasks["colours"])
    score = run.score
    run.score = lambda task: type(score(task))(task.name, "accuracy", float("nan"), None, None, 1, (float("nan"),))
    with pytest.raises(TrainingError, match="the score is not finite"):
        finite_score(run, tasks["colours"])
