"""What is measured of a policy, against passes by hand."""

import pytest
import torch

from everlearn.rl.measures import divergence, dormant_share, sample_answers
from everlearn.rl.sampler import Sampler
from everlearn.rl.weights import snapshot
from support.policy import letters_task, policy_run
from support.runs import start_lora_away_from_zero


@pytest.fixture
def sampled(llama):
    """A run with the weights that it began with, and answers that it drew once these had changed."""
    task = letters_task()
    run = policy_run(llama, task)
    run.model.objective.stop_ids = list(range(130))
    began = snapshot(run.model.adapters.trainable())
    start_lora_away_from_zero(run)
    sampler = Sampler(run.model, torch.device("cpu"), "float32")
    return run, began, sample_answers(run, sampler, task, 20, 0.5, 4, ("a test",))


def log_p_of(run, one, ids):
    with torch.no_grad(), run.model.evaluating():
        logits = run.model.network(torch.tensor([one.prompt + ids])).logits[0, len(one.prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids]


def test_outcomes_are_shares_of_the_answers_drawn(sampled):
    run, _, found = sampled
    assert len(found.outcomes) == len(found.answered) == 2
    lengths = []
    for one, outcome in zip(found.answered, found.outcomes, strict=True):
        assert sum(one.counts) == 20
        right = [count for text, count in zip(one.texts, one.counts, strict=True) if len(text) % 2]
        assert outcome == sum(right) / 20
        lengths += [len(ids) for ids, count in zip(one.responses, one.counts, strict=True) for _ in range(count)]
        assert one.texts == [run.model.objective.answer_of(ids) for ids in one.responses]
    assert found.length == pytest.approx(sum(lengths) / 40)
    assert 0 < found.cut_off < 1


@pytest.mark.parametrize("packed", [True, False])
def test_the_divergence_is_an_estimate_over_the_tokens_drawn(packed, sampled):
    run, began, found = sampled
    now = snapshot(run.model.adapters.trainable())
    assert divergence(run, found.answered, now, packed=packed) == 0
    measured = divergence(run, found.answered, began, packed=packed)
    total = n = 0.0
    for one in found.answered:
        for ids, count in zip(one.responses, one.counts, strict=True):
            log_p = log_p_of(run, one, ids)
            with run.model.adapters.using(began):
                log_ratio = log_p_of(run, one, ids) - log_p
            total += count * (log_ratio.exp() - 1 - log_ratio).sum().item()
            n += count * len(ids)
    assert measured == pytest.approx(total / n, rel=1e-4)
    assert measured > 0
    assert all(torch.equal(p, now[name]) for name, p in run.model.adapters.trainable().items())


def test_neurons_that_never_fire_are_dormant(sampled):
    run, _, found = sampled
    before = dormant_share(run, found.answered, packed=True)
    layer = run.model.network.get_base_model().model.layers[0].mlp.gate_proj
    with torch.no_grad():  # silu(0) = 0: 12 of 48 neurons in one of two layers
        layer.get_base_layer().weight[:12] = 0
        layer.lora_B["default"].weight[:12] = 0
    assert dormant_share(run, found.answered, packed=True) == pytest.approx(before + 12 / 96, abs=0.03)
    assert not [hook for module in run.model.network.modules() for hook in module._forward_pre_hooks]
