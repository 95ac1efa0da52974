import pytest
import torch

from everlearn.strategies.ema import move_average
from everlearn.strategy import Strategy
from support.runs import assert_same, make_bench, weights


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
    move_average(average, weight, 0.75)
    torch.testing.assert_close(average[0], torch.tensor([1.5, 1.5]))


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
    _, average, seen, after = learned(bench, go_on_from=go_on_from)
    done = 0
    for n_steps, scored in after:
        for step in seen[done:n_steps]:
            average = {name: 0.8 * value + 0.2 * step[name] for name, value in average.items()}
        done = n_steps
        assert_same(average, scored, tolerance=1e-5)


def test_training_goes_on_as_if_nothing_were_averaged(bench):
    _, _, seen, after = learned(bench)
    plain = bench.learn(bench.run())
    assert_same(weights(plain), seen[-1])
    assert not all(torch.equal(tensor, seen[-1][name]) for name, tensor in after[-1][1].items())


def test_or_from_the_average(bench):
    run, _, _, after = learned(bench, go_on_from="average", decay=1.0)
    assert run.strategies[0].trained_ == {}
    start = weights(bench.run())
    assert all(torch.equal(tensor, start[name]) for name, tensor in after[0][1].items())
    assert_same(after[1][1], start)


def test_heads_that_a_task_does_not_use_come_nearer_to_where_they_were_trained_to(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["ema"], epochs=1), upto=1)
    before = weights(run)
    trained = dict(run.strategies[0].trained_)
    run.position = 1
    run.learn(bench.tasks[1])
    now = weights(run)
    heads = [name for name in before if "blocks.0" in name]
    assert heads
    for name in heads:
        left = 0.99**3  # three steps
        torch.testing.assert_close(now[name] - trained[name], left * (before[name] - trained[name]))


def test_weights_that_are_gone_are_forgotten(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["inclora", "ema"], epochs=1))
    assert list(run.strategies[1].average_) == list(run.model.adapters.trainable())
