import json
import statistics
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.report.records import read_run
from everlearn.runs import run as run_recipe
from everlearn.strategies.gamma_ewc import SIGNALS, GammaEWC, sums_over_targets
from everlearn.strategy import Strategy
from everlearn.types import Outputs
from support.recipes import plain_recipe
from support.runs import StopAfter, Stopped, assert_same, learn_at, make_bench, weights
from support.tasks import regression_task

BYPASSED, UNGATED, BOUND = {"bypass_gamma": True}, {"gamma_strength": 0.0}, {"low": 1.0, "high": 1.0}
FISHER = {"strength": 50.0, "n_samples": 10}


@pytest.fixture
def plain(llama, bert):
    return make_bench("plain", llama, bert)


def gated(**options):
    return [{"name": "gamma_ewc", **FISHER, **options}]


@pytest.mark.parametrize(
    ("kind", "how", "neutral"),
    [
        ("plain", {}, BYPASSED),
        ("plain", {}, UNGATED),
        ("plain", {}, BOUND),
        ("plain", {"fisher": "kfac"}, BYPASSED),
        ("plain", {"fisher": "kfac"}, UNGATED),
        ("plain", {"mode": "online", "decay": 0.5}, UNGATED),
        ("classify", {}, BYPASSED),
        ("causal_lora", {"fisher": "empirical"}, UNGATED),
        ("causal_full", {}, UNGATED),
    ],
)
def test_where_gamma_is_1_it_is_ewc_bit_for_bit(llama, bert, kind, how, neutral):
    bench = make_bench(kind, llama, bert)
    ewc = bench.learn(bench.run([{"name": "ewc", "strength": 50.0, "n_examples": 10, "batch_size": 10, **how}]))
    ours = bench.learn(bench.run(gated(**how, **neutral)))
    assert_same(weights(ewc), weights(ours))
    for name, kept in ewc.strategies[0].state().items():
        if isinstance(kept, dict):
            assert_same(kept, vars(ours.strategies[0])[name])
    free = bench.learn(bench.run(gated(**how)))
    assert any(not torch.equal(tensor, weights(free)[name]) for name, tensor in weights(ours).items())


def test_gamma_follows_the_formula():
    strategy = GammaEWC(gamma_strength=1.0, nll_weight=-0.5, accuracy_weight=0.3, gradient_norm_weight=0.0,
                        entropy_weight=-0.1, low=0.2, high=2.0)  # fmt: skip
    steps = [
        {"nll": 2.0, "accuracy": 0.25, "gradient_norm": 5.0, "entropy": 1.2},
        {"nll": 1.5, "accuracy": 0.5, "gradient_norm": 4.0, "entropy": 1.1},
        {"nll": 1.9, "accuracy": 0.25, "gradient_norm": 9.0, "entropy": 1.3},
        {"nll": 0.1, "accuracy": 1.0, "gradient_norm": 0.5, "entropy": 0.2},
        {"nll": 9.0, "accuracy": 0.0, "gradient_norm": 0.5, "entropy": 2.0},
    ]
    found = [strategy.add_step(signals) for signals in steps]
    assert found[0] == 1.0  # of one step nothing is known

    def wanted(n):
        z = {}
        for name in SIGNALS:
            seen = [signals[name] for signals in steps[:n]]
            z[name] = (seen[-1] - statistics.fmean(seen)) / statistics.stdev(seen)
        return 1 - 0.5 * z["nll"] + 0.3 * z["accuracy"] - 0.1 * z["entropy"]

    assert found[1:3] == pytest.approx([wanted(2), wanted(3)])
    assert wanted(4) > 2.0
    assert found[3] == 2.0
    assert wanted(5) < 0.2
    assert found[4] == 0.2
    assert strategy.gamma == pytest.approx(statistics.fmean(found))


def test_sums_are_over_the_chosen_targets():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 3] = torch.finfo(torch.float32).min / 4  # a column that may not be answered
    targets, chosen = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([True, False, True, True, False])
    n, nll, right, entropy = sums_over_targets(Outputs(logits, targets, torch.arange(5)), chosen)
    assert n == 3
    torch.testing.assert_close(nll, F.cross_entropy(logits[chosen], targets[chosen], reduction="sum"))
    assert right == (logits.argmax(1) == targets)[chosen].sum()
    known = torch.distributions.Categorical(logits=logits[chosen, :3])
    torch.testing.assert_close(entropy, known.entropy().sum())


class Watching(Strategy):
    """Sees each step's outputs and gradients before any penalty."""

    name = "watching"

    def __init__(self):
        self.seen, self.outputs = [], []

    def penalty(self, step):
        own = step.items_of({0})
        self.outputs.append((step.outputs.logits[own].detach(), step.outputs.targets[own]))

    def edit_grads(self, step):
        logits, targets = (torch.cat(parts) for parts in zip(*self.outputs, strict=True))
        self.outputs = []
        norm = torch.cat([p.grad.flatten() for p in step.params.values() if p.grad is not None]).norm()
        p = torch.distributions.Categorical(logits=logits)
        right = (logits.argmax(1) == targets).float().mean()
        values = (F.cross_entropy(logits, targets), right, norm, p.entropy().mean())
        self.seen.append(dict(zip(SIGNALS, map(float, values), strict=True)))


