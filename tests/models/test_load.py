import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from everlearn.errors import ConfigError, ModelError
from everlearn.learners.loader import row_batches
from everlearn.models.load import AdapterConfig, ModelConfig, load_model, network_kind
from everlearn.models.objectives import mean_loss
from everlearn.types import Task
from support.chat import chat_tokenizer
from support.models import byte_tokenizer, make_llama
from support.runs import make_bench
from support.tasks import classify_task, prompt_task, tensor_task


def test_it_loads_the_weights_that_were_saved(llama):
    model = load_model(ModelConfig(str(llama), AdapterConfig("full")), [prompt_task(0)])
    wanted = LlamaForCausalLM.from_pretrained(llama)
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    assert model.objective.max_length == 64
    assert all(p.dtype == torch.float32 for p in model.network.parameters())


def test_dtype_attention_and_length_are_as_asked(llama):
    config = ModelConfig(str(llama), dtype="bfloat16", attn_implementation="eager", max_length=16)
    model = load_model(config, [prompt_task(0)])
    assert model.objective.max_length == 16
    assert model.network.config._attn_implementation == "eager"
    backbone = [p for name, p in model.network.named_parameters() if "lora" not in name]
    assert all(p.dtype == torch.bfloat16 for p in backbone)
    with pytest.raises(ConfigError, match=r"exceeds the model's limit of 64. Got 65"):
        load_model(ModelConfig(str(llama), max_length=65), [prompt_task(0)])


def test_lora_is_the_default_for_language_models_and_full_for_plain_modules(llama):
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    assert all("lora_" in name for name in model.adapters.trainable())
    plain = load_model(ModelConfig("mlp"), [tensor_task(0)])
    assert plain.adapters.trainable().keys() == dict(plain.network.named_parameters()).keys()


