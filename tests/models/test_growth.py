import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError
from everlearn.models.adapters import Adapters
from everlearn.models.export import export_model
from everlearn.models.growth import add_capacity, fit_state
from everlearn.models.lora import lora_layers
from support.runs import answers, make_bench

LORA = {"rank": 3, "alpha": 7.0, "dropout": 0.0, "targets": "auto", "seed": 0, "task_type": None}


def mlp(activation=nn.ReLU, bias=True):
    torch.manual_seed(0)
    sizes = [6, 5, 4, 3]
    layers = [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def whole(network, seed=0):
    """Give the weights small whole values, with which sums are exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randint(-3, 4, p.shape, generator=generator))
    return network


def shake(adapters, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapters.trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("bias", [True, False])
def test_a_wider_mlp_computes_what_it_did_and_keeps_what_it_held(bias):
    network, x = whole(mlp(bias=bias)), torch.randint(-3, 4, (7, 2, 3)).float()
    before, old = network(x), {name: p.detach().clone() for name, p in network.named_parameters()}
    former = add_capacity(network, 2)
    assert torch.equal(network(x), before)  # outputs of new units, however fractional, are multiplied by 0
    assert [tuple(p.shape) for p in network.parameters() if p.ndim == 2] == [(7, 6), (6, 7), (3, 6)]
    assert former == {name: tensor.shape for name, tensor in old.items() if not name.startswith("5.bias")}
    for name, p in network.named_parameters():
        assert torch.equal(p[tuple(slice(n) for n in old[name].shape)], old[name])
        assert p.requires_grad
    assert network[1].out_features == network[3].in_features == 7


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.LeakyReLU])
def test_it_is_the_same_with_any_activation_up_to_rounding(activation):
    network, x = mlp(activation), torch.randn(7, 6)
    before = network(x)
    add_capacity(network, 64)
    torch.testing.assert_close(network(x), before, rtol=1e-6, atol=1e-6)


def test_new_units_begin_as_a_layer_s_own_do_and_learn():
    network = mlp()
    add_capacity(network, 400)
    first, second, last = network[1], network[3], network[5]
    for rows, n_inputs in ((first.weight[5:], 6), (first.bias[5:], 6), (second.weight[4:], 405)):
        assert 0.9 < rows.abs().max() * n_inputs**0.5 <= 1
        assert abs(rows.mean()) * n_inputs**0.5 < 0.1
    assert not second.weight[:4, 5:].any()
    assert not last.weight[:, 4:].any()
    drawn = first.weight[5:].detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()
    assert last.weight[:, 4:].any()
    assert not torch.equal(first.weight[5:], drawn)


def test_growth_is_seeded_and_each_time_another():
    state, grown = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        network = mlp()
        torch.set_rng_state(state)
        add_capacity(network, 3, seed=seed)
        add_capacity(network, 3, seed=seed)
        grown.append(network[1].weight.detach())
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(grown[0], grown[1])
    assert not torch.equal(grown[0], grown[2])
    assert not torch.equal(grown[0][5:8], grown[0][8:])


def test_the_dtype_stays():
    network = mlp().to(torch.bfloat16)
    add_capacity(network, 2)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("layers", "what"),
    [
        ([nn.Linear(4, 2)], "no hidden layer"),
        ([nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)], "no chain of linear maps"),
        ([nn.Linear(4, 3), nn.LayerNorm(3, elementwise_affine=False), nn.Linear(3, 2)], "can't take more units"),
        ([nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2)], "can't take more units"),
        ([nn.Linear(4, 3), nn.Softmax(-1), nn.Linear(3, 2)], "can't take more units"),
    ],
)
def test_networks_whose_function_it_would_change_are_refused(layers, what):
    network = nn.Sequential(*layers)
    with pytest.raises(ModelError, match=what):
        add_capacity(network)
    assert network[0].weight.shape[1] == 4


def test_options_and_models_that_do_not_fit_are_refused(llama, bert):
    with pytest.raises(ConfigError, match=r"new_neurons: is out of range\. Got 0"):
        add_capacity(mlp(), 0)
    with pytest.raises(ModelError, match="no chain of linear maps"):
        add_capacity(make_bench("causal_full", llama, bert).run().model)
    run = make_bench("causal_lora", llama, bert).run()
    run.model.adapters.do("lora_vectors")
    with pytest.raises(ModelError, match="are not plain ones"):
        add_capacity(run.model)


def test_a_lora_of_higher_rank_computes_what_it_did():
    adapters, x = Adapters(whole(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))), torch.randn(7, 6)
    adapters.do("lora", **{**LORA, "alpha": 6.0})
    x = torch.randint(-3, 4, (7, 6)).float()
    whole(adapters.network, 1)
    before = adapters.network(x)
    former = add_capacity(adapters, 2)
    assert torch.equal(adapters.network(x), before)
    assert len(former) == 4
    for layer in lora_layers(adapters.network).values():
        down, up = layer.lora_A["default"], layer.lora_B["default"]
        assert down.weight.shape == (5, layer.in_features)
        assert 0 < down.weight[3:].abs().max() <= layer.in_features**-0.5
        assert up.weight.shape == (layer.out_features, 5)
        assert not up.weight[:, 3:].any()
        assert (down.out_features, up.in_features, layer.r["default"]) == (5, 5, 5)
        assert layer.scaling["default"] == layer.lora_alpha["default"] / 5 == 2
    assert set(former) <= set(adapters.trainable())
    assert not any(".base_layer." in name for name in former)


@pytest.mark.parametrize("kind", ["causal_lora", "classify", "tag"])
def test_language_models_answer_as_before(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1), upto=1)
    before = answers(run, bench.tasks[0])
    former = add_capacity(run.model, 3)
    assert former
    assert all(".lora_" in name for name in former)
    torch.testing.assert_close(answers(run, bench.tasks[0]), before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lora", [True, False])
def test_the_log_replays_to_the_same_weights_and_what_was_frozen_stays_so(lora):
    def fresh():
        adapters = Adapters(mlp())
        adapters.do("lora", **LORA) if lora else adapters.do("full")
        return adapters

    first, second = fresh(), fresh()
    names = list(first.trainable())
    first.do("freeze", parameters=names[:2])
    shake(first, 0)
    add_capacity(first, 2, seed=5)
    add_capacity(first, 4, seed=5)
    assert list(first.trainable()) == names[2:]
    assert len(first._trained) == len(names)  # what was replaced is not held on to
    second.replay(json.loads(json.dumps(first.log)))
    assert list(second.trainable()) == names[2:]
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    x = torch.randn(4, 6)
    assert torch.equal(first.network(x), second.network(x))


@pytest.mark.parametrize("merged", [False, True])
def test_a_lora_that_grew_is_exported_as_any_other(llama: Path, bert: Path, tmp_path: Path, merged: bool) -> None:
    run = make_bench("causal_lora", llama, bert).run()
    model = run.model
    shake(model.adapters, 0)
    add_capacity(model, 3)
    shake(model.adapters, 1)
    model.network.eval()
    batch = dict(model.tokenizer(["a b", "1+1="], padding=True, return_tensors="pt"))
    with torch.no_grad():
        expected = model.network(**batch).logits
    folder = export_model(model, tmp_path / "out", run.tasks["add_0"], merged=merged).path
    loaded = AutoModelForCausalLM.from_pretrained(folder if merged else llama)
    if not merged:
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == (7, 14)
        loaded = PeftModel.from_pretrained(loaded, folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**batch).logits, expected, atol=1e-4, rtol=1e-4)


def test_what_is_kept_for_a_weight_grows_with_it():
    weights = {"a": torch.full((3, 4), 9.0)}
    state = {
        "precision_": {"a": torch.ones(2, 3, dtype=torch.float64), "b": torch.ones(2)},
        "anchor_": {"a": torch.ones(2, 3)},
        "n_": 3,
        "names_": ["a"],
    }
    fit_state(state, {"a": torch.Size([2, 3])}, weights, ("anchor_",))
    kept = torch.zeros(3, 4)
    kept[:2, :3] = 1
    assert torch.equal(state["precision_"]["a"], kept.double())
    assert torch.equal(state["anchor_"]["a"], torch.where(kept == 1, 1.0, 9.0))
    assert torch.equal(state["precision_"]["b"], torch.ones(2))
    with pytest.raises(ModelError, match=r"bases_ can't follow a weight that grows\. Got 'a'"):
        fit_state({"bases_": {"a": torch.ones(3, 2)}}, {"a": torch.Size([2, 3])}, weights)
