import pytest
import torch

from everlearn.strategies.ewc import EWC, add_quadratic_gradients
from support.runs import make_bench


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def test_the_merged_penalty_equals_the_sum_of_the_separate_ones():
    generator = torch.Generator().manual_seed(0)
    shapes, strength = [(3, 2), (4,)], 7.0
    weights = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    tasks = [
        [(torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)) for shape in shapes]
        for _ in range(5)
    ]
    written_out = sum(
        0.5 * strength * (fisher * (weight - anchor) ** 2).sum()
        for task in tasks
        for weight, (fisher, anchor) in zip(weights, task, strict=True)
    )
    wanted = torch.autograd.grad(written_out, weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    precision = [sum(task[i][0] for task in tasks) for i in range(2)]
    pull = [sum(task[i][0] * task[i][1] for task in tasks) for i in range(2)]
    with torch.no_grad():
        add_quadratic_gradients(weights, precision, pull, strength)
    for weight, gradient in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient + 1, rtol=1e-5, atol=1e-5)


def learned_with(bench, **options):
    """Return the strategy after two tasks, with the Fisher and the weights after each."""
    run = bench.run([{"name": "ewc", "fisher": "exact", "strength": 0.0, **options}], optimizer="sgd")
    strategy, found = run.strategies[0], []
    for position, task in enumerate(bench.tasks):
        run.position = position
        run.learn(task)
        anchors = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        found.append((strategy.estimate(run, task), anchors))
    return strategy, found


def test_separate_sums_fishers_and_pulls(plain):
    strategy, found = learned_with(plain)
    for name in strategy.precision_:
        torch.testing.assert_close(strategy.precision_[name], sum(fisher[name] for fisher, _ in found))
        torch.testing.assert_close(strategy.pull_[name], sum(fisher[name] * anchor[name] for fisher, anchor in found))


def test_online_decays_and_pulls_to_the_last_weights(plain):
    strategy, ((first, _), (second, anchor)) = learned_with(plain, mode="online", decay=0.5)
    for name in strategy.precision_:
        torch.testing.assert_close(strategy.precision_[name], 0.5 * first[name] + second[name])
        torch.testing.assert_close(strategy.pull_[name], strategy.precision_[name] * anchor[name])


def test_what_it_keeps_does_not_grow_with_tasks(plain):
    run = plain.run(["ewc"], epochs=1)
    plain.learn(run, upto=1)
    after_one = run.strategies[0].state_bytes()
    run.position = 1
    run.learn(plain.tasks[1])
    assert run.strategies[0].state_bytes() == after_one


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
def test_the_estimate_does_not_depend_on_its_batch_size(plain, fisher):
    run = plain.run(["ewc"], epochs=1)
    plain.learn(run, upto=1)
    found = [EWC(fisher=fisher, batch_size=size).estimate(run, plain.tasks[0]) for size in (1, 5, 24)]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found[2][name], value, rtol=1e-5, atol=1e-9)


def test_it_is_a_mean_over_at_most_n_examples(plain):
    run = plain.run(["ewc"], epochs=1)
    plain.learn(run, upto=1)
    whole = EWC(fisher="exact", n_examples=None).estimate(run, plain.tasks[0])
    same = EWC(fisher="exact", n_examples=24).estimate(run, plain.tasks[0])
    part = EWC(fisher="exact", n_examples=6).estimate(run, plain.tasks[0])
    name = next(iter(whole))
    assert torch.equal(whole[name], same[name])
    assert not torch.equal(whole[name], part[name])
    assert 0.2 < part[name].sum() / whole[name].sum() < 5


def test_stronger_holds_closer(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")

    def moved(strength):
        options = {"optimizer": "sgd", "clip": None, "learning_rate": 0.05, "epochs": 10}
        run = bench.run([{"name": "ewc", "strength": strength, "fisher": "exact"}], **options)
        bench.learn(run, upto=1)
        before = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        precision = dict(run.strategies[0].precision_)
        run.position = 1
        run.learn(bench.tasks[1])
        after = run.model.adapters.trainable()
        return sum((precision[name] * (after[name].detach() - before[name]) ** 2).sum().item() for name in before)

    assert moved(20.0) < 0.3 * moved(0.0)


def test_heads_that_are_not_used_are_left_alone(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["ewc"], epochs=1), upto=1)
    head = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items() if "blocks.0" in name}
    assert head
    run.position = 1
    run.learn(bench.tasks[1])
    now = run.model.adapters.trainable()
    assert all(torch.equal(now[name], tensor) for name, tensor in head.items())
