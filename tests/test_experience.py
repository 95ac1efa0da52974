"""A memory that its user fills: what it keeps, gives back, and when it is replayed."""

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, TensorDataset

from everlearn.errors import ConfigError, StreamError
from everlearn.experience import SAMPLING, ExperienceReplay
from everlearn.lifelong import LifelongConfig, LifelongModel, LifelongTrainer, TaskConfig
from support.lifelong import moods, sums

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")


def made(base_model, **options) -> LifelongTrainer:
    config = LifelongConfig(**{"epochs": 1, "batch_size": 4, "forward_transfer": False, "progress": False, **options})
    return LifelongTrainer(LifelongModel(base_model, config))


def same_weights(first: LifelongTrainer, second: LifelongTrainer) -> bool:
    mine, theirs = (one.model.trainer.run.state()["weights"] for one in (first, second))
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def without_task(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "task"} for row in rows]


def test_alone_it_keeps_a_bounded_sample_and_gives_rows_back_as_they_were():
    replay = ExperienceReplay(memory_size=10, sampling_strategy="balanced")
    assert replay.sample(3) == []
    for number, data in enumerate((moods(0), Dataset.from_list(moods(1)), moods(2))):
        replay.store_examples(data, number)
        assert len(replay) == 10
    drawn = replay.sample(32)
    assert len(drawn) == 10
    assert [sum(row["task"] == f"task_{number}" for row in drawn) for number in range(3)] == [4, 4, 2]
    assert all(row in moods(0) + moods(1) + moods(2) for row in without_task(drawn))
    assert len(replay.sample(4)) == 4
    assert replay.sample(4) != replay.sample(4)
    assert replay.sample(0) == []
    everything = ExperienceReplay()
    everything.store_examples(sums(0), "sums")
    everything.store_examples(sums(0)[:3], "sums")
    assert len(everything) == 15  # a uniform sample counts each row that came


@pytest.mark.parametrize("how", sorted(SAMPLING))
def test_every_strategy_keeps_rows_that_are_replayed(how, bert):
    trainer, replay = made(str(bert)), ExperienceReplay(4, how)
    trainer.learn_task_with_replay(0, moods(0), replay)
    replay.store_examples(moods(0), 0)
    assert len(replay) == 4
    assert {row["task"] for row in replay.sample()} == {"task_0"}
    plain = made(str(bert))
    for number, one in ((0, plain), (1, plain), (1, trainer)):
        one.learn_task(number, moods(number))
    assert same_weights(plain, trainer)  # the memory rests
    trainer.learn_task_with_replay(2, moods(2), replay)
    plain.learn_task(2, moods(2))
    assert not same_weights(plain, trainer)


def test_what_is_measured_never_enters_and_labels_follow_the_model(bert):
    trainer, replay = made(str(bert)), ExperienceReplay()
    held_out, given = moods(0)[8:], moods(0)[:8]
    replay.store_examples(moods(0), 0)  # before any trainer: all of them, its labels numbered by name
    trainer.learn_task(0, TaskConfig(train=given, evaluate=held_out, labels=["good", "bad"]))
    assert len(replay) == 12
    trainer.learn_task_with_replay(1, moods(1), replay)
    assert len(replay) == 8
    assert sorted(without_task(replay.sample()), key=str) == sorted(given, key=str)
    stored = replay.strategy.memory_["task_0"]["rows"]
    assert all(row["label"] == ["good", "bad"].index(row["text"].split()[-1]) for row in stored)
    replay.store_examples(held_out, 0)
    assert len(replay) == 8


def test_tensors_of_a_loader_are_stored_and_replayed():
    def loader(number):
        x = torch.randn(24, 8, generator=torch.Generator().manual_seed(number))
        return DataLoader(TensorDataset(x, 2 * number + (x[:, 0] > 0).long()), 8, shuffle=True)

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))
    trainer, replay = made(network), ExperienceReplay(10, "uncertainty")
    for number in range(2):
        trainer.learn_task_with_replay(number, loader(number), replay)
        replay.store_examples(loader(number), number)
    assert len(replay) == 10
    assert {(row["task"], int(row["y"]) // 2) for row in replay.sample()} == {("task_0", 0), ("task_1", 1)}
    uncertain = trainer.model.predict_uncertainty(loader(0).dataset.tensors[0])
    assert uncertain.shape == (24,)
    assert (uncertain > 0).all()
    former = trainer.model.add_capacity(6)
    assert former["0.weight"] == (12, 8)
    assert network[0].out_features == 18


def test_another_memory_takes_its_place_and_both_stay_whole(bert):
    trainer, one, other = made(str(bert), technique="rehearsal"), ExperienceReplay(3), ExperienceReplay(3)
    trainer.learn_task_with_replay(0, moods(0), one)
    one.store_examples(moods(0), 0)
    trainer.learn_task_with_replay(1, moods(1), other)
    assert (len(one), len(other)) == (3, 0)
    assert [s.name for s in trainer.model.trainer.strategies] == ["replay", "experience_replay"]
    assert trainer.replay.strategy is other.strategy
    one.store_examples(moods(1), 1)
    assert len(one) == 3


def test_what_does_not_go_is_named(bert):
    with pytest.raises(ConfigError, match=r"sampling_strategy: is unknown. Got 'randon'. Did you mean 'random'"):
        ExperienceReplay(10, "randon")
    with pytest.raises(ConfigError, match=r"memory_size: is out of range. Got -1"):
        ExperienceReplay(-1)
    with pytest.raises(ConfigError, match=r"sample: is out of range"):
        ExperienceReplay().sample(-1)
    with pytest.raises(ConfigError, match=r"asks a model which rows to keep.*learn_task_with_replay"):
        ExperienceReplay(10, "loss").store_examples(moods(0), 0)
    trainer, replay = made(str(bert)), ExperienceReplay(10)
    replay.store_examples(moods(0), 0)
    with pytest.raises(ConfigError, match=r"replay: holds rows of a task that was not learned. Got 'task_0'.*Learn it"):
        trainer.learn_task_with_replay(1, moods(1), replay)
    assert len(replay) == 10
    trainer.learn_task(0, moods(0))
    trainer.learn_task_with_replay(1, moods(1), replay)
    with pytest.raises(ConfigError, match=r"Got 'task_7'"):
        replay.store_examples(moods(2), 7)
    with pytest.raises(StreamError, match=r"labels that it had not before"):
        replay.store_examples(moods(2), 0)
