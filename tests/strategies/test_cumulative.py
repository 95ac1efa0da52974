from dataclasses import replace

import pytest

from everlearn.errors import ConfigError
from everlearn.types import Mixture
from support.runs import make_bench


def test_each_task_is_learned_with_the_rows_of_all_before(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["cumulative"], epochs=1)
    costs = []
    for position, task in enumerate(bench.tasks):
        run.position = position
        costs.append(run.learn(task).n_tokens)
    assert costs == [24, 48]


def test_a_repeated_task_comes_once(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.learn(bench.run(["cumulative"], epochs=1))
    run.position, run.current = 2, bench.tasks[0].name
    (group,) = run.strategies[0].train_data(Mixture.of(bench.tasks[0]), run).groups
    assert [part.task.name for part in group.parts] == ["tensor_0", "tensor_1"]


def test_rows_that_were_not_kept_are_missed(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["cumulative"], epochs=1)
    bench.learn(run, upto=1)
    run.tasks["tensor_0"] = replace(bench.tasks[0], train=bench.tasks[0].train[:0])
    run.position = 1
    with pytest.raises(ConfigError, match=r"were not kept. Got \['tensor_0'\]"):
        run.learn(bench.tasks[1])
