"""Soft prompts and prefixes: what is trained, that peft reads them back to the same logits, and what is refused."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from everlearn.errors import ConfigError
from everlearn.evaluation.generate import generate_greedily
from everlearn.models.export import save_trained
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.models.soft import soft_prompt_of
from support.tasks import classify_task, prompt_task

IDS = torch.tensor([[1, 20, 30, 40, 50]])


def load(llama, **adapter):
    return load_model(ModelConfig(str(llama), AdapterConfig(**adapter)), [prompt_task(0)], seed=3)


def moved(model):
    """Return the model after its trained weights were changed."""
    with torch.no_grad():
        for i, parameter in enumerate(model.adapters.trainable().values()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)), alpha=0.3)
    model.network.eval()
    return model


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_only_the_vectors_are_trained(llama, name):
    model = load(llama, name=name, soft_tokens=5)
    n_values = {"prompt": 5 * 32, "prefix": 5 * 2 * 2 * 16}[name]  # prefix: keys and values of 2 layers, 2 heads of 8
    assert sum(p.numel() for p in model.adapters.trainable().values()) == n_values
    assert model.traits[:2] == ("causal", "prompt")


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_peft_answers_alike_from_the_saved_folder(llama, tmp_path, name):
    model = moved(load(llama, name=name, soft_tokens=5))
    save_trained(model, tmp_path / "kept", prompt_task(0))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "kept").eval()
    with torch.no_grad():
        ours, wanted = model.network(input_ids=IDS).logits, theirs(input_ids=IDS).logits
    torch.testing.assert_close(ours, wanted[:, -IDS.shape[1] :], atol=1e-5, rtol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(llama)
    assert (base(input_ids=IDS).logits - ours).abs().max() > 0.01


def test_lora_and_prompt_are_trained_together_and_saved_side_by_side(llama, tmp_path):
    model = moved(load(llama, name="lora_prompt", rank=2, soft_tokens=5))
    assert {"lora" in name or "encoder" in name for name in model.adapters.trainable()} == {True}
    assert model.traits == ("causal", "lora", "soft_prompt")
    save_trained(model, tmp_path / "kept", prompt_task(0))
    prompt = soft_prompt_of(model.network).encoder.embedding.weight
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "kept" / "lora").eval()
    embedded = torch.cat([prompt[None], theirs.get_input_embeddings()(IDS)], dim=1)
    with torch.no_grad():
        wanted = theirs(inputs_embeds=embedded).logits[:, 5:]
        torch.testing.assert_close(model.network(input_ids=IDS).logits, wanted, atol=1e-5, rtol=1e-5)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), tmp_path / "kept" / "prompt")
    torch.testing.assert_close(again.prompt_encoder["default"].embedding.weight, prompt)


@pytest.mark.parametrize("name", ["prompt", "prefix", "lora_prompt"])
def test_text_is_generated_with_the_vectors(llama, name):
    model = moved(load(llama, name=name, soft_tokens=5))
    ids = torch.tensor(model.objective.prompt_ids(["3+1="], 4))
    wanted = ids
    for _ in range(4):
        token = model.network(input_ids=wanted, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        wanted = torch.cat([wanted, token], dim=1)
        if token.item() == model.tokenizer.eos_token_id:
            break
    answer = generate_greedily(model.network, model.objective, ids.tolist(), 4, torch.device("cpu"))[0]
    assert answer == model.tokenizer.decode(wanted[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_prompt_begins_as_the_words_it_is_given(llama):
    model = load(llama, name="prompt", soft_tokens=5, init_text="abcd")
    ids = model.tokenizer("abcd")["input_ids"]
    table = model.network.get_input_embeddings().weight
    torch.testing.assert_close(soft_prompt_of(model.network).encoder.embedding.weight, table[ids])


def test_the_seed_chooses_the_first_vectors(llama):
    def vectors(seed):
        config = ModelConfig(str(llama), AdapterConfig(name="prompt"))
        return soft_prompt_of(load_model(config, [prompt_task(0)], seed).network).encoder.embedding.weight

    assert torch.equal(vectors(1), vectors(1))
    assert not torch.equal(vectors(1), vectors(2))


def test_what_does_not_fit_is_refused(llama, bert):
    with pytest.raises(ConfigError, match=r"model.adapter.name: is for language models that write. Got 'prompt'"):
        load_model(ModelConfig(str(bert), AdapterConfig(name="prompt")), [classify_task(0)])
    with pytest.raises(ConfigError, match=r"model.adapter.init_text: needs a soft prompt. Got 'x'"):
        AdapterConfig(name="prefix", init_text="x")
    with pytest.raises(ConfigError, match=r"model.adapter.soft_tokens: leave no room for a text. Got 62"):
        load(llama, name="prompt", soft_tokens=62)
