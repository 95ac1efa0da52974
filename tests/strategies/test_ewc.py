import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.functional.kfac import curvature_product
from everlearn.strategies.ewc import EWC
from support.runs import StopAfter, Stopped, assert_same, assert_unused_heads_stay, make_bench, weights


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


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
    assert_unused_heads_stay(make_bench("classify", llama, bert), "ewc", epochs=1)


def kfac_run(bench, mode="separate", strength=0.0, **options):
    method = {"name": "ewc", "fisher": "kfac", "mode": mode, "decay": 0.5, "strength": strength, "batch_size": 5}
    return bench.run([method], optimizer="sgd", **options)


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_kfac_keeps_each_tasks_factors_and_merges_what_they_pull_to(plain, mode):
    run, found = kfac_run(plain, mode, epochs=1), []
    strategy = run.strategies[0]
    for position, task in enumerate(plain.tasks):
        run.position = position
        run.learn(task)
        anchors = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        found.append((strategy.estimate_factors(run, task), anchors))
    (first, then), (second, now) = found
    assert len(strategy.factors_) == 2
    decay = 0.5 if mode == "online" else 1.0
    for names, factor in strategy.factors_[0].items():
        torch.testing.assert_close(factor["gradients"], decay * first[names]["gradients"])
    early = curvature_product(first, now if mode == "online" else then)
    late = curvature_product(second, now)
    for names, pull in strategy.factors_pull_.items():
        torch.testing.assert_close(pull, decay * early[names] + late[names])
    assert not strategy.precision_


def test_kfac_holds_closer(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")

    def moved(strength):
        run = kfac_run(bench, strength=strength, clip=None, learning_rate=0.05, epochs=10)
        bench.learn(run, upto=1)
        before = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        factors = run.strategies[0].factors_[0]
        run.position = 1
        run.learn(bench.tasks[1])
        change = {name: p.detach() - before[name] for name, p in run.model.adapters.trainable().items()}
        unit = {names: {side: torch.eye(len(t)) for side, t in factor.items()} for names, factor in factors.items()}
        change_of = curvature_product(unit, change)
        return sum((change_of[names] * product).sum() for names, product in curvature_product(factors, change).items())

    assert moved(20.0) < 0.3 * moved(0.0)


@pytest.mark.parametrize("kind", ["plain", "classify", "causal_lora"])
def test_kfac_resumes_bit_for_bit_and_does_not_depend_on_accumulation(llama, bert, kind, tmp_path):
    bench, options = make_bench(kind, llama, bert), {"strength": 5.0, "learning_rate": 0.05, "epochs": 1}
    whole = bench.learn(kfac_run(bench, **options))
    listener = StopAfter(len(bench.tasks[0].train) // 4 + 2)  # in the second task
    with pytest.raises(Stopped):
        bench.learn(kfac_run(bench, folder=tmp_path, every_steps=1, listener=listener, **options))
    resumed = bench.learn(kfac_run(bench, folder=tmp_path, every_steps=1, **options))
    assert_same(weights(whole), weights(resumed))
    split = bench.learn(kfac_run(bench, accumulation=4, batch_size=1, **options))
    assert_same(weights(whole), weights(split), tolerance=1e-5)
    used = {name for names in whole.strategies[0].factors_[0] for name in names.split()}
    assert kind != "classify" or not any("blocks.1" in name for name in used)


def test_kfac_equals_plain_training_at_strength_0(plain):
    assert_same(weights(plain.learn(plain.run(optimizer="sgd"))), weights(plain.learn(kfac_run(plain))))


def test_kfac_refuses_layers_that_are_not_linear(llama, bert):
    bench = make_bench("causal_full", llama, bert)
    with pytest.raises(ConfigError, match=r"ewc\.fisher: kfac is for linear layers"):
        kfac_run(bench).learn(bench.tasks[0])
