import torch
from scipy.stats import chisquare

from everlearn.functional.reservoir import kept_by_reservoir, reservoir_slots


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
    assert kept_by_reservoir({"b": 1}, "a", 3, 1, 0, torch.Generator()) == {"b": [0]}
