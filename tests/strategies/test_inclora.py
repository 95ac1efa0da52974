import pytest
import torch

from everlearn.models.lora import PAST, lora_layers
from support.runs import assert_same, make_bench, weights


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def test_the_first_task_is_plain_training(bench):
    assert_same(weights(bench.learn(bench.run(), upto=1)), weights(bench.learn(bench.run(["inclora"]), upto=1)))


def test_the_first_lora_stays_and_the_second_learns(bench):
    run = bench.learn(bench.run(["inclora"], weight_decay=0.1), upto=1)
    layers = lora_layers(run.model.network)
    first = {name: layer.get_delta_weight("default").detach().clone() for name, layer in layers.items()}
    run.position = 1
    run.learn(bench.tasks[1])
    for name, layer in lora_layers(run.model.network).items():
        assert sorted(layer.lora_A) == [PAST, "task_2"]
        torch.testing.assert_close(layer.get_delta_weight(PAST), first[name])
        assert layer.get_delta_weight("task_2").abs().max() > 0


def test_both_are_summed_for_every_task(bench):
    run = bench.learn(bench.run(["inclora"]))
    layer = next(iter(lora_layers(run.model.network).values()))
    x = torch.randn(3, layer.in_features)
    with torch.no_grad():
        wanted = layer.base_layer(x) + sum(x @ layer.get_delta_weight(a).T for a in (PAST, "task_2"))
        torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)


def test_what_it_keeps_is_in_the_model(bench):
    run = bench.learn(bench.run(["inclora"], epochs=1))
    assert run.strategies[0].state() == {}
    trained = sum(p.numel() for p in run.model.adapters.trainable().values())
    kept = sum(t.numel() for n, t in run.model.adapters.tensors().items() if not n.startswith("buffer:"))
    assert kept == 2 * trained
