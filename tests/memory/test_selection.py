import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional as F

from everlearn.memory.selection import (
    allot,
    diverse_order,
    draw_shares,
    entropies,
    herding_order,
    margins,
    order_of,
    sample_by_bytes,
    weighted_excess,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("sizes", "budget", "wanted"),
    [
        ([10, 10], 10, [5, 5]),
        ([10, 10, 10], 10, [4, 3, 3]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([1, 0, 2], 99, [1, 0, 2]),
        ([5, 5], 0, [0, 0]),
        ([], 3, []),
    ],
)
def test_equal_numbers_as_far_as_there_are_rows(sizes, budget, wanted):
    assert allot([[1] * size for size in sizes], budget) == wanted


def test_the_group_that_spent_least_takes_its_next_row():
    def slowly(costs, budget):
        kept, spent, done = [0] * len(costs), [0] * len(costs), set()
        while True:
            open_groups = [g for g, own in enumerate(costs) if g not in done and kept[g] < len(own)]
            if not open_groups:
                return kept
            group = min(open_groups, key=lambda g: (spent[g], g))
            cost = costs[group][kept[group]]
            if sum(spent) + cost > budget:
                done.add(group)
            else:
                kept[group], spent[group] = kept[group] + 1, spent[group] + cost

    generator = seeded()
    for budget in (0, 7, 40, 200):
        costs = [torch.randint(1, 20, (n,), generator=generator).tolist() for n in (5, 1, 0, 12)]
        kept = allot(costs, budget)
        assert kept == slowly(costs, budget)
        assert sum(sum(own[:n]) for own, n in zip(costs, kept, strict=True)) <= budget


def test_equal_scores_stay_in_order():
    scores = torch.tensor([1.0, 3.0, 1.0, 2.0, 3.0])
    assert order_of(scores, highest=True) == [1, 4, 3, 0, 2]
    assert order_of(scores, highest=False) == [0, 2, 3, 1, 4]


def test_entropy_and_margin_of_known_distributions():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    logits = p.log().clamp(min=-1e30)
    wanted = -(p * p.log().nan_to_num(neginf=0)).sum(-1)
    torch.testing.assert_close(entropies(logits), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(margins(logits), torch.tensor([0.0, 0.5, 0.0, 1.0]), rtol=1e-5, atol=1e-6)
    assert entropies(torch.zeros(1, 8)).item() == pytest.approx(torch.tensor(8.0).log().item())
    assert (entropies(torch.zeros(2, 1)).tolist(), margins(torch.zeros(2, 1)).tolist()) == ([0, 0], [1, 1])


def test_herding_keeps_the_mean_of_those_chosen_closest():
    def slowly(x, n):
        chosen = []
        for _ in range(n):
            free = [i for i in range(len(x)) if i not in chosen]
            chosen.append(min(free, key=lambda i: (x.mean(0) - x[[*chosen, i]].mean(0)).norm().item()))
        return chosen

    x = torch.randn(20, 3, generator=seeded()).double()
    assert herding_order(x, 20) == slowly(x, 20)
    assert herding_order(x, 5) == herding_order(x, 20)[:5]
    assert herding_order(x[:3], 9) == slowly(x[:3], 3)
    assert herding_order(x[:0], 4) == herding_order(x, 0) == []


def test_gss_greedy_replaces_by_its_rules():
    def slowly(g, n, generator, n_compared):
        memory, scores = [], []
        for row in torch.randperm(len(g), generator=generator).tolist():
            drawn = torch.randperm(len(memory), generator=generator)[:n_compared].tolist()
            cosines = [F.cosine_similarity(g[row], g[memory[i]], dim=0).item() for i in drawn]
            score = max(cosines) + 1 if cosines else 1.0
            if len(memory) < n:
                memory.append(row)
                scores.append(score)
            elif score < 1:
                i = int(torch.multinomial(torch.tensor(scores).double(), 1, generator=generator))
                if torch.rand((), generator=generator).item() < scores[i] / (scores[i] + score):
                    memory[i], scores[i] = row, score
        return [memory[i] for i in sorted(range(len(memory)), key=lambda i: scores[i])]

    g = torch.randn(200, 2, generator=seeded()).double() * torch.rand(200, 1, generator=seeded(1)).double()
    for n in (1, 7, 300):
        assert diverse_order(g, n, seeded(2), 4) == slowly(g, n, seeded(2), 4)
    assert diverse_order(g, 0, seeded()) == []


def test_gss_greedy_keeps_the_few_that_point_elsewhere():
    ways = torch.eye(4).repeat_interleave(torch.tensor([97, 1, 1, 1]), 0) * torch.tensor([1, -1, -1, -1])
    ways[:97, 1:] = 0.2  # the many point against the few
    found = [set(diverse_order(ways, 10, seeded(seed), 10)) for seed in range(20)]
    held = sum(len(kept & {97, 98, 99}) for kept in found)
    assert held > 3 * 20 * 3 * 10 / 100  # three times what a uniform sample would hold


def test_a_sample_by_bytes_is_the_same_however_the_rows_come():
    keys = torch.randperm(60, generator=seeded()).tolist()
    costs = torch.randint(1, 30, (60,), generator=seeded(1)).tolist()
    costs[keys.index(2)] = 500  # larger than the whole: passed over

    def kept_in(steps):
        memory, limit, low = [], 10**6, 0
        for high in (*steps, 60):
            rows = [*memory, *range(low, high)]
            chosen, limit = sample_by_bytes([keys[r] for r in rows], [costs[r] for r in rows], 200, limit)
            memory, low = [rows[i] for i in chosen], high
        return memory

    whole = kept_in([])
    assert 100 < sum(costs[row] for row in whole) <= 200
    assert [keys[row] for row in whole] == sorted(keys[row] for row in whole)
    assert kept_in([20, 40]) == kept_in([1, 2, 3]) == kept_in(range(60)) == whole
    assert sample_by_bytes([5], [10], 9, 10**6) == ([], 10**6)


def test_a_sample_by_bytes_is_uniform():
    counts = torch.zeros(30)
    for trial in range(3000):
        keys = torch.randint(2**62, (30,), generator=seeded(trial)).tolist()
        first, limit = sample_by_bytes(keys[:20], [10] * 20, 65, 2**63)
        rows = [*first, *range(20, 30)]
        chosen, _ = sample_by_bytes([keys[row] for row in rows], [10] * len(rows), 65, limit)
        counts[[rows[i] for i in chosen]] += 1
    assert counts.sum() == 3000 * 6
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_half_is_drawn_evenly_and_half_by_the_loss_that_was_added():
    assert draw_shares([10, 30], [0.0, -1.0]) == [0.25, 0.75]
    assert draw_shares([10, 30], [2.0, 0.0]) == [0.5 * 0.25 + 0.5, 0.5 * 0.75]
    shares = draw_shares([10, 20, 20], [1.0, 0.5, 2.0])  # adds 10, 10, 40
    assert shares == pytest.approx([0.1 + 0.5 / 6, 0.2 + 0.5 / 6, 0.2 + 0.5 * 4 / 6])
    assert sum(shares) == pytest.approx(1)


def test_replayed_items_weigh_by_the_weight_and_the_mean_weight_is_one():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    old = torch.tensor([False, False, False, False, True, True])  # mixed by a ratio of 1/2
    for weight in (0.0, 0.5, 1.0, 3.0):
        weights = torch.where(old, weight, 1.0)
        wanted = (weights * losses).sum() / weights.sum()
        found = losses.mean() + weighted_excess(losses, old, weight, 0.5)
        torch.testing.assert_close(found, wanted)
    assert weighted_excess(losses, old, 1.0, 0.5) == 0
