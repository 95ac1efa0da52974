import math
from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError
from everlearn.seeds import generator_for
from everlearn.strategies.grow import grow_run, share_left
from everlearn.types import TensorRows
from support.runs import StopAfter, Stopped, answers, assert_same, learn_at, make_bench, weights

ALWAYS = {"name": "grow", "when": "always", "new_neurons": 5, "new_rank": 3}
KEEPING = ("ewc", "si", "mas", "rwalk", "l2", "ema", "merge", "gdumb")  # something for each weight, between tasks


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def noise_task(task):
    """Return a task with the same inputs, of which the classes are drawn by lot."""
    y = torch.randint(2, task.train.y.shape, generator=generator_for("noise"))
    return replace(task, name="noise", train=TensorRows(task.train.x, y))


def test_share_left_is_measured_by_the_best_blind_answer():
    targets = torch.tensor([0, 0, 0, 2])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert share_left(entropy, targets, "categorical") == pytest.approx(1.0)
    assert share_left(0.5 * entropy, targets, "categorical") == pytest.approx(0.5)
    assert share_left(math.log(4), torch.arange(4), "categorical") == pytest.approx(1.0)
    assert share_left(0.3, torch.tensor([1, 1]), "categorical") == 0.0
    numbers = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # half the squared distance to the mean: 0.5 * (1 + 4)
    assert share_left(2.5, numbers, "normal") == pytest.approx(1.0)
    sets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # the first label is a toss-up, the second never there
    assert share_left(math.log(2), sets, "bernoulli") == pytest.approx(1.0)


def test_the_first_task_is_plain_training(plain):
    assert_same(weights(plain.learn(plain.run(), upto=1)), weights(plain.learn(plain.run([ALWAYS]), upto=1)))


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "tag", "plain"])
def test_it_grows_before_the_second_task_without_a_change_of_answers(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run([ALWAYS]), upto=1)
    before, old = answers(run, bench.tasks[0]), weights(run)
    run.position = 1
    run.strategies[0].adapt_model(run, bench.tasks[1])
    torch.testing.assert_close(answers(run, bench.tasks[0]), before, rtol=1e-6, atol=1e-6)
    now = run.model.adapters.trainable()
    n_added = sum(p.numel() - old[name].numel() for name, p in now.items())
    assert run.strategies[0].facts() == {"growths": 1, "weights_added": n_added, "left": {}}
    assert n_added > 0
    assert run.strategies[0].state_bytes() > 4 * n_added


def test_a_hard_task_makes_it_grow_and_an_easy_one_does_not(plain):
    run = plain.run([{"name": "grow", "threshold": 0.7, "new_neurons": 5}], epochs=10)
    strategy, easy, hard = run.strategies[0], plain.tasks[0], noise_task(plain.tasks[0])
    learn_at(run, easy, 0)
    learn_at(run, easy, 1)
    assert strategy.n_growths_ == 0
    learn_at(run, hard, 2)
    assert strategy.n_growths_ == 1
    assert strategy.left_["tensor_0"] < 0.3
    assert strategy.left_["noise"] > 0.7
    assert run.model.network[1].out_features == 21


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "plain"])
def test_a_trial_leaves_nothing_behind(kind, llama, bert):
    bench = make_bench(kind, llama, bert, dropout=0.3)
    listener = StopAfter(10**6)
    run = bench.learn(bench.run(["grow", "ewc"], epochs=1, listener=listener), upto=1)
    run.position = 1
    run.add_labels(bench.tasks[1])
    next(m for m in run.model.network.train().modules() if isinstance(m, torch.nn.Linear)).eval()
    before, n_steps = weights(run), len(listener.taken)
    flags, rng = [m.training for m in run.model.network.modules()], torch.get_rng_state()
    shares = [run.strategies[0].try_task(run, bench.tasks[1]) for _ in range(2)]
    assert shares[0] == shares[1] > 0
    assert_same(before, weights(run))
    assert flags == [m.training for m in run.model.network.modules()]
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in run.model.network.parameters())
    assert len(listener.taken) == n_steps


