from itertools import pairwise

import pytest
import torch

from everlearn.learners import sft
from everlearn.models.lora import ScaledLinear
from everlearn.strategies.aflora import follow_sensitivity, frozen_share
from support.runs import make_bench, weights


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def matrices(tensors):
    return {name: t for name, t in tensors.items() if ".lora_" in name and name.endswith(".weight")}


def test_the_schedule_is_cubic_between_its_ends():
    assert [frozen_share(i, 100, 0.1, 0.5) for i in (0, 9, 10)] == [0, 0, 0]
    assert frozen_share(30, 100, 0.1, 0.5) == pytest.approx(1 - 0.5**3)
    assert [frozen_share(i, 100, 0.1, 0.5) for i in (50, 99)] == [1, 1]
    assert frozen_share(50, 100, 0.5, 0.5) == 1


def test_the_score_follows_the_recurrence():
    torch.manual_seed(0)
    gradients = [torch.randn(3, 2) for _ in range(5)]
    mean, spread = [torch.zeros(3, 2)], [torch.zeros(3, 2)]
    slow_mean, slow_spread = torch.zeros(3, 2), torch.zeros(3, 2)
    for gradient in gradients:
        follow_sensitivity(mean, spread, [gradient], 0.85, 0.95)
        slow_mean = 0.85 * slow_mean + 0.15 * gradient.abs()
        slow_spread = 0.95 * slow_spread + 0.05 * (gradient.abs() - slow_mean).abs()
    torch.testing.assert_close(mean[0], slow_mean)
    torch.testing.assert_close(spread[0], slow_spread)


def test_a_frozen_matrix_stays_bit_equal_and_vectors_learn_to_the_end(bench, monkeypatch):
    fields = {"start": 0.0, "end": 0.5, "every": 1}
    run = bench.run([{"name": "aflora", **fields}], epochs=4, weight_decay=0.1)
    strategy, seen = run.strategies[0], []
    plain_step = sft.take_step

    def take_step(run, step, *rest):
        loss = plain_step(run, step, *rest)
        seen.append((list(strategy.frozen_), {name: p.detach().clone() for name, p in step.params.items()}))
        return loss

    monkeypatch.setattr(sft, "take_step", take_step)
    bench.learn(run, upto=1)
    counts = [len(frozen) for frozen, _ in seen]
    assert counts == sorted(counts)
    assert 0 < counts[2] < counts[-1] == len(matrices(seen[0][1]))
    for (frozen, before), (by_now, now) in pairwise(seen):
        assert all(torch.equal(before[name], now[name]) for name in frozen)
        assert any(not torch.equal(before[name], now[name]) for name in now if name.endswith(".vector"))
        moving = [name for name in matrices(before) if name not in by_now]
        assert not moving or any(not torch.equal(before[name], now[name]) for name in moving)


def test_the_lowest_scores_are_frozen_first(bench):
    run = bench.run([{"name": "aflora", "start": 0.0, "end": 0.0, "every": 1}], epochs=4)
    strategy = run.strategies[0]
    scores = {}
    freeze = type(strategy)._freeze

    def watch(self, name, step):
        left = {n: (self.mean_[n] * self.spread_[n]).mean().item() for n in self.mean_}
        scores[name] = (left[name], min(left.values()))
        freeze(self, name, step)

    type(strategy)._freeze = watch
    try:
        bench.learn(run, upto=1)
    finally:
        type(strategy)._freeze = freeze
    assert len(scores) > 5
    assert all(own == lowest for own, lowest in scores.values())


def test_the_vectors_begin_as_no_change(bench):
    run, plain = bench.run(["aflora"]), bench.run()
    run.strategies[0].adapt_model(run, bench.tasks[0])
    run.strategies[0].adapt_model(run, bench.tasks[1])
    assert sum(isinstance(module, ScaledLinear) for module in run.model.network.modules()) == 28
    ids = torch.tensor([[1, 5, 6]])
    assert torch.equal(run.model.network(ids).logits, plain.model.network(ids).logits)
    assert matrices(weights(run)).keys() == matrices(weights(plain)).keys()


@pytest.mark.parametrize("thaw", [True, False])
def test_thaw_lets_the_next_task_train_all_matrices_again(bench, thaw):
    run = bench.run([{"name": "aflora", "thaw": thaw, "every": 1}], weight_decay=0.1)
    before = matrices(weights(bench.learn(run, upto=1)))
    assert len(run.strategies[0].frozen_) == 28
    assert run.strategies[0].mean_ == {}
    run.position = 1
    run.learn(bench.tasks[1])
    now = matrices(weights(run))
    assert all(torch.equal(before[name], now[name]) for name in now) != thaw
