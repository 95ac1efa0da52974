import pytest
import torch
from torch.nn import functional as F

from everlearn.learners.loader import row_batches
from everlearn.strategies.lwf import LwF
from everlearn.types import Mixture, Step
from support.runs import make_bench, weights


def after_first_task(bench, **options):
    """Return a run that stands at the first step of its second task, its weights moved away from the teacher's."""
    run = bench.run([{"name": "lwf", **options}], epochs=1)
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    run.strategies[0].begin_task(run, bench.tasks[1])
    teacher = weights(run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    (_, batch), *_ = row_batches(run.model.objective, bench.tasks[1].train, bench.tasks[1], 5)
    step = Step(run, bench.tasks[1], run.model.adapters.trainable(), batch=batch)
    step.outputs = run.model.objective.forward(run.model.network, batch, run.past_tasks())
    return run, step, teacher


def divergence(teacher, student, temperature):
    p = F.softmax(teacher / temperature, -1)
    per_item = (p * (F.log_softmax(teacher / temperature, -1) - F.log_softmax(student / temperature, -1))).sum(-1)
    return temperature**2 * per_item.mean()


def test_on_a_language_model_it_compares_the_positions_that_predict_the_completion(llama, bert):
    run, step, teacher = after_first_task(make_bench("causal_lora", llama, bert), strength=0.7, temperature=3.0)
    found = run.strategies[0].penalty(step)
    inputs = {name: tensor for name, tensor in step.batch.items() if name != "labels"}
    with torch.no_grad():
        student = run.model.network(**inputs).logits
        run.model.adapters.load_tensors(teacher)
        before = run.model.network(**inputs).logits
    places = step.batch["labels"][:, 1:] != -100
    wanted = 0.7 * divergence(before[:, :-1][places], student[:, :-1][places], 3.0)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-6)
    assert found.item() > 0


@pytest.mark.parametrize("cache_top_k", [None, 4])
def test_numbers_are_held_by_their_squared_distance(cache_top_k, llama, bert):
    bench = make_bench("score", llama, bert)
    run, step, teacher = after_first_task(bench, temperature=3.0)
    method = run.strategies[0]
    student = step.outputs.past[0].detach()
    run.model.adapters.load_tensors(teacher)
    with torch.no_grad():
        before = run.model.objective.forward(run.model.network, step.batch, run.past_tasks()).past[0]
    if cache_top_k is not None:  # asked before the task, on the same rows
        method.cache_top_k = cache_top_k
        method.begin_task(run, bench.tasks[1])
        method.train_data(Mixture.of(bench.tasks[1]), run)
        step.rows = [(0, row) for row in range(5)]
    found = method.penalty(step)
    torch.testing.assert_close(found.detach(), 0.5 * (before - student).square().mean(), rtol=1e-3, atol=1e-6)
    assert found.item() > 0


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "plain"])
def test_on_a_classifier_it_compares_earlier_classes(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run, step, teacher = after_first_task(bench, temperature=2.0)
    found = run.strategies[0].penalty(step)
    inputs = {name: t for name, t in step.batch.items() if name not in ("labels", "tasks", "y", "allowed")}

    def past_logits():
        network = run.model.network
        if kind == "plain":
            return network(inputs["x"])[:, : len(bench.tasks[0].labels)]
        run.model.adapters.head.active = [0, 1]
        return network(**inputs).logits[:, : len(bench.tasks[0].labels)]

    with torch.no_grad():
        student = past_logits()
        run.model.adapters.load_tensors(teacher)
        before = past_logits()
    torch.testing.assert_close(found.detach(), divergence(before, student, 2.0), rtol=1e-4, atol=1e-6)


def test_the_teacher_gets_no_gradient_and_the_weights_stay(llama, bert):
    run, step, _ = after_first_task(make_bench("causal_lora", llama, bert))
    present = weights(run)
    loss = run.strategies[0].penalty(step)
    assert all(torch.equal(present[name], tensor) for name, tensor in weights(run).items())
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in step.params.values())
    assert not any(tensor.requires_grad for tensor in run.strategies[0].teacher_.values())


def test_the_first_task_has_no_teacher_and_none_is_kept_afterwards(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run(["lwf"], epochs=1)
    run.current = bench.tasks[0].name
    run.strategies[0].begin_task(run, bench.tasks[0])
    assert run.strategies[0].teacher_ == {}
    assert run.strategies[0].penalty(None) is None
    bench.learn(run)
    assert run.strategies[0].teacher_ == {}


def test_nothing_moved_costs_nothing(llama, bert):
    run, step, teacher = after_first_task(make_bench("causal_lora", llama, bert))
    run.model.adapters.load_tensors(teacher)
    step.outputs = run.model.objective.forward(run.model.network, step.batch, run.past_tasks())
    assert run.strategies[0].penalty(step).item() == pytest.approx(0, abs=1e-6)
    assert LwF().state_bytes() < 20


def cached_and_asked(bench, cache_top_k, **options):
    """Return what the penalty is from a cache, and by asking the teacher, on the same batch."""
    found = []
    for cache in ({"cache_top_k": cache_top_k}, {}):
        run, step, _ = after_first_task(bench, **options, **cache)
        run.strategies[0].train_data(Mixture.of(bench.tasks[1]), run)
        step.rows = [(0, row) for row in range(5)]
        found.append(run.strategies[0].penalty(step))
        if cache:
            assert run.strategies[0].teacher_ == {}
    return found


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "tag", "plain"])
def test_a_cache_of_all_classes_is_the_teacher(kind, head, llama, bert):
    cached, asked = cached_and_asked(make_bench(kind, llama, bert, head=head), cache_top_k=64, temperature=3.0)
    torch.testing.assert_close(cached, asked, rtol=1e-4, atol=1e-6)
    assert asked > 0


def test_a_cache_of_the_likeliest_tokens_comes_close_from_below(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    found = [cached_and_asked(bench, cache_top_k=k) for k in (2, 20, 200)]
    shares = [(cached / asked).item() for cached, asked in found]
    assert 0 < shares[0] < shares[1] < shares[2] < 1.001
    assert shares[2] > 0.9


def test_cached_answers_belong_to_their_rows_and_mixed_in_rows_have_none(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run, step, _ = after_first_task(bench, cache_top_k=8)
    (strategy,) = run.strategies
    strategy.train_data(Mixture.of(bench.tasks[1]), run)
    step.rows = [(0, row) for row in range(5)]
    whole = strategy.penalty(step)
    assert (strategy.penalty(step) - whole).item() == 0
    step.rows = [(0, row) for row in (4, 3, 2, 1, 0)]
    assert not torch.allclose(strategy.penalty(step), whole)
    parts = []
    for own in range(5):
        step.rows = [(0, row) if row == own else (1, row) for row in range(5)]
        parts.append(strategy.penalty(step))
    torch.testing.assert_close(sum(parts), whole)
    step.rows = [(0, 24 + row) for row in range(5)]  # of earlier tasks that joined the first group
    assert strategy.penalty(step).item() == 0


def test_the_cache_is_gone_after_the_task_and_needs_no_pass_of_a_teacher(llama, bert):
    bench = make_bench("plain", llama, bert)
    passes = {True: 0, False: 0}
    run = bench.run([{"name": "lwf", "cache_top_k": 8, "batch_size": 24}], epochs=2)
    forward = run.model.objective.forward

    def counting(network, batch, past=()):
        passes[network.training] += 1
        return forward(network, batch, past)

    run.model.objective.forward = counting
    bench.learn(run)
    assert passes == {True: 24, False: 1}
    assert run.strategies[0].cache_ == []
