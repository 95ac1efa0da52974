"""What a trainer measures: its matrix, the metrics of it, and their pictures."""

import json
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError
from everlearn.evaluation import metrics
from everlearn.report.progress import ProgressBars
from everlearn.report.records import read_run
from everlearn.seeds import generator_for

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned")


def data(number: int, n: int = 60, *, measured: bool = True) -> dict[str, DataLoader]:
    x = torch.randn(n, 8, generator=generator_for("results", number))
    y = 2 * number + (x[:, number] > 0).long()
    half = n // 2
    loaders = {"train_loader": DataLoader(TensorDataset(x[:half], y[:half]), batch_size=8)}
    held_out = DataLoader(TensorDataset(x[half:], y[half:]), batch_size=8)
    return {**loaders, "val_loader": held_out} if measured else loaders


def trainer_of(unmeasured: int | None = None, n_tasks: int = 3, **options) -> ContinualTrainer:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    trainer = ContinualTrainer(network, ["replay"], {"epochs": 6, "learning_rate": 0.02}, **options)
    for number in range(n_tasks):
        trainer.train_task(f"t{number}", **data(number, measured=number != unmeasured))
    return trainer


def test_the_metrics_are_those_of_the_matrix_that_was_measured():
    trainer = trainer_of()
    seen = trainer._measured.scores
    matrix = np.full((3, 3), np.nan)
    for (step, task), score in seen.items():
        matrix[step, int(task[1])] = score.value
    assert np.isfinite(matrix[np.tril_indices(3)]).all()
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
    found = trainer.metrics()
    assert found["average_accuracy"].value == pytest.approx(metrics.average_accuracy(matrix))
    assert found["backward_transfer"].value == pytest.approx(metrics.backward_transfer(matrix))
    assert found["forgetting"].value == pytest.approx(metrics.forgetting(matrix))
    assert all(one.low <= one.value <= one.high for one in found.values())
    assert "backward_transfer" in str(found)
    assert trainer.evaluate_all_tasks().average() == pytest.approx(found["average_accuracy"].value)


def test_scoring_all_tasks_changes_nothing_of_what_is_learned():
    every, own = trainer_of(), trainer_of(evaluate_after="task")
    for mine, theirs in zip(every.run.model.network.parameters(), own.run.model.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert set(own._measured.scores) == {(number, f"t{number}") for number in range(3)}
    assert own.metrics()["average_accuracy"].value == own._measured.scores[0, "t0"].value  # the newest whole row
    own.evaluate_all_tasks()
    assert own.metrics()["average_accuracy"].value == every.metrics()["average_accuracy"].value
    assert own.metrics()["backward_transfer"].value == every.metrics()["backward_transfer"].value
    assert own.metrics()["forgetting"] is None  # it needs the best score of the steps between


def test_a_task_without_evaluation_rows_is_a_step_alone():
    trainer = trainer_of(unmeasured=1)
    assert list(trainer.evaluate_all_tasks()) == ["t0", "t2"]
    found = trainer.metrics()
    seen = trainer._measured.scores
    assert found["average_accuracy"].value == pytest.approx((seen[2, "t0"].value + seen[2, "t2"].value) / 2)
    assert found["backward_transfer"].value == pytest.approx(seen[2, "t0"].value - seen[0, "t0"].value)
    with pytest.raises(ConfigError, match=r"task: was not learned, or has no evaluation rows. Got 't1'.*Tasks: t0, t2"):
        trainer.evaluate("t1")
    assert trainer.evaluate("t0") == seen[2, "t0"]


def test_one_task_has_no_transfer_and_none_no_metrics():
    found = trainer_of(n_tasks=1).metrics()
    assert found["average_accuracy"] is not None
    assert found["backward_transfer"] is None
    with pytest.raises(ConfigError, match="no task was learned yet"):
        ContinualTrainer(nn.Linear(2, 2)).metrics()
    with pytest.raises(ConfigError, match=r"evaluate_after: is unknown. Got 'al'.*Did you mean 'all'"):
        ContinualTrainer(nn.Linear(2, 2), evaluate_after="al")


def test_the_pictures_and_the_page(tmp_path):
    trainer = trainer_of()
    page = trainer.plot(tmp_path / "pictures")
    text = page.read_text(encoding="utf-8")
    assert "<table" in text
    assert text.count("data:image/png;base64,") >= 4
    assert {path.name for path in page.parent.glob("*.png")} >= {"matrices.png", "task_curves.png", "mean_curve.png"}
    results = json.loads((page.parent / "results.json").read_text())
    assert results["complete"]
    assert results["recipe"]["strategies"][0]["name"] == "replay"
    assert results["summary"]["forgetting"]["mean"] == pytest.approx(trainer.metrics()["forgetting"].value)
    log = read_run(page.parent)
    assert sorted(log.scores, key=str) == sorted(trainer._log().scores, key=str)
    assert log.costs == trainer._log().costs
    (tmp_path / "pictures" / "recipe.yaml").touch()
    with pytest.raises(ConfigError, match="the folder holds a run"):
        trainer.plot(tmp_path / "pictures")


def test_bars_are_drawn_where_they_are_asked_for(capsys):
    trainer_of(n_tasks=1)
    assert capsys.readouterr().out == ""  # no terminal
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # notes are printed
        trainer = trainer_of(n_tasks=2, progress=True)
    trainer.evaluate("t0")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0].startswith("learned t0 in 0 s: t0 ")
    assert lines[-1].startswith("now: t0 ")
    assert isinstance(trainer.run.listener, ProgressBars)


def test_trackers_get_each_step_and_each_score(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with pytest.raises(ConfigError, match=r"track: there is no folder to write to. Got \('tensorboard',\)"):
        ContinualTrainer(nn.Linear(2, 2), track="tensorboard")
    trainer = trainer_of(n_tasks=2, track="tensorboard", folder=tmp_path)
    trainer.close()
    events = accumulator.EventAccumulator(str(tmp_path / "everlearn")).Reload()
    assert len(events.Scalars("t1/loss/task")) == 24  # 6 epochs of 4 steps
    assert [one.value for one in events.Scalars("score/t0")] == pytest.approx(
        [trainer._measured.scores[step, "t0"].value for step in range(2)]
    )


def test_a_report_shows_what_was_answered_unless_answers_are_not_kept(llama, tmp_path):
    def taught(**options) -> ContinualTrainer:
        trainer = ContinualTrainer(
            str(llama), learner={"epochs": 10, "learning_rate": 0.02, "batch_size": 4}, **options
        )
        for name, word in (("a", "yes"), ("b", "no")):
            rows = [{"prompt": f"{name}{n}?", "completion": word} for n in range(8)]
            trainer.train_task(name, rows[:6], rows[6:])
        return trainer

    trainer = taught()
    assert trainer._measured.learned["a"].answers == ("yes", "yes")
    assert trainer.evaluate("a").value == 0
    text = trainer.plot(tmp_path / "shown").read_text(encoding="utf-8")
    assert "a7?" in text
    trainer.save(tmp_path / "kept")
    later = ContinualTrainer.load(tmp_path / "kept")
    assert later._measured.scores == trainer._measured.scores
    private = taught(keep_answers=False)
    assert private._measured.learned["a"].answers == ()
    assert "a7?" not in private.plot(tmp_path / "shown").read_text(encoding="utf-8")
