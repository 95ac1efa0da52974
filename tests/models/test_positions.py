"""Logits only where a target is: the same losses and gradients as from all logits, whatever the model."""

import functools

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from torch.nn import functional as F
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from everlearn.functional.fisher import sum_of_squared_gradients
from everlearn.functional.per_example import has_rows
from everlearn.models.adapters import Adapters, language_model
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import IGNORED, mean_loss
from everlearn.models.positions import at_wanted
from everlearn.models.soft import add_soft_prompt
from support.models import HEADS, N_WORDS, SIZES, byte_tokenizer

TARGETS = (3, 1, 0, 4)  # of each row


class OldLlama(LlamaForCausalLM):
    """A forward that knows nothing of positions to keep."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, use_cache=None):
        return super().forward(input_ids, attention_mask, inputs_embeds=inputs_embeds, use_cache=use_cache)


class IndexLlama(LlamaForCausalLM):
    """A forward that takes positions as indices alone, as transformers' own did."""

    def forward(self, input_ids=None, attention_mask=None, use_cache=None, logits_to_keep=slice(None)):
        outputs = self.model(input_ids, attention_mask=attention_mask, use_cache=use_cache)
        outputs.logits = self.lm_head(outputs.last_hidden_state[:, logits_to_keep])
        return outputs


def llama(kind=LlamaForCausalLM, **options):
    return kind(LlamaConfig(**SIZES, **HEADS, **options))


def lora(network, *targets):
    config = LoraConfig(r=4, target_modules=list(targets), task_type=TaskType.CAUSAL_LM, init_lora_weights=False)
    return get_peft_model(network, config)


def soft_prompt():
    adapters = Adapters(llama())
    add_soft_prompt(adapters, length=3, text=None, source="", seed=0)
    return adapters.network.requires_grad_(True)


def peft_prompt(config):
    network = get_peft_model(llama(), config(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3))
    return network.requires_grad_(True)


def only_the_head():
    network = llama().requires_grad_(False)
    network.lm_head.requires_grad_(True)
    return network


MASK, INDICES, ALL = "mask", "indices", "all"
MODELS = {
    "llama": (MASK, llama),
    "llama, tied": (MASK, lambda: llama(tie_word_embeddings=True)),
    "gpt2": (MASK, lambda: GPT2LMHeadModel(GPT2Config(vocab_size=N_WORDS, n_embd=16, n_layer=2, n_head=2))),
    "gemma2, which caps its logits": (
        MASK,
        lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, **HEADS, final_logit_softcapping=0.5)),
    ),
    "cohere, which scales them": (
        MASK,
        lambda: CohereForCausalLM(CohereConfig(**SIZES, **{k: v for k, v in HEADS.items() if k != "head_dim"})),
    ),
    "mamba": (MASK, lambda: MambaForCausalLM(MambaConfig(**SIZES, state_size=4))),
    "lora": (MASK, lambda: lora(llama(), "q_proj", "down_proj")),
    "lora on the output layer": (INDICES, lambda: lora(llama(), "q_proj", "lm_head")),
    "the output layer alone": (INDICES, only_the_head),
    "soft prompt": (MASK, soft_prompt),
    "prefix": (MASK, lambda: peft_prompt(PrefixTuningConfig)),
    "a peft prompt": (ALL, lambda: peft_prompt(PromptTuningConfig)),
    "indices alone": (INDICES, lambda: llama(IndexLlama)),
    "no such argument": (ALL, lambda: llama(OldLlama)),
}


@pytest.fixture(params=MODELS)
def model(request):
    """(what the output layer is given, a model with random weights in evaluation mode)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        way, make = MODELS[request.param]
        return way, make().eval()


def batch(n_tokens=12, targets=TARGETS):
    """Rows of different lengths with targets at different places, padded on the right; one has none."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, N_WORDS, (len(targets), n_tokens), generator=generator)
    mask, labels = torch.ones_like(ids), torch.full_like(ids, IGNORED)
    for row, n in enumerate(targets):
        end = n_tokens - row
        mask[row, end:] = 0
        labels[row, end - n : end] = ids[row, end - n : end]
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def losses_of_all_logits(network, batch):
    """The slow way: every position's logits, and then those before a target."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = network(**inputs, use_cache=False).logits[:, -batch["labels"].shape[1] :]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED)


def gradients(network, loss):
    found = torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad], allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def test_losses_and_gradients_are_those_of_all_logits(model):
    _, network = model
    outputs = CausalObjective(byte_tokenizer(), 64).forward(network, batch(), past=("before",))
    loss, wanted = mean_loss(outputs), losses_of_all_logits(network, batch())
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-7)
    for found, right in zip(gradients(network, loss), gradients(network, wanted), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    assert outputs.owners.tolist() == [row for row, n in enumerate(TARGETS) for _ in range(n)]
    assert outputs.past[0] is outputs.logits


def test_the_output_layer_reads_the_positions_before_targets(model):
    way, network = model
    read = []
    head = language_model(network).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[:-1]))
    CausalObjective(byte_tokenizer(), 64).forward(network, batch())
    handle.remove()
    if way == ALL:
        assert read[0][1] >= batch()["input_ids"].shape[1]
    else:
        assert read == [{MASK: (sum(TARGETS),), INDICES: (len(TARGETS), len(range(4, 11)))}[way]]


@pytest.mark.parametrize("name", ["lora", "lora on the output layer", "the output layer alone"])
def test_gradients_are_told_apart_by_row_where_there_are_as_many_items_as_rows(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MODELS[name][1]().eval()
    whole, objective = batch(targets=(2, 1, 0, 1)), CausalObjective(byte_tokenizer(), 64)
    alone = [{name: tensor[row : row + 1] for name, tensor in whole.items()} for row in range(4)]
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}

    def squares(batches):
        forward = functools.partial(objective.forward, network)
        return sum_of_squared_gradients(network, parameters, batches, forward, "empirical")[0]

    found, wanted = squares([whole]), squares(alone)
    for parameter in parameters:
        torch.testing.assert_close(found[parameter], wanted[parameter], rtol=1e-4, atol=1e-7)
        assert "lora_A" in parameter or wanted[parameter].any()


def test_values_of_the_wanted_positions_come_row_after_row():
    wanted = torch.tensor([[False, True, False, True], [True, True, False, False]])
    values = torch.arange(8).view(2, 4)
    right = [1, 3, 4, 5]
    assert at_wanted(values, wanted, None).tolist() == right
    assert at_wanted(values[wanted], wanted, wanted).tolist() == right
    indices = torch.tensor([0, 1, 3])
    assert at_wanted(values[:, indices], wanted, indices).tolist() == right


@pytest.mark.parametrize(
    ("shape", "labels", "apart"),
    [((2, 5, 8), (2, 5), True), ((2, 8), (2, 5), False), ((3, 5, 8), (2, 5), False), ((2, 8), (2, 1), True)],
)
def test_tokens_end_to_end_are_not_taken_for_rows(shape, labels, apart):
    tokens = {"input_ids": torch.zeros(2, 5, dtype=torch.long), "labels": torch.zeros(labels, dtype=torch.long)}
    assert has_rows(torch.zeros(shape), tokens) is apart
