from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.strategy import Strategy
from support.runs import answers, learn_at, make_bench, weights
from support.tasks import tensor_task

ADAMW = {"optimizer": "adamw", "weight_decay": 0.1}


@dataclass
class Watching(Strategy):
    """Keeps the weights after each step."""

    seen: list = field(default_factory=list)

    def after_step(self, step):
        self.seen.append(weights(step.run))


def output_names(run):
    heads = run.model.adapters.output_parameters()
    return {name for name, p in run.model.network.named_parameters() if id(p) in heads}


@pytest.mark.parametrize("kind", ["classify", "plain"])
@pytest.mark.parametrize("warmup_share", [0.0, 0.5, 1.0])
def test_the_backbone_learns_in_the_first_share_of_the_first_task(kind, warmup_share, llama, bert):
    bench, watching = make_bench(kind, llama, bert), Watching()
    run = bench.run([{"name": "seq_star", "warmup_share": warmup_share}, watching], **ADAMW)
    before = weights(run)
    bench.learn(run, upto=1)
    backbone = [name for name in run.model.adapters.trainable() if name not in output_names(run)]
    trace = [before, *watching.seen]
    moved = [any(not torch.equal(a[name], b[name]) for name in backbone) for a, b in pairwise(trace)]
    n_warm = round(warmup_share * len(moved))
    assert moved == [True] * n_warm + [False] * (len(moved) - n_warm)
    first = weights(run)
    learn_at(run, bench.tasks[1], 1)
    last = weights(run)
    assert all(torch.equal(first[name], last[name]) for name in backbone)


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "tag", "plain"])
def test_old_classes_answer_as_before(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.run(["seq_star", "replay"], **ADAMW)
    bench.learn(run, upto=1)
    n = len(bench.tasks[0].labels)
    before = answers(run, bench.tasks[0])[:, :n]
    learn_at(run, bench.tasks[1], 1)
    assert torch.equal(answers(run, bench.tasks[0])[:, :n], before)


@pytest.mark.parametrize(("kind", "head"), [("classify", "shared"), ("classify", "task"), ("plain", "task")])
def test_a_task_learned_again_trains_its_own_classes_only(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.learn(bench.run(["seq_star"], **ADAMW))
    first, second = (answers(run, task) for task in bench.tasks)
    learn_at(run, bench.tasks[0], 2)
    n = len(bench.tasks[0].labels)
    others = slice(n if head == "shared" else 0, None)
    assert torch.equal(answers(run, bench.tasks[1])[:, others], second[:, others])
    assert not torch.equal(answers(run, bench.tasks[0])[:, :n], first[:, :n])


def test_outputs_that_all_tasks_share_go_on_learning(llama, bert):
    bench = replace(make_bench("plain", llama, bert), tasks=tuple(tensor_task(i, labelled=False) for i in range(2)))
    run = bench.run(["seq_star"], **ADAMW)
    bench.learn(run, upto=1)
    first = weights(run)
    learn_at(run, bench.tasks[1], 1)
    last = weights(run)
    assert {name for name in first if not torch.equal(first[name], last[name])} == output_names(run)


def test_language_models_are_refused(llama, bert):
    with pytest.raises(ConfigError, match="works on classifiers"):
        make_bench("causal_lora", llama, bert).run(["seq_star"])
