"""The context signal in closed form."""

import math

import pytest
import torch

from everlearn.experts.signals.context import FEATURES, SPREAD, TYPICAL, Context
from everlearn.experts.signals.passes import Pass
from everlearn.models.load import ModelConfig, load_model
from support.experts import context_of
from support.tasks import prompt_task


def test_each_number_means_what_its_name_says():
    context = Context()
    entropies = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    context.add(Pass(torch.tensor([1.0, 3.0]), entropies[:2], [[5, 6, 5], [5]], torch.tensor([1, 3])))
    context.add(Pass(torch.tensor([5.0]), entropies[2:], [[7, 7, 7, 7]], torch.tensor([5])))
    wanted = [2, math.sqrt(2), 0.4, 2, 3.6, math.log(8 / 3), math.log(3), 3, 3 / 8]
    assert context.signal().tolist() == pytest.approx(wanted)
    assert len(FEATURES) == len(TYPICAL) == len(SPREAD) == len(wanted)


def test_a_base_that_knows_nothing_has_the_entropy_of_its_vocabulary(llama):
    task = prompt_task(0)
    model = load_model(ModelConfig(str(llama)), [task])
    with torch.no_grad():
        model.network.get_output_embeddings().weight.zero_()
    found = context_of(model, task)
    log_n = math.log(model.network.config.vocab_size)
    for name in ("entropy_mean", "entropy_q10", "entropy_q90", "log_perplexity"):
        assert found[name] == pytest.approx(log_n, rel=1e-5)
    assert found["entropy_deviation"] == pytest.approx(0, abs=1e-4)
    features = [model.objective.take(model.objective.encode(task.train, task), [i])[0] for i in range(len(task.train))]
    tokens = [token for one in features for token in one["input_ids"]]
    targets = sum(label != -100 for one in features for label in one["labels"])
    assert found["log_tokens"] == pytest.approx(math.log(len(tokens) / 12), rel=1e-5)
    assert found["log_targets"] == pytest.approx(math.log(targets / 12), rel=1e-5)
    assert found["type_token_ratio"] == pytest.approx(len(set(tokens)) / len(tokens), rel=1e-5)
