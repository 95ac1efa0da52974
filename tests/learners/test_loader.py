import random
from collections import Counter
from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from everlearn.learners.loader import BatchPlan, EncodedMixture, load_steps, n_task_steps, plan_epoch, row_batches
from everlearn.memory.disk import open_rows, write_rows
from everlearn.models.adapters import Adapters
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import TensorObjective
from everlearn.types import Examples, Group, Loader, Mixture
from support.models import byte_tokenizer
from support.tasks import prompt_task, tensor_task


def objective():
    return CausalObjective(byte_tokenizer(), 64)


def mixture(n_first=20, n_second=7, ratio=1.0):
    first, second = prompt_task(0, n_train=n_first), prompt_task(1, n_train=n_second)
    groups = (Group((Examples(first, first.train),)), Group((Examples(second, second.train),), ratio))
    return EncodedMixture(Mixture(groups), objective())


def rows_of_steps(steps):
    return [[address for micro in step for address in micro] for step in steps]


@pytest.mark.parametrize("group_by_length", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("n_first", [16, 21])
def test_four_batches_of_two_hold_the_rows_of_one_of_eight(group_by_length, ratio, n_first):
    encoded = mixture(n_first, ratio=ratio)
    once = plan_epoch(encoded, BatchPlan(8, 1, group_by_length), (0,))
    split = plan_epoch(encoded, BatchPlan(2, 4, group_by_length), (0,))
    assert [sorted(rows) for rows in rows_of_steps(once)] == [sorted(rows) for rows in rows_of_steps(split)]
    assert all(sum(group == 0 for group, _ in micro) <= 2 for step in split for micro in step)
    assert len(once) == n_task_steps(encoded, BatchPlan(8, 1, False), 1) == len(split)


@pytest.mark.parametrize("group_by_length", [False, True])
def test_an_epoch_is_one_pass_over_the_first_group(group_by_length):
    encoded = mixture(21)
    rows = Counter(
        a for step in rows_of_steps(plan_epoch(encoded, BatchPlan(4, 2, group_by_length), (0,))) for a in step
    )
    assert {a: n for a, n in rows.items() if a[0] == 0} == {(0, row): 1 for row in range(21)}


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 1.5])
def test_ratios_are_exact_over_the_epoch_and_within_one_row_in_each_batch(ratio):
    encoded = mixture(20, n_second=7, ratio=ratio)
    steps = plan_epoch(encoded, BatchPlan(3, 2, False), (0,))
    counts = [Counter(group for group, _ in micro) for step in steps for micro in step]
    assert sum(count[1] for count in counts) == int(20 * ratio + 1e-9)
    assert all(abs(count[1] - ratio * count[0]) <= 1 for count in counts)
    dealt = Counter(row for step in steps for micro in step for group, row in micro if group == 1)
    assert max(dealt.values()) - min(dealt[row] for row in range(7)) <= 1, "a pass ends before the next begins"


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.9, 1.0, 1.7])
def test_ratios_are_exact_to_one_row_over_all_epochs(ratio):
    encoded, total = mixture(16, n_second=7, ratio=ratio), 0
    for epoch in range(30):
        steps = plan_epoch(encoded, BatchPlan(3, 2, False), (0,), epoch)
        assert steps == plan_epoch(encoded, BatchPlan(3, 2, False), (0,), epoch)
        total += sum(group == 1 for step in rows_of_steps(steps) for group, _ in step)
        assert total == int(16 * (epoch + 1) * ratio + 1e-9)


@pytest.mark.parametrize("shares", [[0.05] * 20, [0.5, 0.25, 0.125, 0.0625, 0.0625], [1.0, 1.0], [0.37, 0.01, 0.01]])
def test_several_groups_keep_their_ratios_each_and_together(shares):
    tasks = [prompt_task(number, n_train=7) for number in range(len(shares))]
    own = Group((Examples(tasks[0], tasks[0].train[:6]),))
    others = tuple(Group((Examples(t, t.train),), share) for t, share in zip(tasks, shares, strict=True))
    encoded, counts = EncodedMixture(Mixture((own, *others)), objective()), Counter()
    for epoch in range(12):
        steps = rows_of_steps(plan_epoch(encoded, BatchPlan(2, 1, False), (0,), epoch))
        counts.update(group for step in steps for group, _ in step if group)
        n = 6 * (epoch + 1)
        assert all(abs(counts[group] - n * share) < 1 for group, share in enumerate(shares, start=1))
        assert abs(counts.total() - n * sum(shares)) <= 1


