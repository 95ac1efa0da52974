"""Rows of a user's dataset: read when they are taken, and otherwise as rows in memory."""

import weakref

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from everlearn import ContinualTrainer
from everlearn.errors import StreamError
from everlearn.streams.apart import digests_of
from everlearn.streams.loaders import read_loader
from everlearn.streams.sampled import SampledRows, let_go
from everlearn.types import Task, TensorRows

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Lying(Dataset):
    """Rows that lie somewhere else than in memory."""

    def __init__(self, first: int = 0, n: int = 30):
        self.first, self.n, self.n_read = first, n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.n_read += 1
        return X[self.first + i].clone(), int(Y[self.first + i])


def test_rows_are_read_when_they_are_taken():
    dataset = Lying()
    rows, loader = read_loader("train_loader", DataLoader(dataset, 8), 1, 0)
    assert isinstance(rows, SampledRows)
    assert dataset.n_read == 31  # the first one tells the shape
    held = TensorRows(X[:30], Y[:30])
    task = Task("a", "tensor", rows, rows[:0], loader=loader)
    assert list(digests_of(task, rows)) == list(digests_of(task, held))
    assert torch.equal(rows.y, held.y)
    assert dataset.n_read == 31
    for taken, expected in ((rows[5:9], held[5:9]), (rows.select([7, 2]), held.select([7, 2])), (rows, held)):
        assert torch.equal(taken.x, expected.x)
        assert torch.equal(taken.y, expected.y)
    assert dataset.n_read == 31 + 4 + 2 + 30
    assert torch.equal(rows[3]["x"], held[3]["x"])
    assert tuple(rows[:0].x.shape) == (0, 6)
    assert repr(rows) == "SampledRows(30 rows)"
    assert torch.equal(rows.subset([8, 3]).select([1]).x, held.x[[3]])


def test_rows_that_a_mistake_is_in_are_refused_as_those_in_memory():
    def task(x, y):
        data = [(x[i], y[i]) for i in range(len(x))]
        trainer = ContinualTrainer(nn.Linear(6, 2), learner={"epochs": 1})
        trainer.train_task("a", train_loader=DataLoader(data, 8))

    broken = X[:30].clone()
    broken[3, 0] = torch.nan
    with pytest.raises(StreamError, match=r"its inputs are not all finite. Got '1 NaN or infinite values'"):
        task(broken, Y)
    with pytest.raises(StreamError, match=r"targets are no class of the model. Got \[5\]"):
        task(X[:30], torch.full((30,), 5))
    task(X[:30].double(), torch.nn.functional.one_hot(Y[:30], 2))  # made to fit when they are read


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
@pytest.mark.parametrize(
    "strategy",
    ["ewc", {"name": "ewc", "n_examples": None}, "mas", "gpm", "replay", {"name": "replay", "selection": "herding"},
     "cumulative", "gdumb", {"name": "lwf", "cache_top_k": 1}],
    ids=str,
)  # fmt: skip
def test_what_is_learned_is_what_rows_in_memory_teach(strategy):
    weights = []
    for in_memory in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        trainer = ContinualTrainer(network, [strategy], {"epochs": 2, "learning_rate": 0.01})
        for number in range(2):
            first = 30 * number
            data = TensorDataset(X[first : first + 30], Y[first : first + 30]) if in_memory else Lying(first)
            trainer.train_task(f"t{number}", train_loader=DataLoader(data, 8, shuffle=True))
        weights.append([p.detach().clone() for p in network.parameters()])
    for mine, theirs in zip(*weights, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("strategy", ["none", "ewc", {"name": "ewc", "n_examples": None}, "mas", "lwf"], ids=str)
def test_no_more_than_a_few_batches_are_held_at_once(strategy):
    held = most = 0

    def collate(samples):
        nonlocal held, most

        def gone(n):
            nonlocal held
            held -= n

        x, y = default_collate(samples)
        held += len(x)
        most = max(most, held)
        weakref.finalize(x, gone, len(x))
        return x, y

    n = 600
    x = torch.randn(2 * n, 6, generator=torch.Generator().manual_seed(1))
    trainer = ContinualTrainer(nn.Linear(6, 2), [strategy], {"epochs": 1})
    for number in range(2):
        data = [(row, int(row[0] > 0)) for row in x[number * n : (number + 1) * n]]
        trainer.train_task(f"t{number}", train_loader=DataLoader(data, 20, collate_fn=collate))
    assert 20 <= most <= 100
    assert held <= 20


def test_a_task_that_was_learned_holds_on_to_no_dataset():
    dataset = Lying()
    trainer = ContinualTrainer(nn.Linear(6, 2), learner={"epochs": 1})
    trainer.train_task("a", train_loader=DataLoader(dataset, 8))
    gone = weakref.ref(dataset)
    del dataset
    assert gone() is None
    with pytest.raises(StreamError, match=r"evaluation items are training rows.*a training row of 'a'"):
        trainer.train_task("b", train_loader=DataLoader(Lying(30), 8), val_loader=DataLoader(Lying(0, 4), 4))
    rows = [{"text": "a"}]
    assert let_go(Task("text", "text", rows, rows)).train is rows


def test_rows_of_several_types_are_refused():
    data = [(X[i], float(Y[i]) if i == 9 else int(Y[i])) for i in range(12)]
    with pytest.raises(StreamError, match=r"its rows differ in type. Got \['torch.float32', 'torch.float64'"):
        read_loader("train_loader", DataLoader(data, 4), 1, 0)
