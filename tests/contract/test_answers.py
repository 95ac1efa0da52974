"""What holds for every way in which a text is answered: run, resumed, saved, kept in a home, scored and predicted."""

import json
from pathlib import Path

import pytest

from everlearn import ContinualTrainer
from everlearn.evaluation.score import METRICS
from everlearn.home import Gate, Home
from everlearn.home.settings import settings_from
from everlearn.runs import resume, run
from support.recipes import final_weights, lines_of
from support.runs import StopAfter, Stopped, assert_same
from support.tasks import rows_of_kind

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .*", "ignore:Task .*cut")
KINDS = ("multilabel", "preference", "score")
LEARNER = {"epochs": 3, "batch_size": 4, "learning_rate": 0.01, "early_stopping": False}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind, llama, bert) -> str:
    return str(llama if kind == "preference" else bert)


def recipe(kind: str, model: str, folder: Path) -> dict:
    tasks = []
    for number in range(2):
        rows, files = (
            rows_of_kind(kind, number),
            {role: folder / f"{number}.{role}.jsonl" for role in ("train", "eval")},
        )
        for path, part in zip(files.values(), (rows[:12], rows[12:]), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
        tasks.append({"name": f"{kind} {number}", **{role: str(path) for role, path in files.items()}})
    return {
        "stream": {"name": "files", "tasks": tasks},
        "model": {"name": model, "adapter": {"rank": 2}},
        "learner": {**LEARNER, "epochs": 1},
        "strategies": ["replay", "ewc"],
        "seeds": [3],
        "checkpoint": {"every_s": None, "every_steps": 1},
        "device": "cpu",
    }


def test_a_run_that_was_stopped_ends_as_one_that_was_not(kind, model, tmp_path):
    described = recipe(kind, model, tmp_path)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(described, whole)["complete"]
    with pytest.raises(Stopped):
        run(described, stopped, listener=StopAfter(5))
    resume(stopped)
    assert_same(final_weights(stopped, 3), final_weights(whole, 3))
    assert lines_of(stopped) == lines_of(whole)


def test_a_trainer_scores_predicts_and_goes_on(kind, model, tmp_path):
    rows = [rows_of_kind(kind, number) for number in range(2)]
    trainer = ContinualTrainer(model, ["replay"], LEARNER)
    first = trainer.train_task("first", rows[0][:12], rows[0][12:])
    assert first.metric == METRICS[kind][0]
    assert first.low < first.high
    trainer.save(tmp_path / "trainer")
    again = ContinualTrainer.load(tmp_path / "trainer")
    for one in (trainer, again):
        one.train_task("second", rows[1][:12], rows[1][12:])
    assert_same(dict(trainer.run.model.adapters.tensors()), dict(again.run.model.adapters.tensors()))
    assert trainer.evaluate("first") == again.evaluate("first")
    assert trainer.predict(rows[0][12:], task="first") == again.predict(rows[0][12:], task="first")


def test_a_home_learns_checks_and_compares(kind, model, tmp_path):
    learner = {**LEARNER, "epochs": 12}
    settings = settings_from({"model": {"name": model}, "learner": learner, "strategies": ["replay"], "device": "cpu"})
    home = Home.create(tmp_path / "home", settings=settings)
    for number in range(2):
        rows = rows_of_kind(kind, number, n=30)
        home.learn(f"task {number}", rows[:24], rows[24:], gate=Gate(tolerance=1.0))
    assert home.current == 2
    assert {change.metric for change in home.diff(1, 2).changes} == {METRICS[kind][0]}
    assert not home.check().problems
