"""Memory aware synapses beside a slow version of the paper's equations (reference/regularisation.py).

Avalanche 0.6 (training/plugins/mas.py) computes it otherwise (benchmarks/importance.py has numbers):
- It takes the absolute value of a batch's mean gradient, in which rows cancel: the importance falls as batches grow,
  and a short last batch weighs as much as a whole one. Ours is the mean of each row's absolute gradient (eq. 2).
- It leaves the model in training mode meanwhile, with dropout; ours is in evaluation mode.
- It averages over tasks with alpha = 1/2, so that the first task's part fades; ours is the sum (the paper accumulates).
- Its penalty has no factor 1/2, and its norm takes in the logits of classes that the row may not answer.
Alike: the squared norm of the logits, the pull to the last task's weights.
"""

import pytest
import torch
from torch.nn import functional as F

from everlearn.learners.loader import row_batches
from everlearn.strategies.mas import MAS, squared_norm
from everlearn.types import Outputs
from reference import regularisation
from support.runs import make_bench, start_lora_away_from_zero
from support.tasks import prompt_task, tensor_task


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def outputs(logits):
    return Outputs(logits, torch.zeros(len(logits), dtype=torch.long), torch.arange(len(logits)))


def test_the_norm_leaves_hidden_classes_out():
    logits = torch.tensor([[3.0, torch.finfo(torch.float32).min / 4, 4.0]])
    assert squared_norm(outputs(logits)).item() == 25
    assert squared_norm(outputs(logits), centred=True).item() == pytest.approx(0.5)


def test_a_shift_of_all_logits_is_no_answer_where_they_are_centred():
    logits = torch.randn(3, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(squared_norm(outputs(logits), centred=True), logits)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, 2 * (logits - logits.mean(1, keepdim=True)))


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_it_equals_the_reference_at_any_batch_size(plain, batch_size):
    run = plain.learn(plain.run(["mas"], epochs=1))
    w1, b1, w2, b2 = (p.detach().clone().requires_grad_() for p in run.model.adapters.trainable().values())
    rows, parameters = list(plain.tasks[1].train.x), dict(run.model.adapters.trainable())
    wanted = regularisation.mas(
        dict(zip(parameters, (w1, b1, w2, b2), strict=True)), rows,
        lambda x: ((x @ w1.T + b1).clamp(min=0) @ w2.T + b2)[2:],
    )  # fmt: skip
    found = MAS(n_examples=None, batch_size=batch_size).estimate(run, plain.tasks[1])
    for name, total in wanted.items():
        torch.testing.assert_close(found[name], total / len(rows), rtol=1e-4, atol=1e-7)
    assert found[list(found)[2]][:2].abs().sum() == 0  # the other task's columns


def test_the_mean_of_absolute_gradients_is_not_the_absolute_value_of_their_mean(plain):
    run = plain.learn(plain.run(["mas"], epochs=1), upto=1)
    parameters, task = run.model.adapters.trainable(), plain.tasks[0]
    (batch,) = (batch for _, batch in row_batches(run.model.objective, task.train, task, len(task.train)))
    total = squared_norm(run.model.objective.forward(run.model.network, batch)) / len(task.train)
    of_mean = [g.abs() for g in torch.autograd.grad(total, list(parameters.values()))]
    of_rows = list(MAS(n_examples=None).estimate(run, task).values())
    assert all((rows >= mean - 1e-6).all() for rows, mean in zip(of_rows, of_mean, strict=True))
    assert sum(rows.sum() for rows in of_rows) > 1.2 * sum(mean.sum() for mean in of_mean)


@pytest.mark.parametrize("kind", ["causal_lora", "causal_full"])
def test_on_a_language_model_it_takes_the_logits_of_the_completion(llama, bert, kind):
    model, task = (run := make_bench(kind, llama, bert).run()).model, prompt_task(0, n_train=5)
    start_lora_away_from_zero(run)
    singles = [batch for _, batch in row_batches(model.objective, task.train, task, 1)]

    def logits_of(batch):
        logits = model.network(input_ids=batch["input_ids"]).logits[0, :-1]
        return logits[batch["labels"][0, 1:] != -100]

    with model.evaluating():
        wanted = regularisation.mas(model.adapters.trainable(), singles, logits_of)
    found = MAS(batch_size=3).estimate(run, task)
    assert sum(value.sum() for value in found.values()) > 0
    for name, total in wanted.items():
        torch.testing.assert_close(found[name], total / 5, rtol=2e-3, atol=1e-5)


def test_importances_add_up_and_the_last_weights_are_the_anchor(plain):
    run = plain.run([{"name": "mas", "strength": 0.0}], epochs=1)
    strategy, found, sizes = run.strategies[0], [], []
    for position, task in enumerate(plain.tasks):
        run.position = position
        run.learn(task)
        found.append(strategy.estimate(run, task))
        sizes.append(strategy.state_bytes())
    for name, p in run.model.adapters.trainable().items():
        torch.testing.assert_close(strategy.precision_[name], found[0][name] + found[1][name])
        assert torch.equal(strategy.anchor_[name], p)
    assert strategy.state_bytes() == sizes[0]  # it doesn't grow with tasks


def test_it_is_a_mean_over_at_most_n_examples(plain):
    run = plain.learn(plain.run(["mas"], epochs=1), upto=1)
    whole, same, part = (MAS(n_examples=n).estimate(run, plain.tasks[0]) for n in (None, 24, 6))
    name = next(iter(whole))
    assert torch.equal(whole[name], same[name])
    assert not torch.equal(whole[name], part[name])
    assert 0.2 < part[name].sum() / whole[name].sum() < 5
    assert MAS().estimate(run, tensor_task(2, n_train=0, labelled=False)) == {}


def test_stronger_holds_answers_closer(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")

    def drift(strength):
        options = {"optimizer": "sgd", "clip": None, "learning_rate": 0.02, "epochs": 10}
        run = bench.run([{"name": "mas", "strength": strength}], **options)
        bench.learn(run, upto=1)
        x = bench.tasks[0].train.x
        before = F.softmax(run.model.network(x).detach(), -1)
        run.position = 1
        run.learn(bench.tasks[1])
        return (F.softmax(run.model.network(x).detach(), -1) - before).abs().mean().item()

    assert drift(10.0) < 0.5 * drift(0.0)