@pytest.mark.parametrize("kind", ["plain", "classify", "causal_lora"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_signals_are_of_the_steps_own_rows_and_one_gamma_a_step(llama, bert, kind, accumulation):
    bench, watching = make_bench(kind, llama, bert), Watching()
    strategies = ["replay", watching, *gated()]  # replayed rows are none of the task's own
    run = bench.run(strategies, batch_size=4 // accumulation, accumulation=accumulation, epochs=1)
    strategy, seen = run.strategies[2], []
    for position, task in enumerate(bench.tasks):
        watching.seen = []
        facts = learn_at(run, task, position).strategy_facts["gamma_ewc"]
        seen += watching.seen
        assert facts["curve"]["step"] == list(range(1, len(watching.seen) + 1))
        for name in SIGNALS:
            own = [signals[name] for signals in watching.seen]
            assert facts["curve"][name] == pytest.approx(own, rel=1e-3)
            assert facts["signals"][name] == pytest.approx(statistics.fmean(own), rel=1e-3)
    again = GammaEWC(**FISHER)  # the running statistics go on from task to task
    gammas = [again.add_step(signals) for signals in seen]
    assert facts["curve"]["gamma"] == pytest.approx(gammas[-len(watching.seen) :], rel=1e-2)
    assert strategy.gamma == pytest.approx(statistics.fmean(gammas[-len(watching.seen) :]), rel=1e-3)
    assert max(gammas) - min(gammas) > 0.5


def test_the_fisher_accumulates_times_gamma(plain):
    run = plain.run(gated(strength=0.0, fisher="exact"))
    strategy, found = run.strategies[0], []
    for position, task in enumerate(plain.tasks):
        learn_at(run, task, position)
        gamma = strategy.gamma
        alone = GammaEWC(fisher="exact", n_samples=10, bypass_gamma=True).estimate(run, task)
        anchors = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
        found.append((gamma, alone, anchors))
    assert abs(found[0][0] - 1) > 0.05
    assert found[0][0] != found[1][0]
    for name, precision in strategy.precision_.items():
        torch.testing.assert_close(precision, sum(gamma * fisher[name] for gamma, fisher, _ in found))
        pull = sum(gamma * fisher[name] * anchors[name] for gamma, fisher, anchors in found)
        torch.testing.assert_close(strategy.pull_[name], pull)


def test_kfac_factors_stand_for_gamma_times_the_fisher(plain):
    run = plain.run(gated(fisher="kfac", strength=0.0))
    plain.learn(run, upto=1)
    (strategy,) = run.strategies
    assert abs(strategy.gamma - 1) > 0.05
    alone = GammaEWC(fisher="kfac", n_samples=10, batch_size=10, bypass_gamma=True)
    for names, factor in alone.estimate_factors(run, plain.tasks[0]).items():
        kept = strategy.factors_[0][names]
        assert torch.equal(kept["gradients"], strategy.gamma * factor["gradients"])
        assert all(torch.equal(kept[side], factor[side]) for side in factor if side != "gradients")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_task_that_is_never_learned_counts_less_unless_signs_are_turned(llama, bert, sign):
    bench = make_bench("domain", llama, bert)
    rows, generator = bench.tasks[1].train, torch.Generator().manual_seed(0)
    noise = replace(rows, y=torch.randint(0, 2, (len(rows),), generator=generator))
    tasks = (bench.tasks[0], replace(bench.tasks[1], train=noise))
    options = {f"{name}_weight": sign * vars(GammaEWC())[f"{name}_weight"] for name in SIGNALS}
    run = bench.run(gated(**options), epochs=12)
    gammas = [learn_at(run, task, position).strategy_facts["gamma_ewc"]["gamma"] for position, task in enumerate(tasks)]
    assert (gammas[1] - gammas[0]) * sign < -0.3


def test_what_can_not_be_measured_is_left_out(plain):
    tasks = [regression_task(number) for number in range(2)]
    bench = replace(plain, tasks=tuple(tasks), config=torch.nn.Linear(4, 1))
    run = bench.run(gated(batch_size=3))
    facts = learn_at(run, tasks[0], 0).strategy_facts["gamma_ewc"]
    assert set(facts["signals"]) == {"nll", "gradient_norm"}
    assert facts["gamma"] != 1.0
    json.dumps(facts, allow_nan=False)


def test_stopped_in_the_second_task_it_goes_on_with_the_same_signals(plain, tmp_path):
    whole = plain.learn(plain.run(gated()))
    with pytest.raises(Stopped):
        plain.learn(plain.run(gated(), folder=tmp_path, every_steps=1, listener=StopAfter(17)))
    resumed = plain.learn(plain.run(gated(), folder=tmp_path, every_steps=1))
    assert resumed.strategies[0].facts() == whole.strategies[0].facts()
    assert_same(resumed.strategies[0].running_, whole.strategies[0].running_)
    assert_same(weights(whole), weights(resumed))


def test_curves_stand_in_the_results_of_each_task_and_bypassed_there_are_none(tmp_path):
    run_recipe(plain_recipe(gated()), tmp_path / "run")
    costs = read_run(tmp_path / "run").costs
    assert [cost.cost.strategy_facts["gamma_ewc"]["curve"]["step"][-1] for cost in costs] == [12, 12, 12]
    assert (tmp_path / "run" / "results.jsonl").stat().st_size < 40_000
    run_recipe(plain_recipe(gated(bypass_gamma=True)), tmp_path / "bypassed")
    assert [cost.cost.strategy_facts for cost in read_run(tmp_path / "bypassed").costs] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.5}, r"gamma_ewc\.low: is out of range\. Got 1\.5"),
        ({"high": 0.5}, r"gamma_ewc\.high: is out of range\. Got 0\.5"),
        ({"n_samples": 0}, r"gamma_ewc\.n_samples: is out of range"),
        ({"strength": -1.0}, r"gamma_ewc\.strength: is out of range"),
        ({"fisher": "exat"}, r"gamma_ewc\.fisher: is unknown\. Got 'exat'\. Did you mean 'exact'"),
    ],
)
def test_what_is_out_of_range_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        GammaEWC(**options)
