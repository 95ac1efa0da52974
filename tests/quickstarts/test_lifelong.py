"""The quick starts run as they stand, whatever the technique; a model's name becomes a folder."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn.errors import ConfigError
from everlearn.lifelong import LifelongConfig
from support.lifelong import moods, sums

LIFELONG = """
from everlearn.lifelong import (ExperienceReplay, LifelongConfig, LifelongModel, LifelongTrainer, MetaLearner, TaskConfig)
config = LifelongConfig(technique="ewc", ewc_lambda=1000, memory_size=1000, learning_rate=1e-4)
model = LifelongModel(base_model="bert-base-uncased", lifelong_config=config)
trainer = LifelongTrainer(model, config)
for task_id, task_data in enumerate(task_sequence):
    trainer.learn_task(task_id, task_data)
    print(trainer.evaluate_all_tasks())
replay = ExperienceReplay(memory_size=1000, sampling_strategy="random")
for task_id, task_data in enumerate(tasks):
    trainer.learn_task_with_replay(task_id, task_data, replay)
    replay.store_examples(task_data, task_id)
scores = model.predict_uncertainty(examples); drawn = replay.sample(32); model.add_capacity(new_neurons=64); answers = model.predict(["text"], task_id=0)
meta = MetaLearner(model=model, inner_lr=0.01, outer_lr=0.001, adaptation_steps=5)
"""  # noqa: E501

PLAIN = """
from everlearn import ContinualTrainer
trainer = ContinualTrainer(
    model=model,
    config={
        "optimizer": {"type": "adam", "lr": 0.001},
        "continual_strategy": {"ewc": {"enabled": True, "lambda": 100.0}},
    },
)
for task_id, (train_loader, val_loader) in enumerate(task_data):
    trainer.train_task(train_loader=train_loader, val_loader=val_loader, task_id=task_id, num_epochs=10)
print(trainer.evaluate_all_tasks())
print(trainer.metrics())
"""
PACKNET = """{"packnet": {"enabled": True, "prune_percentage": 0.75, "use_magnitude_pruning": True},
    "lwf": {"enabled": False, "temperature": 2.0, "alpha": 0.5}}"""
NOTHING = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")


@pytest.fixture(autouse=True)
def two_epochs(monkeypatch):
    """The rows of these tests are few and their models drawn at random: as many epochs as they need take a minute."""
    whole = LifelongConfig.learner_options
    monkeypatch.setattr(LifelongConfig, "learner_options", lambda config: {**whole(config), "epochs": 2})


@NOTHING
@pytest.mark.parametrize("technique", ["ewc", "rehearsal", "progressive", "packnet"])
def test_the_lifelong_one(technique, bert, capsys):
    code = LIFELONG.replace("bert-base-uncased", str(bert)).replace('"ewc"', f'"{technique}"')
    names = {"task_sequence": [moods(0), moods(1)], "tasks": [moods(0), moods(1)], "examples": ["is good", "is bad"]}
    if technique in ("progressive", "packnet"):
        with pytest.raises(ConfigError, match=r"growth: can't stand beside (pnn|packnet)"):
            exec(code, names)
        code = "".join(line.replace("model.add_capacity(new_neurons=64);", "") for line in code.splitlines(True)[-2:])
    exec(code, names)
    assert names["scores"].shape == (2,)
    assert len(names["drawn"]) == 20
    assert names["answers"][0] in ("bad", "good")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("backward_transfer", "forward_transfer", "forgetting", "learning_accuracy"))


@NOTHING
def test_the_lifelong_one_on_a_model_that_writes(llama, capsys):
    code = LIFELONG.replace("bert-base-uncased", str(llama))
    exec(code, names := {"task_sequence": [sums(0), sums(1)], "tasks": [sums(2)], "examples": ["1+1="]})
    assert names["scores"][0] > 0
    assert {row["task"] for row in names["drawn"]} == {"task_0"}


def loaders(number: int) -> tuple[DataLoader, DataLoader]:
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(number))
    y = 2 * number + (x[:, number] > 0).long()
    train, held_out = TensorDataset(x[:40], y[:40]), TensorDataset(x[40:], y[40:])
    return DataLoader(train, batch_size=8, shuffle=True), DataLoader(held_out, batch_size=8)


@pytest.mark.parametrize("strategies", ["", PACKNET])
def test_those_of_plain_pytorch(strategies, capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6))
    code = PLAIN.replace('{"ewc": {"enabled": True, "lambda": 100.0}}', strategies) if strategies else PLAIN
    exec(code, names := {"model": model, "task_data": [loaders(number) for number in range(3)]})
    assert names["trainer"].run.learned == ["task_0", "task_1", "task_2"]
    assert "forgetting" in capsys.readouterr().out
