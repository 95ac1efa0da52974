"""What several methods promise alike: earlier answers stay, unknown layers aren't exported, the first task is free."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from everlearn.errors import ModelError
from everlearn.models.export import export_model
from everlearn.streams.digits import DigitsStream
from support.runs import answers, assert_same, learn_at, make_bench, weights


@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
@pytest.mark.parametrize("strategy", ["hat", "packnet", "pnn", "separate"])
def test_split_digits_keep_their_answers_however_classes_are_named(strategy, scenario, llama, bert):
    tasks = tuple(DigitsStream(n_tasks=3, scenario=scenario).build())
    tasks = tuple(replace(task, train=task.train[:32], evaluation=task.evaluation[:8]) for task in tasks)
    bench, before = replace(make_bench("plain", llama, bert), tasks=tasks), {}
    run = bench.run([strategy], optimizer="adamw", weight_decay=0.1)
    for position, task in enumerate(tasks):
        learn_at(run, task, position)
        before[task.name] = answers(run, task)
        assert all(torch.equal(answers(run, run.tasks[name]), wanted) for name, wanted in before.items())


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("strategy", ["hat", "pnn"])
def test_layers_that_only_everlearn_knows_are_not_exported(strategy, merged, llama, bert, tmp_path):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run([strategy], epochs=1))
    with pytest.raises(ModelError, match=r"layers that only everlearn knows.*Keep the run"):
        export_model(run.model, tmp_path / "out", bench.tasks[0], merged=merged)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", ["hat", "pnn"])
def test_a_module_that_is_no_chain_of_linear_maps_is_refused(strategy, llama, bert):
    norm = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    bench = replace(make_bench("plain", llama, bert), config=norm)
    with pytest.raises(ModelError, match="is no chain of linear maps"):
        learn_at(bench.run([strategy]), bench.tasks[0], 0)


@pytest.mark.parametrize("strategy", ["gpm", "ogd"])
def test_the_first_task_is_learned_as_without_it(strategy, llama, bert):
    bench = make_bench("plain", llama, bert)
    plain = weights(bench.learn(bench.run(), upto=1))
    assert_same(plain, weights(bench.learn(bench.run([strategy]), upto=1)))
