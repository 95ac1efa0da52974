from collections import Counter
from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.memory.rows import rows_of, size
from everlearn.strategies.gdumb import GDumb, classes_of, greedily_balanced
from everlearn.types import Mixture
from support.runs import assert_same, learn_at, make_bench, weights
from support.tasks import classify_task, prompt_task, regression_task, tensor_task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_memory_with_room_takes_everything():
    assert greedily_balanced([], list("aabbb"), 10, generator()) == [0, 1, 2, 3, 4]


def test_classes_get_equal_shares_whatever_their_order_and_size():
    for stream in ("a" * 50 + "b" * 30 + "c" * 20, "c" * 20 + "b" * 30 + "a" * 50, "abc" * 20):
        kept = greedily_balanced([], list(stream), 12, generator())
        assert Counter(stream[i] for i in kept) == {"a": 4, "b": 4, "c": 4}


def test_a_class_with_few_items_leaves_its_share_to_those_that_came_first():
    stream = "a" * 50 + "b" * 2
    kept = greedily_balanced([], list(stream), 10, generator())
    assert Counter(stream[i] for i in kept) == {"a": 8, "b": 2}


def test_a_memory_in_use_makes_room_for_new_classes_only_as_far_as_needed():
    kept = greedily_balanced(list("aaaabbbb"), list("cc"), 8, generator())
    assert {8, 9} <= set(kept)
    assert len(kept) == 8
    assert Counter("aaaabbbbcc"[i] for i in kept) == {"a": 3, "b": 3, "c": 2}
    assert greedily_balanced(list("aaaabbbb"), list("abab"), 8, generator()) == list(range(8))


def test_which_items_leave_is_drawn_evenly():
    gone = Counter()
    for seed in range(400):
        gone.update(set(range(4)) - set(greedily_balanced(list("aaaa"), ["b"], 4, generator(seed))))
    assert sum(gone.values()) == 400
    assert all(60 < gone[i] < 140 for i in range(4))


def test_more_classes_than_room_keep_within_it():
    assert len(greedily_balanced([], list("abcdef"), 3, generator())) == 3


def test_classes_are_those_of_each_task_else_the_task():
    unlabelled = tensor_task(1, labelled=False)
    for task in (classify_task(0), tensor_task(1), unlabelled):
        assert set(classes_of(task, task.train)) == {(task.name, 0), (task.name, 1)}
    for task in (prompt_task(0), regression_task(0)):
        assert set(classes_of(task, task.train)) == {(task.name, None)}


def test_tasks_with_the_same_classes_share_the_memory_evenly(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    bench = replace(bench, tasks=tuple(replace(task, labels=("yes", "no")) for task in bench.tasks))
    run = bench.learn(bench.run([{"name": "gdumb", "capacity": 8}], epochs=1))
    (strategy,) = run.strategies
    kept = {name: Counter(rows_of(stored).y.tolist()) for name, stored in strategy.memory_.items()}
    assert kept == {task.name: {0: 2, 1: 2} for task in bench.tasks}


def test_each_task_trains_from_the_beginning_on_the_memory_alone(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run = bench.run(["gdumb"])
    begin = weights(run)
    for position, task in enumerate(bench.tasks):
        run.position, run.current = position, task.name
        run.add_labels(task)
        (strategy,) = run.strategies
        strategy.begin_task(run, task)
        assert_same(weights(run), begin)
        (group,) = strategy.train_data(Mixture.of(task), run).groups
        assert len(group) == 24 * (position + 1)
        run.learn(task)
        assert any(not torch.equal(begin[name], tensor) for name, tensor in weights(run).items())
    order = [part.task.name for part in strategy.train_data(Mixture.of(task), run).groups[0].parts]
    assert order == ["tensor_0", "tensor_1"]


@pytest.mark.parametrize("kind", ["causal_lora", "classify"])
def test_heads_and_adapters_begin_anew_too(llama, bert, kind):
    bench = make_bench(kind, llama, bert, head="shared")
    run = bench.run(["gdumb"], epochs=1)
    begin = weights(run)
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    run.strategies[0].begin_task(run, bench.tasks[1])
    now = weights(run)
    assert all(torch.equal(now[name], tensor) for name, tensor in begin.items())


def test_the_memory_is_balanced_over_tasks_where_rows_have_no_class(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run([{"name": "gdumb", "capacity": 8}], epochs=1))
    kept = {name: len(rows_of(stored)) for name, stored in run.strategies[0].memory_.items()}
    assert kept == {"add_0": 4, "add_1": 4}


def test_rows_of_a_task_that_comes_again_are_kept_once(llama, bert):
    bench = make_bench("plain", llama, bert)
    bench = replace(bench, tasks=(bench.tasks[0], bench.tasks[0]))
    run = bench.learn(bench.run(["gdumb"], epochs=1))
    assert size(run.strategies[0].memory_) == 24


def test_values_out_of_range():
    with pytest.raises(ConfigError, match=r"gdumb\.capacity"):
        GDumb(capacity=0)


def test_what_was_learned_without_it_belongs_to_the_beginning(llama, bert):
    bench = make_bench("classify", llama, bert)
    first, second = bench.tasks
    run = bench.learn(bench.run(["gdumb"], epochs=1), upto=1)
    without = bench.run(epochs=1)
    without.load_state(run.state())
    learn_at(without, second, 1)
    again = bench.run(["gdumb"], epochs=1)
    again.load_state(without.state())
    again.position = 2
    again.strategies[0].begin_task(again, first)
    assert_same(weights(again), weights(without))
    learn_at(again, first, 2)
    again.position = 3
    again.strategies[0].begin_task(again, first)
    assert_same(weights(again), weights(without))
