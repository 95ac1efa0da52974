"""The weighted loss against means over rows and targets by hand, however a step is cut."""

import pytest
import torch

from everlearn.learners.loader import EncodedMixture
from everlearn.learners.sft import Hooks, take_step
from everlearn.learners.weighing import row_weights
from everlearn.models.objectives import item_losses, mean_loss
from everlearn.types import Examples, Group, Mixture, Outputs, Step, Task
from support.runs import StopAfter, Stopped, assert_same, make_bench, weights


def task_of(name, *lengths):
    """Return a task whose rows have completions of these lengths, in bytes."""
    rows = [{"prompt": f"{name}{i}=", "completion": "x" * length} for i, length in enumerate(lengths)]
    return Task(name, "prompt", rows, rows[:1])


NEW, OLD, OTHER, BY_TOKEN = task_of("a", 9, 5, 7, 8), task_of("b", 1, 4), task_of("c", 2), task_of("d", 3)
ADDRESSES = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 1), (2, 0), (3, 0)]


@pytest.fixture
def step(llama, bert):
    run = make_bench("causal_lora", llama, bert).run()
    groups = [Group((Examples(NEW, NEW.train),))]
    for task in (OLD, OTHER, BY_TOKEN):
        groups.append(Group((Examples(task, task.train),), by_row=task is not BY_TOKEN))
    encoded = EncodedMixture(Mixture(tuple(groups)), run.model.objective)
    return encoded, Step(run, NEW, run.model.adapters.trainable(), by_row=encoded.by_row)


def losses_by_row(encoded, step):
    outputs = step.run.model.objective.forward(step.run.model.network, encoded.__getitems__(ADDRESSES))
    losses = item_losses(outputs).detach()
    return [losses[outputs.owners == row] for row in range(len(ADDRESSES))]


def by_hand(rows, groups):
    """Return the loss of a step: by token where a group counts so, by row else."""
    new = torch.cat([own for own, group in zip(rows, groups, strict=True) if group == 0])
    of_row = len(new) / groups.count(0)
    total, count = 0.0, 0.0
    for own, group in zip(rows, groups, strict=True):
        total += of_row * own.mean() if group in (1, 2) else own.sum()
        count += of_row if group in (1, 2) else len(own)
    return float(total / count)


@pytest.mark.parametrize("cut", [[9], [5, 4], [1, 2, 3, 3], [4, 4, 1]])
def test_each_row_that_is_mixed_in_counts_as_a_new_one_however_the_step_is_cut(cut, step):
    encoded, step = step
    wanted = by_hand(losses_by_row(encoded, step), [group for group, _ in ADDRESSES])
    rows, start = [], 0
    for n in cut:
        rows.append(ADDRESSES[start : start + n])
        start += n
    batches = [encoded.__getitems__(own) for own in rows]
    optimizer = torch.optim.SGD(step.params.values(), lr=0.0)
    found = take_step(step.run, step, batches, rows, optimizer, Hooks.of(step.run), None)
    assert found == pytest.approx(wanted, rel=1e-5)
    of_items = []
    for batch, own, of_rows in zip(batches, rows, row_weights(step.run, step, batches, rows), strict=True):
        assert len(of_rows) == len(own)
        of_items.append(of_rows.repeat_interleave(step.run.model.objective.items_of_rows(batch)))
    assert torch.cat(of_items).mean().item() == pytest.approx(1.0)


def test_only_by_row_half_of_the_rows_are_half_of_the_loss(step):
    encoded, step = step
    rows = [(0, 0), (0, 1), (1, 0), (1, 1)]
    batch = encoded.__getitems__(rows)
    (of_rows,) = row_weights(step.run, step, [batch], [rows])
    counts = step.run.model.objective.items_of_rows(batch)
    shares = of_rows * counts / (of_rows * counts).sum()
    torch.testing.assert_close(shares[2:], torch.tensor([0.25, 0.25]))
    assert shares[:2].sum().item() == pytest.approx(0.5)
    assert float(counts[2:].sum() / counts.sum()) < 0.4


def test_without_rows_mixed_in_all_targets_count_alike(step):
    encoded, step = step
    for rows in ([(0, 0), (0, 2)], [(0, 0), (3, 0)]):
        assert row_weights(step.run, step, [encoded.__getitems__(rows)], [rows]) == [None]


def test_weights_are_those_of_the_items():
    outputs = Outputs(torch.randn(3, 4), torch.tensor([0, 3, 1]), torch.tensor([0, 0, 1]))
    counts = torch.tensor([0.5, 0.5, 2.0])
    torch.testing.assert_close(mean_loss(outputs, counts), (counts * item_losses(outputs)).sum() / 3)
    step = Step(None, NEW, {}, outputs=outputs)
    values, chosen = torch.tensor([1.0, 10.0]), torch.tensor([True, False, True])
    assert step.total(values, chosen).item() == 11.0
    step.weights = counts
    assert step.total(values, chosen).item() == 20.5


@pytest.mark.parametrize("name", ["replay", "der", "derpp", "er_ace"])
@pytest.mark.parametrize("kind", ["plain", "classify"])
def test_rows_of_one_target_weigh_the_same_either_way(name, kind, llama, bert):
    bench = make_bench(kind, llama, bert, head="shared")
    by_row, by_token = (
        weights(bench.learn(bench.run([{"name": name, "weigh_by": how}], epochs=1))) for how in ("row", "token")
    )
    assert_same(by_row, by_token)


@pytest.mark.parametrize("strategies", [["replay", "lwf"], ["replay", "der", "er_ace"], ["derpp", {"name": "l2p"}]])
def test_methods_that_stand_together_do_not_depend_on_accumulation(strategies, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    options = {"optimizer": "sgd", "learning_rate": 0.05, "epochs": 1}
    once = bench.learn(bench.run(strategies, batch_size=8, **options))
    split = bench.learn(bench.run(strategies, batch_size=2, accumulation=4, **options))
    assert_same(weights(once), weights(split), tolerance=1e-6)


def test_stopped_and_resumed_in_mid_task(llama, bert, tmp_path):
    bench = make_bench("tag", llama, bert)
    strategies = [{"name": "replay", "ratio": 0.3}]
    whole = bench.learn(bench.run(strategies))
    with pytest.raises(Stopped):
        bench.learn(bench.run(strategies, folder=tmp_path, every_steps=1, listener=StopAfter(10)))
    assert_same(weights(whole), weights(bench.learn(bench.run(strategies, folder=tmp_path, every_steps=1))))
    by_token = bench.learn(bench.run([{"name": "replay", "ratio": 0.3, "weigh_by": "token"}]))
    assert any(not torch.equal(tensor, weights(by_token)[name]) for name, tensor in weights(whole).items())
