"""The text signal is the mean of last hidden states, whatever stands on the base."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from everlearn.errors import ConfigError
from everlearn.experts.signals.text import TextSignal, input_text
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from support.experts import shake
from support.tasks import classify_task, prompt_task, tag_task, text_task


def mean_state(folder, text: str) -> torch.Tensor:
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return F.normalize(network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0), dim=0)


def test_it_is_the_mean_of_the_bases_last_states(llama):
    model = load_model(ModelConfig(str(llama), AdapterConfig(rank=2)), [prompt_task(0)])
    shake(model, 0)
    vector = TextSignal(model).of("adds two numbers", [])
    assert vector.shape == (32,)
    torch.testing.assert_close(vector, mean_state(llama, "adds two numbers"))


def test_an_encoder_by_name_reads_for_the_base(llama, bert):
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    vector = TextSignal(model, str(bert)).of("adds two numbers", [])
    torch.testing.assert_close(vector, mean_state(bert, "adds two numbers"))


def test_inputs_count_as_much_as_the_description(llama):
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    rows = [{"prompt": "1+1=", "completion": "2"}, {"prompt": "a longer question", "completion": "3"}]
    inputs = torch.stack([mean_state(llama, row["prompt"]) for row in rows]).mean(0)
    wanted = F.normalize(mean_state(llama, "adds") + inputs, dim=0)
    torch.testing.assert_close(TextSignal(model, with_inputs=True).of("adds", rows), wanted)


@pytest.mark.parametrize("description", ["", " \n"])
def test_an_empty_description_is_refused(llama, description):
    model = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    with pytest.raises(ConfigError, match="description: is empty"):
        TextSignal(model).of(description, [])


def test_what_is_asked_of_each_kind_of_row(llama, bert):
    causal = load_model(ModelConfig(str(llama)), [prompt_task(0)])
    encoder = load_model(ModelConfig(str(bert)), [classify_task(0)])
    assert input_text(causal, prompt_task(0).train[0]) == "t0 0+1="
    assert input_text(causal, text_task(0).train[1]) == "0: ab 1."
    assert input_text(encoder, {"text": "a", "text_pair": "b"}) == "a b"
    assert input_text(encoder, tag_task(0).train[0]) == "is anna"
