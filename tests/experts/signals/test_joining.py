"""The space of tasks: standardised, scaled, weighted blocks."""

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.experts.signals import Space
from everlearn.experts.signals.context import FEATURES, SPREAD, TYPICAL

BLOCKS = {"text": 6, "gradient": 4, "context": len(FEATURES)}
N = sum(BLOCKS.values())


def signals(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, N, generator=torch.Generator().manual_seed(seed)) * torch.linspace(1, 5, N) + 3


def test_with_many_tasks_each_number_is_standardised_by_its_own_statistics():
    many = signals(4000)
    space = Space.of(many, BLOCKS)
    scaled = (many - space.mean) / space.deviation
    assert scaled.mean(0).abs().max() < 0.02
    torch.testing.assert_close(scaled.var(0, correction=0), torch.ones(N), rtol=0.05, atol=0)


def test_few_tasks_are_held_by_the_prior():
    none = Space.of(torch.zeros(0, N), BLOCKS)
    assert none.mean[-9:].tolist() == pytest.approx(TYPICAL)
    assert none.deviation[-9:].tolist() == pytest.approx(SPREAD)
    assert none.mean[:10].tolist() == [0] * 10
    few = signals(2)
    space = Space.of(few, BLOCKS)
    torch.testing.assert_close(space.mean[:10], few[:, :10].sum(0) / 3)
    squares = (few[:, :6] - few[:, :6].sum(0) / 3).square().sum(0)
    torch.testing.assert_close(space.deviation[:6] ** 2, (squares + 8 * (squares / 2).mean()) / 10)
    context = (few[:, 10:] - space.mean[10:]).square().sum(0)
    torch.testing.assert_close(space.deviation[10:] ** 2, (context + 8 * torch.tensor(SPREAD) ** 2) / 10)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_vectors_have_norm_1_and_each_block_its_weight(n):
    space = Space.of(signals(n), BLOCKS, {"text": 2.0, "context": 0.0})
    vectors = space.joined(signals(3, seed=9))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    parts = vectors.split(list(BLOCKS.values()), dim=1)
    torch.testing.assert_close(parts[0].norm(dim=1), torch.full((3,), 2 / 5**0.5))
    torch.testing.assert_close(parts[1].norm(dim=1), torch.full((3,), 1 / 5**0.5))
    assert not parts[2].any()
    torch.testing.assert_close(space.joined(signals(3, seed=9)[1]), vectors[1])


def test_what_all_tasks_share_counts_for_little():
    shared = torch.randn(N, generator=torch.Generator().manual_seed(5))
    tasks = shared + 0.2 * signals(40)
    raw = torch.nn.functional.normalize(tasks[:, :10], dim=1)
    assert (raw[0] @ raw[1:].T).mean() > 0.5
    space = Space.of(tasks, BLOCKS, {"context": 0.0})
    vectors = space.joined(tasks)
    assert abs((vectors[0] @ vectors[1:].T).mean()) < 0.1


def test_another_dimension_is_named():
    with pytest.raises(ConfigError, match=r"need text 6 \+ gradient 4 \+ context 9 = 19 numbers. Got 18"):
        Space.of(torch.zeros(2, N - 1), BLOCKS)
    with pytest.raises(ConfigError, match=r"= 19 numbers. Got 20"):
        Space.of(signals(2), BLOCKS).joined(torch.zeros(N + 1))


def test_bad_weights_are_refused():
    with pytest.raises(ConfigError, match="leave no signal"):
        Space.of(signals(2), BLOCKS, dict.fromkeys(BLOCKS, 0.0))
    with pytest.raises(ConfigError, match="weight of text: is out of range"):
        Space.of(signals(2), BLOCKS, {"text": -1.0})
