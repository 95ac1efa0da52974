from dataclasses import replace

import pytest

from everlearn.errors import ConfigError
from everlearn.memory.rows import rows_of, size
from everlearn.strategies.replay import Replay
from everlearn.types import Mixture
from support.runs import make_bench
from support.tasks import text_task


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def test_the_memory_is_bounded_over_all_tasks(plain):
    run = plain.learn(plain.run([{"name": "replay", "capacity": 10}], epochs=1))
    assert size(run.strategies[0].memory_) == 10
    assert set(run.strategies[0].memory_) == {"tensor_0", "tensor_1"}
    assert run.strategies[0].n_seen_ == 48


def test_a_fraction_keeps_a_share_of_each_task(plain):
    run = plain.learn(plain.run([{"name": "replay", "fraction": 0.25}], epochs=1))
    assert {name: len(rows_of(stored)) for name, stored in run.strategies[0].memory_.items()} == {
        "tensor_0": 6,
        "tensor_1": 6,
    }
    tiny = replace(plain, tasks=(plain.tasks[0],))
    assert size(tiny.learn(tiny.run([{"name": "replay", "fraction": 0.001}])).strategies[0].memory_) == 1


def test_it_adds_a_group_by_ratio_from_the_second_task_on(plain):
    run = plain.run([{"name": "replay", "ratio": 0.5}], epochs=1)
    (strategy,), mixture = run.strategies, Mixture.of(plain.tasks[1])
    assert strategy.train_data(mixture, run) is mixture
    plain.learn(run, upto=1)
    group = strategy.train_data(mixture, run).groups[1]
    assert (group.ratio, len(group)) == (0.5, 24)


def test_replayed_rows_are_learned_again(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    trained_on = replace(bench.tasks[0], evaluation=bench.tasks[0].train)
    assert bench.learn(bench.run(["replay"], epochs=30)).score(trained_on).value > 0.8
    assert bench.learn(bench.run(epochs=30)).score(trained_on).value < 0.3


def test_steps_hold_old_rows_by_the_ratio(plain):
    sizes = []
    run = plain.run([{"name": "replay", "ratio": 0.5}], epochs=1)
    forward = run.model.objective.forward

    def counting(network, batch, past=()):
        sizes.append(len(batch["y"]))
        return forward(network, batch, past)

    run.model.objective.forward = counting
    plain.learn(run)
    assert sizes == [4] * 6 + [6] * 6


def test_the_memory_goes_through_saved_rows_of_text():
    strategy, task = Replay(), text_task(0)
    run = type("Run", (), {"seed": 0, "position": 0})
    strategy.end_task(run, task)
    assert [row["text"] for row in rows_of(strategy.memory_[task.name])] == [row["text"] for row in task.train]


@pytest.mark.parametrize(("name", "value"), [("capacity", -1), ("ratio", -0.1), ("fraction", 0.0), ("fraction", 1.1)])
def test_values_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"replay.{name}"):
        Replay(**{name: value})
