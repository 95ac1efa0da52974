import math

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.learners.loader import row_batches
from everlearn.models.gates import gates_of
from everlearn.strategies.hat import compensation, sharpness
from everlearn.types import Step
from support.runs import (
    answers,
    assert_same,
    learn_at,
    make_bench,
    weights,
)

KINDS = ["causal_lora", "classify", "plain"]
ADAMW = {"optimizer": "adamw", "weight_decay": 0.1}


def test_sharpness_rises_in_equal_steps_once_a_cycle():
    found = [sharpness(step, 10, 2, 400.0) for step in range(10)]
    assert found[0] == found[5] == 1 / 400
    assert found[4] == found[9] == pytest.approx(400)
    assert found[1] - found[0] == pytest.approx(found[2] - found[1])
    assert sharpness(0, 1, 1, 400.0) == 1 / 400


def test_with_compensation_the_gradient_does_not_depend_on_sharpness():
    embedding = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for s in (0.01, 1.0, 5.0):
        e = embedding.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.sigmoid(s * e).sum(), e)
        # the paper's aim: s_max times the derivative of sigmoid(e)
        wanted = 400 * torch.sigmoid(embedding) * (1 - torch.sigmoid(embedding))
        torch.testing.assert_close(gradient * compensation(embedding, s, 400.0), wanted)


def at_a_step(bench, **options):
    """Return a run at the first step of its second task, its forward pass done."""
    run = bench.run([{"name": "hat", **options}])
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    run.strategies[0].adapt_model(run, bench.tasks[1])
    run.model.network.train()
    (_, batch), *_ = row_batches(run.model.objective, bench.tasks[1].train, bench.tasks[1], 5)
    step = Step(run, bench.tasks[1], run.model.adapters.trainable(), n_steps=12, batch=batch)
    step.outputs = run.model.objective.forward(run.model.network, batch)
    return run, step


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_the_share_of_free_units_asked_for(kind, llama, bert):
    run, step = at_a_step(make_bench(kind, llama, bert), strength=0.5)
    (masks,) = run.strategies[0].masks_.values()
    asked = free = 0.0
    for name, gate in gates_of(run.model.network).items():
        for e, used in zip(gate.embedding.tolist(), masks[name].tolist(), strict=True):
            asked += 0.0 if used else 1 / (1 + math.exp(-e / 400))
            free += not used
    assert run.strategies[0].penalty(step).item() == pytest.approx(0.5 * asked / free, rel=1e-5)
    assert run.strategies[0].masks_.keys() == {run.learned[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_between_units_of_earlier_tasks_do_not_move(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.run(["hat", "replay"], **ADAMW)
    bench.learn(run, upto=1)
    before = weights(run)
    (masks,) = run.strategies[0].masks_.values()
    learn_at(run, bench.tasks[1], 1)
    after = weights(run)
    if kind == "plain":
        (used,) = masks.values()
        assert torch.equal(before["1.weight"][used], after["1.weight"][used])
        assert torch.equal(before["1.bias"][used], after["1.bias"][used])
        assert torch.equal(before["3.weight"][:2, used], after["3.weight"][:2, used])
        assert not torch.equal(before["3.weight"][2:, used], after["3.weight"][2:, used])
        assert torch.all(before["1.weight"][~used] != after["1.weight"][~used])
        return
    for gate, used in masks.items():
        up = gate.removesuffix("gate") + "weight"
        down = up.replace("lora_B", "lora_A")
        assert torch.equal(before[down][used], after[down][used])
        assert torch.equal(before[up][:, used], after[up][:, used])


@pytest.mark.parametrize("kind", KINDS)
def test_three_tasks_and_one_again_leave_earlier_answers_as_they_were(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(["hat"], **ADAMW))
    first, second = (answers(run, task) for task in bench.tasks)
    learn_at(run, bench.tasks[0], 2)
    assert torch.equal(answers(run, bench.tasks[1]), second)
    assert not torch.equal(answers(run, bench.tasks[0]), first)


def test_scoring_leaves_gates_and_weights_as_they_were(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["hat"]))
    present = weights(run)
    run.score(bench.tasks[0])
    assert_same(present, weights(run))
    assert all(gate.chosen is None for gate in gates_of(run.model.network).values())


def test_the_record_says_which_units_are_used(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["hat"])
    facts = [learn_at(run, task, i).strategy_facts["hat"] for i, task in enumerate(bench.tasks)]
    first, second = (torch.cat(list(masks.values())) for masks in run.strategies[0].masks_.values())
    assert facts[0]["shares"] == {"tensor_0": first.float().mean().item()}
    assert facts[1]["shares"]["tensor_1"] == (second & ~first).float().mean().item()
    assert facts[1]["free"] == pytest.approx((~first & ~second).float().mean().item())


def test_more_weight_on_the_penalty_leaves_more_units_free(llama, bert):
    def free(strength):
        bench = make_bench("plain", llama, bert)
        run = bench.run([{"name": "hat", "strength": strength}], epochs=30, learning_rate=0.1)
        return learn_at(run, bench.tasks[0], 0).strategy_facts["hat"]["free"]

    assert free(20.0) > free(0.0)


def test_models_without_units_to_gate_are_refused(llama, bert):
    with pytest.raises(ConfigError, match="its units are those of a LoRA, or of an MLP"):
        make_bench("causal_full", llama, bert).run(["hat"])
    with pytest.raises(ConfigError, match="add classes to the head"):
        make_bench("classify", llama, bert, head="shared").run(["hat"])
