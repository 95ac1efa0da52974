from dataclasses import replace

import pytest
import torch

from everlearn.learners.statistics import statistics_of
from everlearn.strategies.ema import move_average, share_of_step
from everlearn.strategy import Strategy
from support.runs import Bench, StopAfter, Stopped, assert_same, learn_at, make_bench, weights


@pytest.fixture
def bench(llama, bert):
    return make_bench("plain", llama, bert, head="shared")


class Recorder(Strategy):
    """Keeps the weights after every step."""

    name = "recorder"

    def __init__(self):
        self.seen = []

    def state(self):
        return {}

    def after_step(self, step):
        self.seen.append({name: p.detach().clone() for name, p in step.params.items()})


def test_the_average_moves_by_its_share():
    average, weight = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0], dtype=torch.bfloat16)]
    move_average(average, weight, 0.25)
    torch.testing.assert_close(average[0], torch.tensor([1.5, 1.5]))


@pytest.mark.parametrize("decay", [0.0, 0.8, 0.99, 1.0])
def test_after_n_steps_it_is_the_mean_of_these_n_weighted_by_age(decay):
    seen = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = torch.tensor(1e6, dtype=torch.float64)  # what stood there before has no share
    for n, weight in enumerate(seen, start=1):
        average += share_of_step(decay, n) * (weight - average)
        ages = torch.arange(n - 1, -1, -1, dtype=torch.float64)
        by_age = torch.ones(n, dtype=torch.float64) * decay**ages
        torch.testing.assert_close(average, (by_age * seen[:n]).sum() / by_age.sum())


def learned(bench, **fields):
    run = bench.run([{"name": "ema", "decay": 0.8, **fields}])
    start = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
    recorder = Recorder()
    run.strategies.append(recorder)
    after = []
    for position in range(2):
        bench_upto = position + 1
        run.position = position
        run.learn(bench.tasks[position])
        after.append((len(recorder.seen), weights(run)))
        assert len(run.learned) == bench_upto
    return run, start, recorder.seen, after


@pytest.mark.parametrize("go_on_from", ["trained", "average"])
def test_what_is_scored_is_the_average_over_all_steps_of_all_tasks(bench, go_on_from):
    _, _, seen, after = learned(bench, go_on_from=go_on_from)
    for n_steps, scored in after:
        shares = [0.8 ** (n_steps - 1 - i) for i in range(n_steps)]
        for name, value in scored.items():
            mean = sum(share * step[name] for share, step in zip(shares, seen, strict=False)) / sum(shares)
            torch.testing.assert_close(value, mean)


def test_training_goes_on_as_if_nothing_were_averaged(bench):
    _, _, seen, after = learned(bench)
    plain = bench.learn(bench.run())
    assert_same(weights(plain), seen[-1])
    assert not all(torch.equal(tensor, seen[-1][name]) for name, tensor in after[-1][1].items())


def test_or_from_the_average(bench):
    run, _, seen, after = learned(bench, go_on_from="average")
    assert run.strategies[0].trained_ == {}
    _, _, plain, _ = learned(bench)
    n_steps, average = after[0]
    assert_same(seen[n_steps - 1], plain[n_steps - 1])
    moved = [(seen[n_steps][name] - average[name]).abs().max() for name in average]  # by one step of Adam
    assert max(moved) < 0.011 < max((plain[n_steps][name] - average[name]).abs().max() for name in average)


def test_heads_that_a_task_does_not_use_come_nearer_to_where_they_were_trained_to(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["ema"], epochs=1), upto=1)
    before = weights(run)
    trained = dict(run.strategies[0].trained_)
    learn_at(run, bench.tasks[1], 1)
    now = weights(run)
    heads = [name for name in before if "blocks.0" in name]
    assert heads
    for name in heads:
        left = 0.99**3 * (1 - 0.99**3) / (1 - 0.99**6)  # three steps of six
        torch.testing.assert_close(now[name] - trained[name], left * (before[name] - trained[name]))


def test_a_head_that_is_new_begins_its_own_average(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run([{"name": "ema", "decay": 1.0}], epochs=1), upto=1)
    recorder = Recorder()
    run.strategies.append(recorder)
    learn_at(run, bench.tasks[1], 1)
    now = weights(run)
    heads = [name for name in now if "blocks.1" in name]
    assert heads
    for name in heads:
        torch.testing.assert_close(now[name], torch.stack([step[name] for step in recorder.seen]).mean(0))


@pytest.mark.parametrize("go_on_from", ["trained", "average"])
def test_what_was_learned_without_it_is_not_undone(bench, go_on_from):
    first, second = bench.tasks
    strategies = [{"name": "ema", "go_on_from": go_on_from}]
    run = bench.learn(bench.run(strategies), upto=1)
    plain = bench.run()
    plain.load_state(run.state())
    learn_at(plain, second, 1)
    again = bench.run(strategies)
    again.load_state(plain.state())
    recorder = Recorder()
    again.strategies.append(recorder)
    learn_at(again, first, 2)
    before = weights(plain)
    assert max((recorder.seen[0][name] - before[name]).abs().max() for name in before) < 0.011  # one step of Adam
    assert set(again.strategies[0].n_averaged_.values()) == {len(recorder.seen)}
    assert again.learned_without(again.strategies[0]) == []


def with_norms(n_inputs: int, n_outputs: int) -> torch.nn.Module:
    """Return an MLP with a batch norm."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_inputs, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, n_outputs)
    )


@pytest.fixture
def normed(bench):
    return Bench("plain", replace(bench.config, name=f"{__name__}:with_norms", options={}), bench.tasks)


def test_statistics_are_those_of_the_averaged_weights(normed):
    run = normed.learn(normed.run([{"name": "ema", "batch_size": 8}]), upto=1)
    network, x = run.model.network, normed.tasks[0].train.x
    hidden = network[0](x)
    torch.testing.assert_close(network[1].running_mean, hidden.mean(0))  # three whole batches
    within = torch.stack([hidden[i : i + 8].var(0) for i in range(0, 24, 8)])
    assert (network[1].running_var / within.mean(0) - 1).abs().max() < 0.5
    assert network[1].momentum == 0.1
    plain = normed.learn(normed.run(), upto=1)
    trained = run.strategies[0].trained_
    for name, tensor in statistics_of(plain.model.adapters).items():
        assert torch.equal(tensor, trained[name])


def test_with_norms_too_training_goes_on_as_if_nothing_were_averaged_and_resumes(normed, tmp_path):
    run = normed.learn(normed.run(["ema"]))
    plain = normed.learn(normed.run())
    assert_same(run.strategies[0].trained_, weights(plain))
    with pytest.raises(Stopped):
        normed.learn(normed.run(["ema"], folder=tmp_path, every_steps=1, listener=StopAfter(15)))
    assert_same(weights(run), weights(normed.learn(normed.run(["ema"], folder=tmp_path, every_steps=1))))


def test_weights_that_are_gone_are_forgotten(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["inclora", "ema"], epochs=1))
    assert list(run.strategies[1].average_) == list(run.model.adapters.trainable())
