import pytest
import torch

from everlearn.strategies.merge import merge
from support.runs import Bench, assert_same, learn_at, make_bench, weights


@pytest.fixture
def bench(llama, bert):
    return make_bench("plain", llama, bert, head="shared")


def three(shape=(6, 5)):
    torch.manual_seed(0)
    return [torch.randn(shape) for _ in range(3)]


def slow_ties(changes, density):
    """Yadav et al. 2023, section 3, entry by entry."""
    kept = []
    for change in changes:
        flat = change.flatten()
        largest = sorted(range(len(flat)), key=lambda i: -abs(flat[i]))[: int(density * len(flat))]
        kept.append([flat[i].item() if i in set(largest) else 0.0 for i in range(len(flat))])
    merged = []
    for entries in zip(*kept, strict=True):
        sign = 1 if sum(entries) >= 0 else -1
        alike = [entry for entry in entries if entry * sign > 0]
        merged.append(sum(alike) / len(alike) if alike else 0.0)
    return torch.tensor(merged).view(changes[0].shape)


def test_linear_is_the_weighted_mean_of_the_changes():
    base, before, now = three()
    wanted = base + 0.7 * (before - base) + 0.3 * (now - base)
    torch.testing.assert_close(merge(base, before, now, "linear", 0.3, 0.5), wanted)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_trims_elects_signs_and_takes_means(density):
    base, before, now = three()
    wanted = base + slow_ties([before - base, now - base], density)
    torch.testing.assert_close(merge(base, before, now, "ties", 0.5, density), wanted)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_is_right_on_average_or_exact_without_drops(method):
    base, before, now = three((4, 3))
    if method == "dare_linear":
        mean = torch.stack([merge(base, before, now, method, 0.4, 0.5) for _ in range(4000)]).mean(0)
        torch.testing.assert_close(mean, merge(base, before, now, "linear", 0.4, 0.5), atol=0.1, rtol=0)
    whole = merge(base, before, now, method, 0.5, 1.0)
    like = "linear" if method == "dare_linear" else "ties"
    torch.testing.assert_close(whole, merge(base, before, now, like, 0.5, 1.0))


def test_all_tasks_weigh_alike_where_no_share_is_given(bench):
    run = bench.run(["merge"])
    base, kept = weights(run), {}
    for position in range(3):
        task = bench.tasks[position % 2]
        run.position = position
        trained = {}
        end = type(run.strategies[0]).end_task

        def watch(self, run, task, trained=trained, end=end):
            trained.update(weights(run))
            end(self, run, task)

        type(run.strategies[0]).end_task = watch
        try:
            run.learn(task)
        finally:
            type(run.strategies[0]).end_task = end
        wanted = {name: kept[name] + (t - kept[name]) / (position + 1) if kept else t for name, t in trained.items()}
        kept = weights(run)
        assert_same(wanted, kept, tolerance=1e-5)
    assert any(not torch.equal(base[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties"])
def test_weights_that_only_one_side_has_moved_stay_as_they_are(llama, bert, method):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run([{"name": "merge", "method": method}], epochs=1), upto=1)
    first = {name: tensor for name, tensor in weights(run).items() if "blocks.0" in name}
    run.position = 1
    run.learn(bench.tasks[1])
    now = weights(run)
    assert all(torch.equal(now[name], tensor) for name, tensor in first.items())
    plain = bench.learn(bench.run(epochs=1))
    block = next(name for name in now if "blocks.1" in name)
    assert torch.equal(now[block], weights(plain)[block])
    shared = next(name for name in now if "lora_B" in name)
    assert not torch.equal(now[shared], weights(plain)[shared])


def test_the_first_task_is_plain_training(bench):
    assert_same(weights(bench.learn(bench.run(), upto=1)), weights(bench.learn(bench.run(["merge"]), upto=1)))


def test_it_keeps_one_copy_between_tasks(bench):
    run = bench.learn(bench.run(["merge"], epochs=1))
    trained = sum(p.numel() * 4 for p in run.model.adapters.trainable().values())
    assert trained <= run.strategies[0].state_bytes() < 1.2 * trained + 400


def test_a_task_learned_without_merging_counts_as_one(bench):
    first, second = bench.tasks
    run = bench.learn(bench.run(["merge"]), upto=1)
    without = bench.run()
    without.load_state(run.state())
    learn_at(without, second, 1)
    again = bench.run(["merge"])
    plain = bench.run()
    for later in (again, plain):
        later.load_state(without.state())
        learn_at(later, first, 2)
    before, trained = weights(without), weights(plain)
    for name, value in weights(again).items():
        torch.testing.assert_close(value, torch.lerp(before[name], trained[name], 1 / 3))


def test_statistics_are_those_of_the_merged_weights(bench):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4))
    run = Bench("plain", network, bench.tasks).run(["merge"])
    for position, task in enumerate(bench.tasks):
        learn_at(run, task, position)
    hidden = network[0](bench.tasks[1].train.x)
    torch.testing.assert_close(network[1].running_mean, hidden.mean(0))
