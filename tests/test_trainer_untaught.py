"""A trainer that scores tasks before they are learned: from where forward transfer is counted."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError
from everlearn.strategies.l2 import L2
from everlearn.strategies.replay import Replay
from support.lifelong import moods

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")
LEARNER = {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}


@pytest.mark.parametrize("head", ["task", "shared"])
def test_a_model_by_name_is_scored_as_it_came_and_as_it_is(head, bert):
    def made(**options) -> ContinualTrainer:
        return ContinualTrainer({"name": str(bert), "head": head}, ["replay"], LEARNER, progress=False, **options)

    trainer, plain = made(evaluate_before=True), made()
    for number in range(2):
        given = moods(number)[:8], moods(number)[8:]
        trainer.train_task(f"t{number}", *given)
        plain.train_task(f"t{number}", *given)
    mine, theirs = (one.run.state()["weights"] for one in (trainer, plain))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)  # it changes nothing
    assert set(trainer.metrics()) - set(plain.metrics()) == {"forward_transfer"}
    scores = trainer._measured.scores
    assert set(scores) == {(-1, "t0"), (0, "t0"), (-1, "t1"), (0, "t1"), (1, "t0"), (1, "t1")}
    gained = scores[0, "t1"].value - scores[-1, "t1"].value
    assert trainer.metrics()["forward_transfer"].value == pytest.approx(gained)
    trainer.train_task("t0", moods(0)[:8], moods(0)[8:])
    assert len(trainer._measured.scores) == 8  # one that comes again isn't before its first time


def test_a_module_is_copied_before_it_learns_and_a_task_refused_leaves_nothing(tmp_path):
    def loader(number: int) -> DataLoader:
        x = torch.randn(24, 4, generator=torch.Generator().manual_seed(number))
        return DataLoader(TensorDataset(x, (x[:, number] > 0).long()), 8)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 2))
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trainer = ContinualTrainer(network, learner=LEARNER, evaluate_before=True)
    trainer.train_task("a", train_loader=loader(0), val_loader=loader(1))
    kept = trainer._untaught.state(trainer.run.model)
    assert list(kept) == ["0.weight", "0.bias"]
    assert all(torch.equal(kept[name], first[name]) for name in first)
    assert not torch.equal(network.state_dict()["0.weight"], first["0.weight"])
    page = trainer.plot(tmp_path / "report")
    assert page.exists()


def test_a_strategy_joins_in_place_of_one_of_its_name(bert):
    trainer = ContinualTrainer(str(bert), ["replay"], LEARNER, progress=False)
    trainer.use(L2(0.5))
    trainer.train_task("a", moods(0)[:8], moods(0)[8:])
    other = Replay(capacity=3)
    trainer.use(other)
    trainer.train_task("b", moods(1)[:8], moods(1)[8:])
    assert [strategy.name for strategy in trainer.strategies] == ["l2", "replay"]
    assert trainer.strategies[1] is other
    assert list(other.memory_) == ["b"]
    assert trainer.learned == ["a", "b"]
    from everlearn.strategies.joint import Joint

    with pytest.raises(ConfigError, match="can't stand beside"):
        trainer.use(Joint())
    assert len(trainer.strategies) == 2
