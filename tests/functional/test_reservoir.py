from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from everlearn.functional.reservoir import draw_within, kept_by_reservoir, reservoir_slots


def kept_after(chunks, capacity, generator):
    slots, n_seen = {}, 0
    for n_new in chunks:
        placed = reservoir_slots(n_seen, n_new, capacity, generator)
        slots.update({slot: n_seen + new for slot, new in placed.items()})
        n_seen += n_new
    return slots


def test_inclusion_is_uniform():
    generator = torch.Generator().manual_seed(0)
    n_items, capacity, n_trials = 30, 6, 3000
    counts = torch.zeros(n_items)
    for _ in range(n_trials):
        for item in kept_after((10, 1, 19), capacity, generator).values():
            counts[item] += 1
    assert counts.sum() == capacity * n_trials
    # inclusions of one trial exclude each other: the variance of a count is n p (1 - p), not n p
    statistic = chisquare(counts.numpy()).statistic / (1 - capacity / n_items)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    assert 10 < statistic < 58  # 0.1% and 99.9% of chi-square with 29 degrees of freedom


def test_the_first_items_fill_the_slots_in_order():
    assert reservoir_slots(0, 3, 5, torch.Generator()) == {0: 0, 1: 1, 2: 2}
    assert reservoir_slots(3, 2, 5, torch.Generator()) == {3: 0, 4: 1}


def test_no_capacity_keeps_nothing_and_slots_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    assert reservoir_slots(0, 50, 0, generator) == {}
    assert all(0 <= slot < 4 and 0 <= new < 50 for slot, new in reservoir_slots(0, 50, 4, generator).items())


def test_it_is_a_function_of_the_generator():
    first, second = (reservoir_slots(7, 40, 5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first == second


def test_what_is_left_of_each_task_counts_within_the_task():
    kept = kept_by_reservoir({"a": 2, "b": 1}, "a", 4, 3, 5, torch.Generator())
    assert kept.keys() <= {"a", "b"}
    assert sum(map(len, kept.values())) == 5
    assert all(0 <= i < {"a": 2 + 4, "b": 1}[name] for name, own in kept.items() for i in own)
    assert kept_by_reservoir({}, "a", 3, 0, 5, torch.Generator()) == {"a": [0, 1, 2]}
    assert kept_by_reservoir({"b": 1}, "a", 3, 1, 0, torch.Generator()) == {}
    kept = kept_by_reservoir({"a": 9, "b": 9}, "a", 4, 18, 5, torch.Generator().manual_seed(0))
    assert sum(map(len, kept.values())) == 5


@pytest.mark.parametrize("capacities", [(12, 6, 6), (12, 4, 8), (6, 6, 30), (30, 10, 10)])
def test_inclusion_stays_uniform_when_the_capacity_changes(capacities):
    generator, n_items, n_trials = torch.Generator().manual_seed(0), 30, 2000
    counts = torch.zeros(n_items)
    for _ in range(n_trials):
        kept: list[int] = []
        for first, capacity in zip((0, 10, 20), capacities, strict=True):
            left = draw_within({"a": len(kept)}, capacity, generator).get("a", [])
            kept = [kept[i] for i in left]
            placed = reservoir_slots(first, 10, capacity, generator, len(kept))
            slots = dict(enumerate(kept)) | {slot: first + new for slot, new in placed.items()}
            kept = list(slots.values())
            assert len(kept) == len(set(kept)) <= capacity
        for item in kept:
            counts[item] += 1
    share = counts / n_trials
    wanted = {(12, 6, 6): 6 / 30, (12, 4, 8): 4 / 20, (6, 6, 30): 6 / 20, (30, 10, 10): 10 / 30}[capacities]
    assert (share - wanted).abs().max() < 4.5 * (wanted * (1 - wanted) / n_trials) ** 0.5


def test_rows_are_let_go_uniformly_and_only_where_they_are_too_many():
    assert draw_within({"a": 2, "b": 1}, 3, torch.Generator()) == {"a": [0, 1], "b": [0]}
    assert draw_within({"a": 2, "b": 1}, 0, torch.Generator()) == {}
    generator, counts = torch.Generator().manual_seed(0), Counter()
    for _ in range(2000):
        kept = draw_within({"a": 4, "b": 6}, 3, generator)
        assert all(own == sorted(own) for own in kept.values())
        counts.update((name, i) for name, own in kept.items() for i in own)
    assert sum(counts.values()) == 3 * 2000
    assert all(abs(n / 2000 - 0.3) < 0.05 for n in counts.values())
    assert len(counts) == 10
