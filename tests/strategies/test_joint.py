from dataclasses import replace

import pytest

from everlearn.errors import ConfigError
from support.runs import assert_same, make_bench, weights
from support.tasks import tensor_task


def test_all_is_learned_at_the_first_task_and_nothing_later(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["joint"], epochs=40)
    first = run.learn(bench.tasks[0])
    kept = weights(run)
    assert all(run.score(replace(task, evaluation=task.train)).value > 0.9 for task in bench.tasks)
    run.position = 1
    second = run.learn(bench.tasks[1])
    assert_same(kept, weights(run))
    assert (first.n_steps, second.n_steps) == (40 * 12, 0)
    assert first.n_tokens == 40 * 48


def test_classifiers_get_all_heads_at_once(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.run(["joint"], epochs=1)
    run.learn(bench.tasks[0])
    assert run.strategies[0].trained_ == [task.name for task in bench.tasks]
    assert len(run.model.adapters.head.blocks) == 2


def test_a_task_that_comes_later_is_refused(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["joint"], epochs=1)
    run.learn(bench.tasks[0])
    run.position = 1
    with pytest.raises(ConfigError, match=r"a task came after the joint training. Got 'late'"):
        run.learn(replace(tensor_task(1), name="late"))
