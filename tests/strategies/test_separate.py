from dataclasses import replace

import pytest
import torch
from torch import nn

from everlearn.errors import ConfigError
from support.runs import answers, assert_same, learn_at, make_bench, weights
from support.tasks import tensor_task


@pytest.mark.parametrize("kind", ["causal_lora", "causal_full", "plain"])
def test_a_later_task_learns_as_if_it_were_the_first(kind, llama, bert):
    bench = make_bench(kind, llama, bert, head="task")
    bench = replace(bench, tasks=bench.tasks[::-1])
    alone = bench.run()
    for task in bench.tasks:
        alone.add_labels(task)
    alone.position = 1
    alone.learn(bench.tasks[1])
    run = bench.run(["separate"])
    for task in bench.tasks:
        run.add_labels(task)
    bench.learn(run)
    assert_same(weights(alone), weights(run))


@pytest.mark.parametrize("kind", ["causal_full", "classify", "plain"])
def test_a_task_learned_again_starts_again_and_the_others_stay(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(["separate"]))
    first, second = (answers(run, task) for task in bench.tasks)
    learn_at(run, bench.tasks[0], 2)
    assert torch.equal(answers(run, bench.tasks[1]), second)
    assert not torch.equal(answers(run, bench.tasks[0]), first)


def test_running_statistics_belong_to_the_task(llama, bert):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    tasks = tuple(tensor_task(i, labelled=False) for i in range(2))
    bench = replace(make_bench("plain", llama, bert), config=network, tasks=tasks)
    run = bench.run(["separate"])
    bench.learn(run, upto=1)
    first = answers(run, bench.tasks[0])
    learn_at(run, bench.tasks[1], 1)
    present = weights(run)
    assert torch.equal(answers(run, bench.tasks[0]), first)
    assert_same(present, weights(run))


def test_it_keeps_a_copy_for_each_task(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.run(["separate"])
    sizes = [learn_at(run, task, i).strategy_bytes["separate"] for i, task in enumerate(bench.tasks)]
    n_bytes = sum(p.nbytes for p in run.model.adapters.trainable().values())
    assert n_bytes < sizes[1] - sizes[0] < 1.3 * n_bytes


def test_a_shared_head_is_refused(llama, bert):
    with pytest.raises(ConfigError, match="add classes to the head"):
        make_bench("classify", llama, bert, head="shared").run(["separate"])


def test_tasks_learned_without_it_keep_the_weights_that_they_left(llama, bert):
    bench = make_bench("plain", llama, bert)
    first, second = bench.tasks
    third = replace(tensor_task(2), labels=first.labels)
    plain = bench.learn(bench.run(), upto=1)
    run = bench.run(["separate"])
    run.load_state(plain.state())
    before = answers(plain, first)
    learn_at(run, second, 1)
    assert torch.equal(answers(run, first), before)
    without = bench.run()
    without.load_state(run.state())
    learn_at(without, third, 2)
    before = answers(without, third)
    again = bench.run(["separate"])
    again.load_state(without.state())
    learn_at(again, second, 3)
    assert torch.equal(answers(again, third), before)


def test_weights_that_another_method_took_away_are_an_error(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["separate"], epochs=1), upto=1)
    other = bench.run(["inclora"], epochs=1)
    other.load_state(run.state())
    learn_at(other, bench.tasks[1], 1)
    again = bench.run(["separate"])
    again.load_state(other.state())
    with pytest.raises(ConfigError, match="strategy 'separate': weights it starts from are gone"):
        learn_at(again, bench.tasks[0], 2)
