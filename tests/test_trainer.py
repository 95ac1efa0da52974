"""The engine from Python: the README's snippets, and what bad input says."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, StreamError
from everlearn.seeds import generator_for


def loaders(number: int, n: int = 80) -> tuple[DataLoader, DataLoader]:
    """Two classes of a task of its own, told by the sign of one input."""
    x = torch.randn(n, 8, generator=generator_for("trainer", number))
    y = 2 * number + (x[:, number] > 0).long()
    half = n // 2
    train, held_out = TensorDataset(x[:half], y[:half]), TensorDataset(x[half:], y[half:])
    return DataLoader(train, batch_size=8, shuffle=True), DataLoader(held_out, batch_size=8)


def test_plain_pytorch_with_the_config_spelling():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6))
    config = {
        "optimizer": {"type": "adam", "lr": 0.01},
        "continual_strategy": {"ewc": {"enabled": True, "lambda": 100.0}, "lwf": {"enabled": False}},
    }
    trainer = ContinualTrainer(model=model, config=config)
    for task_id in range(3):
        train, held_out = loaders(task_id)
        trainer.train_task(
            train_loader=train, val_loader=held_out, task_id=task_id, task_name=f"task_{task_id}", num_epochs=10
        )
    scores = trainer.evaluate_all_tasks()
    assert list(scores) == ["task_0", "task_1", "task_2"]
    assert scores.learned["task_0"].value > 0.7
    assert [s.name for s in trainer.run.strategies] == ["ewc"]
    assert trainer.run.strategies[0].strength == 100.0
    assert trainer.run.model.network is model  # trained in place
    assert "task_2" in str(scores)
    assert "95% interval" in str(scores)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_generator():
    weights = []
    for noise in range(2):
        torch.manual_seed(0)
        model = nn.Linear(8, 6)
        torch.manual_seed(noise)
        trainer = ContinualTrainer(model=model, strategies=["replay"], learner={"epochs": 2})
        for task_id in range(2):
            train, held_out = loaders(task_id)
            trainer.train_task(train_loader=train, val_loader=held_out, task_id=task_id)
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_language_model_on_files(llama, tmp_path):
    for name, start in (("billing", 0), ("returns", 20)):
        rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(start, start + 12)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows[:9])) + "\n")
        (tmp_path / f"{name}_eval.jsonl").write_text("\n".join(map(json.dumps, rows[9:])) + "\n")
    trainer = ContinualTrainer(model=str(llama), strategies=["replay", {"name": "ewc", "strength": 100}])
    trainer.train_task("billing", train=tmp_path / "billing.jsonl", evaluate=tmp_path / "billing_eval.jsonl")
    trainer.train_task("returns", train=tmp_path / "returns.jsonl", evaluate=tmp_path / "returns_eval.jsonl")
    scores = trainer.evaluate_all_tasks()
    assert scores["billing"].n == 3
    assert 0.0 <= scores.average() <= 1.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optimiser": {}}, r"config.optimiser: is unknown.*Did you mean 'optimizer'"),
        ({"optimizer": {"type": "adamm"}}, r"learner.optimizer: is unknown.*Did you mean 'adam"),
        ({"optimizer": {"lr": -1.0}}, r"learner.learning_rate: is out of range"),
        ({"continual_strategy": {"ewcc": {}}}, r"strategies\[0\].name: is no strategy.*Did you mean 'ewc'"),
        ({"continual_strategy": {"ewc": {"lamda": 1.0}}}, r"strategies\[0\].lamda: is unknown"),
    ],
)
def test_wrong_options_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        ContinualTrainer(model=nn.Linear(2, 2), config=config)


def test_nothing_to_train_on_and_wrong_batches():
    trainer = ContinualTrainer(model=nn.Linear(8, 2))
    with pytest.raises(StreamError, match="nothing to train on"):
        trainer.train_task("empty")
    with pytest.raises(StreamError, match=r"no pair \(x, y\)"):
        trainer.train_task("wrong", train_loader=DataLoader(torch.zeros(4, 8), batch_size=2))
    with pytest.raises(ConfigError, match="no task was learned yet"):
        trainer.evaluate_all_tasks()


def test_without_a_val_loader_there_is_no_score():
    trainer = ContinualTrainer(model=nn.Linear(8, 2), learner={"epochs": 1})
    train, _ = loaders(0)
    assert trainer.train_task(train_loader=train, task_id=0) is None


def sums(start: int, n: int) -> list[dict[str, str]]:
    return [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(start, start + n)]


def test_what_is_measured_is_not_trained_on_in_either_direction(llama):
    trainer = ContinualTrainer(str(llama), learner={"epochs": 1})
    trainer.train_task("a", sums(0, 6), sums(6, 4))
    with pytest.raises(StreamError, match=r"training row 2 of 'b' and evaluation item 4 of 'a'\. Got \{'a': 1\}"):
        trainer.train_task("b", [*sums(20, 1), *sums(9, 2)], sums(30, 2))
    with pytest.raises(StreamError, match=r"evaluation items are training rows of tasks.*Got \{'a': 2\}"):
        trainer.train_task("b", sums(20, 4), [*sums(30, 2), *sums(4, 2)])
    assert list(trainer.run.tasks) == ["a"]
    with pytest.warns(
        UserWarning, match=r"'a': rows of it that are evaluation items of 'b': 2 \(allow_overlap is set\)"
    ):
        trainer.train_task("b", sums(20, 4), [*sums(30, 2), *sums(4, 2)], options={"allow_overlap": True})


def test_tensors_are_kept_apart_by_their_bytes():
    train, held_out = loaders(0)
    trainer = ContinualTrainer(model=nn.Linear(8, 2), learner={"epochs": 1})
    trainer.train_task("a", train_loader=train, val_loader=held_out)
    with pytest.raises(StreamError, match=r"Got \{'a': 40\}"):
        trainer.train_task("b", train_loader=held_out)
    with pytest.warns(UserWarning, match="evaluation items of 'a': 40"):
        trainer.train_task("b", train_loader=held_out, options={"allow_overlap": True})


def test_rows_set_aside_are_told_and_validation_rows_only_where_they_are_used(llama):
    trainer = ContinualTrainer(str(llama), learner={"epochs": 1})
    with pytest.warns(UserWarning, match="of 30 rows, .* are held out for evaluation$"):
        trainer.train_task("a", sums(0, 30))
    assert trainer.run.tasks["a"].validation is None
    with pytest.warns(UserWarning, match=r"are held out for early stopping \(validation\)"):
        trainer.train_task("b", sums(100, 30), num_epochs=4)
    assert len(trainer.run.tasks["b"].validation) > 0


def test_an_unknown_option_and_an_unfit_metric_are_named():
    trainer = ContinualTrainer("pocket")
    with pytest.raises(ConfigError, match=r"options\.colums: is unknown.*columns"):
        trainer.train_task("a", sums(0, 6), sums(6, 4), options={"colums": {}})
    with pytest.raises(ConfigError, match="task 'a': metrics: a metric doesn't fit"):
        trainer.train_task("a", sums(0, 6), sums(6, 4), options={"metrics": ["accuracy"]})


def test_targets_that_mark_none_are_refused():
    x = torch.arange(8.0).view(4, 2)
    loader = DataLoader(TensorDataset(x, torch.tensor([0, 1, -100, 1])), batch_size=2)
    with pytest.raises(StreamError, match="train rows have no class as target, the first is row 3 with -100"):
        ContinualTrainer(model=nn.Linear(2, 2)).train_task("a", train_loader=loader)