def test_lora_starts_seeded_and_loading_leaves_the_global_generator(llama):
    state = torch.get_rng_state()
    first, second, other = (
        load_model(ModelConfig(str(llama)), [prompt_task(0)], seed).adapters.tensors() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_is_trained_in_place():
    network = nn.Linear(6, 2)
    assert load_model(network, [tensor_task(0)]).network is network
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["/no/such/folder", "nobody/no-such-model"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(ModelError, match=r"can't be loaded .*A folder with config\.json and safetensors") as caught:
        load_model(ModelConfig(name), [prompt_task(0)])
    assert "\n" not in str(caught.value)


def test_pickles_are_refused_unless_asked_for(llama, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(llama, folder)
    network = LlamaForCausalLM.from_pretrained(llama)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors_only: false"):
        load_model(ModelConfig(str(folder)), [prompt_task(0)])
    model = load_model(ModelConfig(str(folder), AdapterConfig("full"), safetensors_only=False), [prompt_task(0)])
    assert torch.equal(model.network.model.norm.weight, network.model.norm.weight)


def test_a_damaged_checkpoint_is_one_sentence(llama, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(llama, folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        load_model(ModelConfig(str(folder)), [prompt_task(0)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantization_needs_a_gpu(bits, llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=f"bitsandbytes needs a GPU. Got '{bits}'"):
        load_model(ModelConfig(str(llama), quantization=bits), [prompt_task(0)])


@pytest.mark.parametrize(
    ("name", "value"),
    [("head", "tasks"), ("dtype", "fp32"), ("quantization", "2bit"), ("max_length", 1)],
)
def test_options_out_of_range(name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        ModelConfig(**{name: value})


def test_one_stream_one_kind_of_model():
    assert network_kind([prompt_task(0), prompt_task(1)]) == "causal"
    with pytest.raises(ConfigError, match="different kinds of model"):
        network_kind([prompt_task(0), classify_task(0)])


def test_evaluating_gives_each_module_its_own_flag_back(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    model.network.train()
    chosen = list(model.network.modules())[3]
    chosen.training = False
    flags = [module.training for module in model.network.modules()]
    with model.evaluating():
        assert not any(module.training for module in model.network.modules())
    assert [module.training for module in model.network.modules()] == flags
    with pytest.raises(ZeroDivisionError), model.evaluating():
        _ = 1 / 0
    assert [module.training for module in model.network.modules()] == flags


@pytest.mark.real_data
def test_a_model_from_elsewhere_works_by_its_path(shared_data):
    folders = [path for path in sorted((shared_data / "models").iterdir()) if (path / "config.json").exists()]
    if not folders:
        pytest.skip("no model is there")
    for folder in folders:
        model = load_model(ModelConfig(str(folder)), [classify_task(0)])
        model.adapters.do("labels", task="classify_0", labels=["a", "b"], seed=0)
        batch = model.objective.collate(model.objective.encode(classify_task(0).train, classify_task(0)))
        assert model.objective.forward(model.network, batch).logits.shape == (12, 2)


def test_a_chat_template_brings_tokens_whose_embeddings_are_trained_beside_a_lora(llama):
    config, row = ModelConfig(str(llama), chat_template="chatml"), {"prompt": "1+1", "completion": "2"}
    task = Task("t", "prompt", [row], [row])
    model = load_model(config, [task])
    assert model.traits == ("causal", "lora", "new_tokens")
    assert model.objective.wraps
    marks = model.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert marks == model.adapters.new_tokens == [259, 260]
    assert model.network.generation_config.eos_token_id == model.objective.stop_ids == [2, 260]
    (trained,) = (p for name, p in model.adapters.trainable().items() if "trainable_tokens" in name)
    assert trained.shape == (2, 32)
    _, batch = next(row_batches(model.objective, task.train, task, 1))
    mean_loss(model.objective.forward(model.network, batch)).backward()
    assert trained.grad.abs().sum() > 0
    again = load_model(config, [task])
    assert all(torch.equal(tensor, again.adapters.tensors()[name]) for name, tensor in model.adapters.tensors().items())
    full = load_model(replace(config, adapter=AdapterConfig("full")), [task])
    assert full.network.get_input_embeddings().weight.shape == (261, 32)
    with pytest.raises(ConfigError, match=r"can't train the tokens that model\.chat_template adds. Got 'prompt'"):
        load_model(replace(config, adapter=AdapterConfig("prompt")), [task])
    with pytest.raises(ConfigError, match=r"model\.chat: is"):
        ModelConfig(chat="perhaps")


def test_whether_prompts_become_turns_follows_the_tokenizer_or_the_config(tmp_path):
    make_llama(tmp_path)
    chat_tokenizer("plain").save_pretrained(tmp_path)
    network = LlamaForCausalLM.from_pretrained(tmp_path)
    network.resize_token_embeddings(len(chat_tokenizer("plain")), mean_resizing=False)
    network.save_pretrained(tmp_path)
    decided = {
        chat: load_model(ModelConfig(str(tmp_path), chat=chat), [prompt_task(0)]).objective.wraps
        for chat in ("auto", "always", "never")
    }
    assert decided == {"auto": True, "always": True, "never": False}


def test_the_length_is_the_model_s_own_and_no_more_than_the_tokenizer_s(tmp_path):
    make_llama(tmp_path)
    config = LlamaForCausalLM.from_pretrained(tmp_path).config
    config.max_position_embeddings = 4096
    config.save_pretrained(tmp_path)
    for own, wanted in ((10**30, 4096), (2048, 2048)):
        tokenizer = byte_tokenizer()
        tokenizer.model_max_length = own
        tokenizer.save_pretrained(tmp_path)
        assert load_model(ModelConfig(str(tmp_path)), [prompt_task(0)]).objective.max_length == wanted


def test_quantized_weights_are_not_trained():
    with pytest.raises(ConfigError, match=r"^model.adapter.name: quantized weights can't be trained. Got 'full'"):
        ModelConfig(quantization="4bit", adapter=AdapterConfig("full"))
