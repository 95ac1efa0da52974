import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError
from everlearn.models.adapters import Adapters, is_peft, linear_names
from everlearn.models.heads import GrowingHead
from everlearn.models.load import AdapterConfig, load_model
from support.runs import make_bench, weights

LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "auto", "seed": 0, "task_type": None}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_nothing_is_trainable_before_it_is_asked_for():
    adapters = Adapters(network())
    assert adapters.trainable() == {}
    adapters.do("full")
    assert len(adapters.trainable()) == 6


def test_lora_trains_only_its_own_matrices_and_changes_nothing_at_first():
    plain, x = network().eval(), torch.randn(5, 3)
    adapters = Adapters(network())
    adapters.do("lora", **LORA)
    assert is_peft(adapters.network)
    assert all("lora_" in name for name in adapters.trainable())
    assert torch.equal(adapters.network.eval()(x), plain(x))


def test_the_log_replays_to_the_same_structure_and_weights():
    first = Adapters(network(), GrowingHead(4), "task")
    first.do("lora", **LORA)
    first.do("labels", task="a", labels=["x", "y"], seed=0)
    first.do("labels", task="b", labels=["y", "z", "w"], seed=0)
    log = json.loads(json.dumps(first.log))
    second = Adapters(network(), GrowingHead(4), "task")
    second.do("lora", **LORA)
    second.replay(log)
    assert second.log == log
    assert (second.columns, second.task_blocks, second.task_labels) == (
        first.columns,
        first.task_blocks,
        first.task_labels,
    )
    assert second.tensors().keys() == first.tensors().keys()
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    for one, other in zip(first.head.parameters(), second.head.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_log_of_another_structure_is_refused():
    adapters = Adapters(network())
    adapters.do("full")
    with pytest.raises(ModelError, match="saved structure differs"):
        adapters.replay([["lora", LORA]])


def test_unknown_operations_and_layers_are_refused():
    adapters = Adapters(network())
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        adapters.do("lorra")
    with pytest.raises(ConfigError, match=r"model\.adapter\.targets"):
        adapters.do("lora", **{**LORA, "targets": ["no_such_layer"]})
    assert adapters.log == []


def test_buffers_are_saved_too():
    adapters = Adapters(network())
    adapters.do("lora", **LORA)
    assert any(name.startswith("buffer:") and "running_mean" in name for name in adapters.tensors())


def test_weights_that_do_not_fit_are_refused_and_nothing_is_copied():
    adapters = Adapters(network())
    adapters.do("full")
    before = {name: tensor.clone() for name, tensor in adapters.tensors().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    for wrong in ({**other, "0.weight": torch.zeros(9, 9)}, {k: v for k, v in other.items() if k != "2.bias"}):
        with pytest.raises(ModelError, match="saved weights don't fit"):
            adapters.load_tensors(wrong)
    assert all(torch.equal(before[name], tensor) for name, tensor in adapters.tensors().items())


def test_using_other_weights_lets_an_open_graph_be_walked_back():
    adapters = Adapters(nn.Linear(2, 1, bias=False))
    adapters.do("full")
    (name, weight), x = next(iter(adapters.trainable().items())), torch.tensor([[1.0, 2.0]])
    present = weight.detach().clone()
    loss = adapters.network(x).square().sum()
    with torch.no_grad(), adapters.using({name: torch.ones(1, 2)}):
        assert adapters.network(x).item() == 3.0
    assert torch.equal(weight, present)
    loss.backward()
    torch.testing.assert_close(weight.grad, 2 * (x * present).sum() * x)
    with pytest.raises(ZeroDivisionError), adapters.using({name: torch.ones(1, 2)}):
        _ = 1 / 0
    assert torch.equal(weight, present)


def test_buffers_can_be_exchanged_as_well():
    adapters = Adapters(network())
    adapters.do("full")
    before = {name: tensor.clone() for name, tensor in adapters.tensors().items()}
    with adapters.using({"buffer:1.running_mean": torch.full((4,), 7.0)}):
        assert adapters.network[1].running_mean.tolist() == [7.0] * 4
    assert all(torch.equal(before[name], tensor) for name, tensor in adapters.tensors().items())


def test_blocks_of_a_shared_head_grow_by_new_labels_only():
    adapters = Adapters(network(), GrowingHead(4), "shared")
    adapters.do("labels", task="a", labels=["x", "y"], seed=0)
    adapters.do("labels", task="b", labels=["y", "z"], seed=0)
    adapters.do("labels", task="c", labels=["z", "x"], seed=0)
    assert adapters.columns == {"x": 0, "y": 1, "z": 2}
    assert [block.out_features for block in adapters.head.blocks] == [2, 1]


def test_a_head_s_weights_depend_on_task_and_seed_and_not_on_the_order(llama, bert):
    def block(tasks, seed, task):
        adapters = Adapters(network(), GrowingHead(4), "task")
        for name in tasks:
            adapters.do("labels", task=name, labels=["x", "y"], seed=seed)
        return adapters.head.blocks[adapters.task_blocks[task]].weight

    state = torch.get_rng_state()
    assert torch.equal(block("ab", 0, "b"), block("ba", 0, "b"))
    assert not torch.equal(block("ab", 0, "b"), block("ab", 1, "b"))
    assert not torch.equal(block("ab", 0, "b"), block("ab", 0, "a"))
    assert torch.equal(torch.get_rng_state(), state)


def test_automatic_targets_leave_out_the_output_layer_and_tied_weights(llama, bert):
    model = load_model(make_bench("causal_full", llama, bert).config, make_bench("causal_full", llama, bert).tasks)
    names = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(linear_names(model.network, None)) == names
    with pytest.raises(ModelError, match="no linear layer"):
        linear_names(nn.Sequential(nn.ReLU()), None)


def test_weights_that_the_checkpoint_lacked_are_trained_and_the_same_every_time(llama, bert):
    bench = make_bench("classify", llama, bert)
    first, second = bench.run(), bench.run()
    assert any("pooler.dense.base_layer.weight" in name for name in first.model.adapters.trainable())
    pairs = zip(first.model.network.parameters(), second.model.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    other_seed = weights(bench.run(seed=1))
    pooler = next(name for name in weights(first) if "pooler.dense.base_layer.weight" in name)
    assert not torch.equal(weights(first)[pooler], other_seed[pooler])


def test_configuration_out_of_range():
    for name, value in (("name", "lorra"), ("rank", 0), ("alpha", 0), ("dropout", 2), ("targets", "all")):
        with pytest.raises(ConfigError, match=rf"model\.adapter\.{name}"):
            AdapterConfig(**{name: value})


@pytest.mark.parametrize("architecture", ["mamba", "mamba2", "jamba", "gpt2", "mixtral"])
def test_lora_on_all_linear_layers_of_other_architectures_learns_everywhere(architecture):
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 24, "pad_token_id": 0}
    own = {
        "mamba": {"state_size": 4},
        "mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1},
        "jamba": {**heads, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
        "gpt2": {"n_head": 2},
        "mixtral": {**heads, "num_local_experts": 2},
    }[architecture]
    adapters = Adapters(AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **own)))
    adapters.do("lora", rank=2, alpha=4, dropout=0.0, targets="auto", seed=0, task_type="CAUSAL_LM")
    adapters.train()
    adapters.network(input_ids=torch.arange(2, 12)[None], use_cache=False).logits.logsumexp(-1).sum().backward()
    assert all(p.grad.any() for name, p in adapters.trainable().items() if "lora_B" in name)


def test_an_error_does_not_advise_what_was_tried():
    adapters = Adapters(nn.Sequential(nn.Conv1d(2, 2, 1)))
    with pytest.raises(ModelError, match=r"no linear layer for LoRA. Got \[\]. Use model.adapter.name: full"):
        adapters.do("lora", rank=2, alpha=4, dropout=0.0, targets="auto", seed=0, task_type=None)