def test_orders_depend_on_every_part_of_the_seed_and_on_nothing_else():
    plan = BatchPlan(4, 1, False)
    state = torch.get_rng_state()
    orders = {
        str(plan_epoch(mixture(), plan, (seed, task, epoch))) for seed in (0, 1) for task in "ab" for epoch in (0, 1)
    }
    assert len(orders) == 8
    assert plan_epoch(mixture(), plan, (0, "a")) == plan_epoch(mixture(), plan, (0, "a"))
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_like_length_share_a_step():
    encoded = mixture(200, ratio=0.0)

    def spread(by_length):
        steps = rows_of_steps(plan_epoch(encoded, BatchPlan(4, 2, by_length), (0,)))
        lengths = [[encoded.lengths[row] for _, row in step] for step in steps]
        return sum(max(step) - min(step) for step in lengths)

    assert spread(True) < 0.5 * spread(False)


def test_loading_may_begin_at_any_step():
    encoded = mixture()
    steps = plan_epoch(encoded, BatchPlan(3, 2, False), (0,))
    whole = list(load_steps(encoded, steps))
    rest = list(load_steps(encoded, steps[2:]))
    assert len(rest) == len(whole) - 2 > 0
    for one, other in zip(whole[2:], rest, strict=True):
        for first, second in zip(one, other, strict=True):
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_addresses_can_be_put_in_the_order_of_a_batch():
    first, second, third = (tensor_task(number) for number in range(3))
    groups = (
        Group((Examples(first, first.train),)),
        Group(tuple(Examples(task, task.train) for task in (second, third))),
    )
    encoded = EncodedMixture(Mixture(groups), Plain())
    addresses = [(0, 5), (0, 2), (1, 30), (1, 3), (1, 25), (1, 0)]
    in_order = encoded.in_batch_order(addresses)
    assert sorted(in_order) == sorted(addresses)
    assert in_order != addresses
    rows = [first.train, torch.utils.data.ConcatDataset([second.train, third.train])]
    wanted = torch.stack([rows[group][row]["x"] for group, row in in_order])
    assert torch.equal(encoded.__getitems__(addresses)["x"], wanted)
    alone = EncodedMixture(Mixture.of(first), Plain())
    assert alone.in_batch_order([(0, 3), (0, 1)]) == [(0, 3), (0, 1)]


def test_opening_a_loader_leaves_the_global_generator_alone():
    encoded, state = mixture(), torch.get_rng_state()
    list(load_steps(encoded, plan_epoch(encoded, BatchPlan(3, 1, False), (0,))))
    assert torch.equal(torch.get_rng_state(), state)


def test_worker_processes_bring_the_same_batches():
    task = tensor_task(0)
    encoded = EncodedMixture(Mixture.of(task), Plain())
    steps = plan_epoch(encoded, BatchPlan(5, 1, False), (0,))
    for one, other in zip(load_steps(encoded, steps), load_steps(encoded, steps, workers=1), strict=True):
        assert torch.equal(one[0]["x"], other[0]["x"])


