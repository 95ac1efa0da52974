"""Data loaders of the user's: the rows they draw, their batches, and what is refused by name."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from everlearn.errors import StreamError
from everlearn.streams.loaders import read_loader
from everlearn.types import TensorRows

X = torch.arange(20.0).reshape(10, 2)
DATA = TensorDataset(X, torch.arange(10) % 2)


class Sentences(Dataset):
    """Sentences of 3 to 7 words."""

    def __len__(self):
        return 9

    def __getitem__(self, i):
        return torch.arange(i % 5 + 3) + 1, i % 2


def pad(rows):
    return pad_sequence([x for x, _ in rows], batch_first=True), torch.tensor([y for _, y in rows])


def drawn(loader, n_epochs=2):
    """Return the rows, and each epoch's batches as rows of the dataset."""
    rows, taken = read_loader("train_loader", loader, n_epochs, 0, "task")
    places = [int(x[0]) // 2 for x in rows.x]
    return places, [[[places[i] for i in batch] for batch in taken.batches(epoch)] for epoch in range(n_epochs)]


def test_the_sampler_decides_rows_and_order():
    places, epochs = drawn(DataLoader(DATA, batch_size=4))
    assert (places, epochs[0]) == (list(range(10)), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
    places, epochs = drawn(DataLoader(DATA, batch_size=4, shuffle=True, drop_last=True))
    assert [len(batch) for epoch in epochs for batch in epoch] == [4, 4, 4, 4]
    assert epochs[0] != epochs[1]
    places, epochs = drawn(DataLoader(DATA, batch_size=2, sampler=SubsetRandomSampler([1, 3, 5])))
    assert places == [1, 3, 5]  # the others are not the task's: no memory may hold them
    weights = [0.0] * 9 + [1.0]
    assert drawn(DataLoader(DATA, batch_size=2, sampler=WeightedRandomSampler(weights, 4)))[1] == [[[9, 9]] * 2] * 2
    own = DataLoader(DATA, batch_sampler=BatchSampler([7, 2, 5], 2, drop_last=False))
    assert drawn(own) == ([2, 5, 7], [[[7, 2], [5]]] * 2)


def test_the_same_purpose_draws_the_same_batches_whatever_the_global_generator():
    found = []
    for noise in range(2):
        torch.manual_seed(noise)
        found.append(drawn(DataLoader(DATA, batch_size=3, sampler=RandomSampler(DATA, replacement=True))))
        after = torch.rand(())
        torch.manual_seed(noise)
        assert torch.equal(torch.rand(()), after)
    assert found[0] == found[1]


def test_a_generator_of_the_user_s_holds():
    def with_generator(seed):
        return drawn(DataLoader(DATA, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(seed)))[1]

    assert with_generator(1) == with_generator(1) != with_generator(2)


def test_samples_are_read_anew_for_each_batch():
    class Noisy(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return torch.rand(2), i % 2

    rows, loader = read_loader("train_loader", DataLoader(Noisy(), batch_size=2), 1, 0)
    assert isinstance(rows, TensorRows)
    first, again = (loader.collate([loader.samples[0]])[0] for _ in range(2))
    assert not torch.equal(first, again)


def test_rows_of_different_lengths_stay_samples():
    rows, loader = read_loader("train_loader", DataLoader(Sentences(), batch_size=4, collate_fn=pad), 1, 0)
    assert [len(row["x"]) for row in rows] == [3, 4, 5, 6, 7, 3, 4, 5, 6]
    assert [x.shape[1] for x in (loader.collate([loader.samples[i] for i in b])[0] for b in loader.batches(0))] == [
        6,
        7,
        6,
    ]


def test_what_has_no_length_is_read_once():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(DATA)

    for source in (DataLoader(Stream(), batch_size=4), list(DataLoader(DATA, batch_size=4))):
        rows, loader = read_loader("train_loader", source, 3, 0)
        assert torch.equal(rows.x, X)
        assert loader.batches(0) == loader.batches(2) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(DATA, batch_size=None), r"makes no batches. Got 'batch_size=None'. Give it a batch_size"),
        (DataLoader(DATA, batch_size=2, sampler=["first", "second"]), "its sampler draws no row numbers"),
        (DataLoader(DATA, batch_size=16, drop_last=True), r"is empty. Got '10 rows'.*drop_last"),
        (DataLoader(X, batch_size=2), r"a batch is no pair \(x, y\)"),
        (DataLoader(DATA, batch_size=2, collate_fn=lambda rows: (rows, rows)), "a batch is no pair of tensors"),
        ([], "is empty"),
        (5, "is no data loader. Got 'int'"),
        (DATA, "is no data loader. Got 'TensorDataset'"),
        ([(X[0], torch.tensor(0))], "a batch has no target for each input"),
        ([(X[:2], X[:3, 0])], "a batch has no target for each input"),
        (DataLoader(DATA, batch_size=2, sampler=[0, 99]), "its sampler draws rows that the dataset doesn't have"),
        (DataLoader(DATA, batch_size=2, sampler=[0, -1]), "its sampler draws rows that the dataset doesn't have"),
        ([(X[:2], X[:2, 0]), (X[:2, :1], X[:2, 0])], "is read once, and its batches differ in shape"),
    ],
)
def test_what_is_not_supported_is_named(loader, message):
    with pytest.raises(StreamError, match=f"^train_loader: {message}"):
        read_loader("train_loader", loader, 1, 0)


def test_samples_that_differ_in_shape_must_be_pairs():
    class Mappings(Sentences):
        def __getitem__(self, i):
            return dict(zip("xy", super().__getitem__(i), strict=True))

    loader = DataLoader(Mappings(), batch_size=2, collate_fn=lambda rows: pad([(row["x"], row["y"]) for row in rows]))
    with pytest.raises(StreamError, match=r"differ in shape, and a sample is none that can be kept. Got 'dict'"):
        read_loader("train_loader", loader, 1, 0)
