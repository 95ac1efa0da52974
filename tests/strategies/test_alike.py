"""What several methods promise alike: earlier answers stay, unknown layers aren't exported, the first task is free."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from everlearn.errors import ModelError
from everlearn.models.export import export_model
from everlearn.strategies import agem, gem
from everlearn.strategy import Strategy
from everlearn.streams.digits import DigitsStream
from support.runs import answers, assert_same, learn_at, make_bench, weights
from support.tasks import tensor_task


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


class Scaled(Strategy):
    """Multiplies the gradients, before the method sees them."""

    name = "scaled"

    def __init__(self, scale):
        self.scale = scale

    def edit_grads(self, step):
        for p in step.params.values():
            p.grad *= self.scale


class Watching(Strategy):
    """Sees how far each step went."""

    name = "watching"

    def __init__(self):
        self.moves = []

    def edit_grads(self, step):
        self.before = [p.detach().clone() for p in step.params.values()]

    def after_step(self, step):
        moved = [p.detach() - before for p, before in zip(step.params.values(), self.before, strict=True)]
        self.moves.append(torch.cat([m.flatten() for m in moved]).double())


def cosines_with_memories(bench, name, scale, monkeypatch, protect="update", **options):
    """Return the cosine of every step with the gradient of every memory, that of the gradients scaled."""
    module, function = {"gem": (gem, "grouped_gradients"), "agem": (agem, "reference_gradients")}[name]
    original, memories, watching = vars(module)[function], [], Watching()

    def scaled(*args):
        found = original(*args)
        lines = found if name == "gem" else torch.cat([t.flatten() for t in found])[None]
        memories.append(lines.double().clone() * scale)
        return lines * scale if name == "gem" else [t * scale for t in found]

    monkeypatch.setattr(module, function, scaled)
    run = bench.run([Scaled(scale), {"name": name, "protect": protect}, watching], epochs=2, **options)
    bench.learn(run)
    monkeypatch.setattr(module, function, original)
    steps = watching.moves[-len(memories) :]
    return torch.cat([F.cosine_similarity(step[None], lines) for step, lines in zip(steps, memories, strict=True)])


OPTIMIZERS = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
}


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["gem", "agem"])
def test_no_step_that_was_really_taken_raises_a_memory_s_loss(name, optimizer, scale, llama, bert, monkeypatch):
    bench = make_bench("domain", llama, bert)
    bench = replace(bench, tasks=(*bench.tasks, replace(tensor_task(2), labels=("no", "yes"))))
    found = cosines_with_memories(bench, name, scale, monkeypatch, **OPTIMIZERS[optimizer])
    assert len(found) == (36 if name == "gem" else 24)
    assert found.max() < 1e-5
    gradient_alone = cosines_with_memories(bench, name, scale, monkeypatch, "gradient", **OPTIMIZERS[optimizer])
    assert gradient_alone.max() > 0.01