def test_worker_processes_draw_by_the_seed():
    class Drawing(Plain):
        def collate(self, picked):
            return {"x": torch.tensor([random.random(), numpy.random.rand(), torch.rand(1).item()])}

    encoded = EncodedMixture(Mixture.of(tensor_task(0)), Drawing())
    steps = plan_epoch(encoded, BatchPlan(12, 1, False), (0,))
    one, again, other = (
        torch.stack([step[0]["x"] for step in load_steps(encoded, steps, workers=1, seed=seed)]) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert (one != other).all()


class Plain:
    """An objective that hands tensors through."""

    def encode(self, rows, task, told=None):
        return rows

    def take(self, features, indices):
        return [{"x": features.x[indices], "y": features.y[indices]}]

    def collate(self, picked):
        return {name: torch.cat([piece[name] for piece in picked]) for name in picked[0]}


@pytest.mark.parametrize("n_rows", [24, 22, 21])
def test_two_ranks_part_the_rows(n_rows):
    encoded = EncodedMixture(Mixture.of(tensor_task(0, n_train=n_rows)), Plain())
    steps = plan_epoch(encoded, BatchPlan(5, 2, False), (0,))
    alone = list(load_steps(encoded, steps))
    ranks = [list(load_steps(encoded, steps, rank=rank, world_size=2)) for rank in (0, 1)]
    for whole, left, right in zip(alone, *ranks, strict=True):
        assert len(whole) == len(left) == len(right)
        for micro, *shares in zip(whole, left, right, strict=True):
            parts = torch.cat([share["x"] for share in shares if share])
            assert sorted(parts.tolist()) == sorted(micro["x"].tolist())
    if n_rows == 21:
        assert any(share == {} for step in ranks[1] for share in step)


def test_row_batches_go_over_rows_in_order_and_share_batches_among_ranks():
    task = prompt_task(0, n_train=11)
    whole = list(row_batches(objective(), task.train, task, 3))
    assert [indices for indices, _ in whole] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]
    shares = [list(row_batches(objective(), task.train, task, 3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [indices for share in shares for indices, _ in share] == [[0, 1, 2], [6, 7, 8], [3, 4, 5], [9, 10]]
    assert torch.equal(shares[1][0][1]["input_ids"], whole[1][1]["input_ids"])


def test_an_empty_first_group_has_no_steps():
    task = prompt_task(0)
    encoded = EncodedMixture(Mixture((Group(()), Group((Examples(task, task.train),)))), objective())
    assert plan_epoch(encoded, BatchPlan(4, 1, True), (0,)) == []
    assert n_task_steps(encoded, BatchPlan(4, 1, True), 3) == 0


def test_parts_of_a_group_are_addressed_in_a_row():
    first, second = tensor_task(0, n_train=3), tensor_task(1, n_train=2)
    empty = replace(first, train=first.train[:0])
    parts = tuple(Examples(task, task.train) for task in (first, empty, second))
    encoded = EncodedMixture(Mixture((Group(parts),)), Plain())
    batch = encoded.__getitems__([(0, 4), (0, 0), (0, 3)])
    wanted = torch.stack([second.train.x[1], second.train.x[0], first.train.x[0]])
    assert sorted(batch["x"].tolist()) == sorted(wanted.tolist())


def test_rows_on_disk_make_the_same_batches(tmp_path):
    first, second = prompt_task(0), prompt_task(1)
    stored = write_rows(second.train, len(second.train), tmp_path)
    own = Group((Examples(first, first.train),))
    in_memory, on_disk = (
        EncodedMixture(Mixture((own, Group((Examples(second, rows),)))), objective())
        for rows in (second.train, open_rows(stored, tmp_path))
    )
    addresses = [(0, 3), (1, 5), (0, 1), (1, 0), (1, 11)]
    one, other = in_memory.__getitems__(addresses), on_disk.__getitems__(addresses)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (
        EncodedMixture(Mixture((Group((Examples(second, rows),)),)), objective())
        for rows in (second.train, open_rows(stored, tmp_path))
    )
    assert first.lengths.tolist() == second.lengths.tolist()
    ((batch,),) = load_steps(on_disk, [[addresses]], workers=1)
    assert torch.equal(batch["input_ids"], one["input_ids"])


def test_a_loader_s_batches_are_the_micro_batches_and_other_groups_follow_its_rows():
    task = tensor_task(0, labelled=False)
    epoch = (torch.tensor([3, 1, 4, 1, 5, 9]), torch.tensor([3, 1, 2]))
    loader = Loader(TensorDataset(task.train.x, task.train.y), default_collate, [epoch])
    groups = (Group((Examples(task, task.train),), loader=loader), Group((Examples(task, task.train),), 0.5))
    encoded = EncodedMixture(Mixture(groups), TensorObjective(Adapters(nn.Linear(6, 2))))
    plan = BatchPlan(99, 2, False)
    steps = plan_epoch(encoded, plan, (0, 7))
    own = [[[row for group, row in micro if group == 0] for micro in step] for step in steps]
    assert own == [[[3, 1, 4], [1]], [[5, 9]]]
    assert sum(group for step in steps for micro in step for group, _ in micro) == 3
    assert (n_task_steps(encoded, plan, 4), plan_epoch(encoded, plan, (0, 7))) == (8, steps)
    (first,), *_ = load_steps(encoded, steps[1:])
    assert torch.equal(first["x"][:2], task.train.x[[5, 9]])


def rows_of_lengths(lengths, ratio=0.0):
    """Return a mixture whose first rows have these lengths in tokens."""
    rows = [{"prompt": "x" * (length - 3), "completion": "y"} for length in lengths]
    other = prompt_task(1, n_train=7)
    own = Group((Examples(replace(other, train=rows), rows),))
    return EncodedMixture(Mixture((own, Group((Examples(other, other.train),), ratio))), objective())


@pytest.mark.parametrize("group_by_length", [False, True, "auto"])
@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_batches_by_tokens_hold_their_budget_each_row_once_and_the_steps_of_any_accumulation(group_by_length, ratio):
    lengths = [4 + (7 * i) % 50 for i in range(300)]
    encoded = rows_of_lengths(lengths, ratio)
    once, split = BatchPlan(16, 1, group_by_length, 256), BatchPlan(16, 4, group_by_length, 64)
    for epoch in range(2):
        steps, in_four = (plan_epoch(encoded, plan, (0,), epoch) for plan in (once, split))
        assert [sorted(own(rows)) for rows in rows_of_steps(steps)] == [sorted(own(r)) for r in rows_of_steps(in_four)]
        assert sorted(row for rows in rows_of_steps(steps) for row in own(rows)) == list(range(300))
        for plan, planned in ((once, steps), (split, in_four)):
            for micro in (own(rows) for step in planned for rows in step):
                assert len(micro) * max(lengths[row] for row in micro) <= plan.tokens
        n_mixed = sum(len(rows) - len(own(rows)) for rows in rows_of_steps(steps))
        assert abs(n_mixed - 300 * ratio) <= 1
    assert n_task_steps(encoded, once, 2, (0,)) == sum(len(plan_epoch(encoded, once, (0,), e)) for e in range(2))
    assert plan_epoch(encoded, once, (0,), 1) == steps != plan_epoch(encoded, once, (0,), 0)


def own(rows):
    return [row for group, row in rows if group == 0]


def test_rows_longer_than_the_budget_are_alone():
    encoded = rows_of_lengths([10, 60, 10, 40, 10])
    micro = [sorted(own(rows)) for step in plan_epoch(encoded, BatchPlan(16, 1, True, 30), (0,)) for rows in step]
    assert sorted(micro) == [[0, 2, 4], [1], [3]]
    (step,) = plan_epoch(rows_of_lengths([20, 40, 20]), BatchPlan(16, 4, True, 30), (0,))
    assert sorted(own(rows) for rows in step) == [[0], [1], [2]], "alone, though a step has room for all"


def test_sorted_batches_by_tokens_waste_less():
    encoded = rows_of_lengths([4 + (7 * i) % 50 for i in range(400)])

    def padding(by_length):
        steps = plan_epoch(encoded, BatchPlan(16, 1, by_length, 200), (0,))
        lengths = [[encoded.lengths[row] for _, row in step] for step in rows_of_steps(steps)]
        return sum(len(step) * max(step) - sum(step) for step in lengths)

    assert padding(True) < 0.3 * padding(False)


def test_rows_are_sorted_by_themselves_where_lengths_differ_and_steps_are_many():
    plan = BatchPlan(4, 2, "auto")
    unlike, alike = [5 + 30 * (i % 2) for i in range(64)], [20 + i % 2 for i in range(64)]
    assert rows_of_lengths(unlike).sorts(plan)
    assert not rows_of_lengths(alike).sorts(plan)
    assert not rows_of_lengths(unlike[:63]).sorts(plan), "fewer than 8 steps"
    assert not rows_of_lengths(unlike[:63]).sorts(replace(plan, group_by_length=False))
    assert rows_of_lengths(alike).sorts(replace(plan, group_by_length=True))
    assert rows_of_lengths(unlike).sorts(BatchPlan(16, 1, "auto", 160))
    assert not rows_of_lengths(unlike).sorts(BatchPlan(16, 2, "auto", 160)), "8 rows of 20 tokens and 8 steps, halved"
    assert not EncodedMixture(Mixture.of(tensor_task(0)), Plain()).sorts(BatchPlan(1, 1, "auto"))


def test_encoding_is_told_of_all_parts():
    first, second, told = prompt_task(0, n_train=5), prompt_task(1, n_train=3), []
    groups = (Group((Examples(first, first.train),)), Group((Examples(second, second.train),)))
    EncodedMixture(Mixture(groups), objective(), lambda done, n_rows: told.append((done, n_rows)))
    assert told == [(5, 8), (8, 8)]
