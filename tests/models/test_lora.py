import json

import pytest
import torch
from torch import nn

from everlearn.errors import ModelError
from everlearn.models.adapters import Adapters
from everlearn.models.lora import (
    PAST,
    ScaledLinear,
    begin_lora,
    fold_vectors,
    hold_new_lora,
    lora_layers,
    matrix_of,
    stack,
)
from everlearn.types import Step
from support.runs import answers, make_bench, weights

LORA = {"rank": 2, "alpha": 6.0, "dropout": 0.0, "targets": "auto", "seed": 0, "task_type": None}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def shake(adapters, seed):
    """Move all that is trainable, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapters.trainable().values():
            p.add_(torch.randn(p.shape, generator=generator))


def test_earlier_loras_are_summed_and_frozen_and_the_new_one_adds_nothing_at_first():
    adapters, x = Adapters(network()), torch.randn(5, 3)
    adapters.do("lora", **LORA)
    deltas = {name: 0.0 for name in lora_layers(adapters.network)}
    for number in range(3):
        shake(adapters, number)
        for name, layer in lora_layers(adapters.network).items():
            deltas[name] = deltas[name] + layer.get_delta_weight(adapters.network.active_adapter).detach()
        before = adapters.network(x)
        begin_lora(adapters, seed=0)
        torch.testing.assert_close(adapters.network(x), before)
        for name, layer in lora_layers(adapters.network).items():
            torch.testing.assert_close(layer.get_delta_weight(PAST), deltas[name])
            assert layer.lora_A[PAST].weight.shape[0] == 2 * (number + 1)
        assert sum(p.numel() for p in adapters.trainable().values()) == 2 * (3 + 4 + 4 + 2)
        assert not any(f".{PAST}." in name for name in adapters.trainable())
    frozen = {name: p.clone() for name, p in adapters.tensors().items() if f".{PAST}." in name}
    assert len(frozen) == 4
    shake(adapters, 9)
    assert all(torch.equal(adapters.tensors()[name], tensor) for name, tensor in frozen.items())


def test_the_log_replays_to_the_same_structure_and_weights():
    first = Adapters(network())
    first.do("lora", **LORA)
    for number in range(2):
        shake(first, number)
        begin_lora(first, seed=3)
    second = Adapters(network())
    second.do("lora", **LORA)
    second.replay(json.loads(json.dumps(first.log)))
    assert list(second.trainable()) == list(first.trainable())
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    x = torch.randn(4, 3)
    assert torch.equal(first.network(x), second.network(x))


def test_each_new_lora_begins_elsewhere_and_the_global_generator_stays():
    adapters, state = Adapters(network()), torch.get_rng_state()
    adapters.do("lora", **LORA)
    begun = [next(iter(adapters.trainable().values())).clone()]
    for _ in range(2):
        begin_lora(adapters, seed=0)
        begun.append(next(iter(adapters.trainable().values())).clone())
    assert len({tuple(tensor.flatten().tolist()) for tensor in begun}) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_heads_and_weights_that_the_checkpoint_lacked_go_on_being_trained(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(), upto=1)
    beside = {name for name in run.model.adapters.trainable() if ".lora_" not in name}
    before = answers(run, bench.tasks[0])
    begin_lora(run.model.adapters, seed=0)
    assert beside == {name for name in run.model.adapters.trainable() if ".lora_" not in name}
    assert any("pooler" in name for name in beside)
    torch.testing.assert_close(answers(run, bench.tasks[0]), before, atol=1e-5, rtol=1e-5)


def held(run, known=()):
    """Return what is added to gradients of 1 at strength 3, and the trainable weights."""
    step = Step(run, run.tasks["add_1"], run.model.adapters.trainable())
    for p in step.params.values():
        p.grad = torch.ones_like(p)
    hold_new_lora(step, known, 3.0)
    return {name: p.grad - 1 for name, p in step.params.items()}, step.params


def test_a_new_lora_is_held_by_how_far_the_whole_matrix_has_come(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["inclora"], epochs=1))
    layers = lora_layers(run.model.network).values()
    added, params = held(run)
    come = sum(layer.get_delta_weight("task_2").square().sum() for layer in layers)  # W + past + new, less W + past
    wanted = torch.autograd.grad(1.5 * come, list(params.values()))
    for name, gradient in zip(params, wanted, strict=True):
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(added[name], gradient, rtol=1e-4, atol=1e-6)
    assert not any(gradient.any() for gradient in held(run, known=params)[0].values())


def test_the_one_lora_that_all_tasks_share_is_not_held_as_a_new_one(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    added, _ = held(bench.learn(bench.run(epochs=1)))
    assert not any(gradient.any() for gradient in added.values())


def test_what_is_kept_for_a_lora_that_is_laid_in_is_let_go(llama, bert):
    bench = make_bench("classify", llama, bert)
    before = bench.learn(bench.run(["ewc", "merge"], epochs=1), upto=1)
    heads = {name for name in before.strategies[0].precision_ if ".lora_" not in name}
    run = bench.run(["inclora"], epochs=1)
    run.load_state({**before.state(), "strategies": {one.name: one.state() for one in before.strategies}})
    assert any(".lora_" in name for name in run.dormant["ewc"]["pull_"])
    run.position = 1
    run.learn(bench.tasks[1])
    assert set(run.dormant["ewc"]["precision_"]) == set(run.dormant["ewc"]["pull_"]) == heads
    assert heads
    assert not any(".lora_" in name for name in run.dormant["merge"]["base_"])


def test_a_layer_that_is_not_linear_is_refused():
    adapters = Adapters(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)))
    adapters.do("lora", **{**LORA, "targets": ["0", "1"]})
    with pytest.raises(ModelError, match=r"linear layers.*model\.adapter\.targets"):
        begin_lora(adapters, seed=0)


def test_a_scaled_layer_is_the_plain_one_with_scaled_rows():
    linear, x = nn.Linear(3, 4, bias=False), torch.randn(5, 3)
    scaled = ScaledLinear(linear)
    assert torch.equal(scaled(x), linear(x))
    with torch.no_grad():
        scaled.vector.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    torch.testing.assert_close(scaled(x), linear(x) * scaled.vector)
    torch.testing.assert_close(scaled.fold()(x), scaled(x))
    assert torch.equal(matrix_of(scaled), scaled.fold().weight)


def test_scaled_layers_are_stacked_and_folded_as_they_compute(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run = bench.learn(bench.run(["aflora"], epochs=1), upto=1)
    before = answers(run, bench.tasks[0])
    assert any(name.endswith(".vector") for name in weights(run))
    layer = next(iter(lora_layers(run.model.network).values()))
    down, up = stack(layer)
    fold_vectors(run.model.network)
    torch.testing.assert_close(up @ down, layer.get_delta_weight("default"))
    torch.testing.assert_close(answers(run, bench.tasks[0]), before, atol=1e-5, rtol=1e-5)