def test_it_grows_no_more_than_it_may(plain):
    run = plain.run([{**ALWAYS, "max_growths": 2}], epochs=1)
    for position, task in enumerate([*plain.tasks, *plain.tasks]):
        learn_at(run, task, position)
    assert run.strategies[0].n_growths_ == 2
    assert run.model.network[1].out_features == 16 + 2 * 5


@pytest.mark.parametrize("kind", ["causal_lora", "plain"])
def test_methods_that_keep_something_for_each_weight_follow_and_resume_exactly(kind, llama, bert, tmp_path):
    bench = make_bench(kind, llama, bert)
    together = [ALWAYS, *(name for name in KEEPING if name not in ("gdumb", "merge"))]
    whole = bench.learn(bench.run(together, epochs=1))
    listener = StopAfter(len(bench.tasks[0].train) // 4 + 2)  # in the second task
    with pytest.raises(Stopped):
        bench.learn(bench.run(together, epochs=1, folder=tmp_path, every_steps=1, listener=listener))
    assert_same(weights(whole), weights(bench.learn(bench.run(together, epochs=1, folder=tmp_path, every_steps=1))))


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("name", KEEPING)
def test_each_of_them_follows_on_either_side(name, ahead, plain):
    run = plain.learn(plain.run([ALWAYS, name] if ahead else [name, ALWAYS], epochs=1))
    assert all(tensor.isfinite().all() for tensor in weights(run).values())
    assert run.model.network[1].out_features == 21
    now = run.model.adapters.trainable()
    (partner,) = (strategy for strategy in run.strategies if strategy.name == name)
    kept = [(key, t) for field in partner.state().values() if isinstance(field, dict) for key, t in field.items()]
    assert all(tensor.shape == now[key].shape for key, tensor in kept if key in now)


def test_what_is_new_has_no_importance_and_what_is_old_keeps_its_own(plain):
    run = plain.learn(plain.run(["ewc", ALWAYS], epochs=1), upto=1)
    ewc, grow = run.strategies
    old = {name: tensor.clone() for name, tensor in ewc.precision_.items()}
    run.position = 1
    grow.adapt_model(run, plain.tasks[1])
    for name, tensor in old.items():
        inner = tuple(slice(n) for n in tensor.shape)
        assert torch.equal(ewc.precision_[name][inner], tensor)
        assert ewc.precision_[name].sum() == pytest.approx(tensor.sum().item())


def test_methods_that_rest_follow_too(plain):
    run = plain.learn(plain.run(["ewc", ALWAYS], epochs=1), upto=1)
    ewc = run.strategies.pop(0)
    run.dormant = {"ewc": ewc.state(), "elsewhere": {"anchor_": {}}}
    learn_at(run, plain.tasks[1], 1)
    now = run.model.adapters.trainable()
    assert all(tensor.shape == now[name].shape for name, tensor in run.dormant["ewc"]["precision_"].items())


def test_kfac_is_refused_before_anything_is_learned(plain):
    run = plain.run([{"name": "ewc", "fisher": "kfac"}, "grow"])
    with pytest.raises(ConfigError, match=r"ewc\.fisher: its factors can't follow.*sampled"):
        run.learn(plain.tasks[0])


def test_a_run_grows_when_it_is_told_to_and_what_is_kept_follows(plain):
    run = plain.learn(plain.run(["ewc"]), upto=1)
    before = answers(run, plain.tasks[0])
    former = grow_run(run, 3)
    torch.testing.assert_close(answers(run, plain.tasks[0]), before, rtol=1e-6, atol=1e-6)
    grown = dict(run.model.network.named_parameters())
    assert former
    for name, shape in former.items():
        assert grown[name].shape != shape
        assert run.strategies[0].precision_[name].shape == grown[name].shape
    packed = plain.learn(plain.run(["packnet"]), upto=1)
    with pytest.raises(ConfigError, match=r"growth: can't stand beside packnet. Got 3. it keeps which weights"):
        grow_run(packed, 3)
    assert all(torch.equal(p, weights(packed)[name]) for name, p in packed.model.adapters.trainable().items())
