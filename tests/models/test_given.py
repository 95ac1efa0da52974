"""Models that the caller has loaded are trained in place; what is frozen in them is left alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForCausalLM,
)

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, EverlearnError, ModelError
from everlearn.models.export import export_model
from everlearn.registry import names

SUMS = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(12)]
TIMES = [{"prompt": f"{n}*2=", "completion": str(2 * n)} for n in range(12)]
WORDS = [{"text": " ".join(["is"] * n + ["good" if n % 2 else "bad"]), "label": n % 2} for n in range(1, 13)]
LEARNER = {"epochs": 1, "batch_size": 4}
pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned")


def causal(folder) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def peft_model(folder) -> Any:
    return get_peft_model(causal(folder), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def learned(model, tasks, strategies=(), **options) -> ContinualTrainer:
    trainer = ContinualTrainer(model, strategies, LEARNER, **options)
    for number, rows in enumerate(tasks):
        trainer.train_task(f"task_{number}", train=rows[:9], evaluate=rows[9:])
    return trainer


def test_a_transformers_model_learns_as_one_loaded_by_its_name(llama):
    network = causal(llama)
    given, named = learned(network, [SUMS]).run.model, learned(str(llama), [SUMS]).run.model
    assert given.network.get_base_model() is network
    assert given.traits == named.traits == ("causal", "lora")
    for mine, theirs in zip(given.adapters.tensors().values(), named.adapters.tensors().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_network_that_holds_a_gguf_file_s_blocks_is_refused(gguf_file, llama, capfd):
    network = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    with pytest.raises(ModelError, match=r"holds the blocks of a GGUF file.*Give the GGUF file's name instead"):
        learned(network, [SUMS], tokenizer=tokenizer)


def test_all_weights_of_a_transformers_model_but_those_that_are_frozen(llama):
    network = causal(llama)
    network.model.embed_tokens.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    model = learned(network, [SUMS], model_options={"adapter": {"name": "full"}}).run.model
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before) - {"model.embed_tokens.weight"} == set(model.adapters.trainable())


@pytest.mark.parametrize("strategy", ["ewc", "replay", "gpm", "lwf", "merge", "inclora", "olora"])
def test_of_a_peft_model_its_own_adapter_is_trained(llama, strategy):
    network = peft_model(llama)
    base = {name: p.detach().clone() for name, p in network.named_parameters() if not p.requires_grad}
    run = learned(network, [SUMS, TIMES], [strategy]).run
    assert run.model.network is network
    assert run.model.traits == ("causal", "lora")
    assert all(".q_proj.lora_" in name for name in run.model.adapters.trainable())
    present = dict(network.named_parameters())
    assert all(torch.equal(present[name], p) for name, p in base.items())


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("make", [causal, peft_model])
def test_a_model_that_was_given_is_exported(llama, tmp_path, make, merged):
    run = learned(make(llama), [SUMS]).run
    assert export_model(run.model, tmp_path / "out", run.tasks["task_0"], merged=merged).difference < 1e-4


def test_a_classifier(bert):
    model = learned(AutoModelForSequenceClassification.from_pretrained(bert), [WORDS]).run.model
    assert model.traits == ("classify", "lora", "task_head")


def test_the_tokenizer_is_that_of_its_folder_or_the_one_that_is_passed(llama):
    config = AutoModelForCausalLM.from_pretrained(llama).config
    config.name_or_path = ""
    with pytest.raises(ModelError, match=r"a tokenizer for it can't be loaded.*Pass it: tokenizer="):
        learned(LlamaForCausalLM(config), [SUMS])
    tokenizer = AutoTokenizer.from_pretrained(llama)
    assert learned(LlamaForCausalLM(config), [SUMS], tokenizer=tokenizer).run.model.tokenizer is tokenizer


def no_rows_of_text(llama) -> Iterator[tuple[Any, dict, list, str]]:
    yield nn.Linear(2, 2), {}, SUMS, "a plain module can't be trained on rows of text. Got 'Linear'"
    yield causal(llama), {}, WORDS, "they need a classify model. Got 'LlamaForCausalLM'"
    yield causal(llama).model, {}, SUMS, "they need a causal model. Got 'LlamaModel'"
    yield peft_model(llama), {"model_options": {"adapter": {"name": "full"}}}, SUMS, "a peft model brings its own"
    yield peft_model(llama).requires_grad_(False), {}, SUMS, "all its parameters are frozen.*is_trainable=True"
    yield (
        get_peft_model(causal(llama), LoraConfig(target_modules=["q_proj"])),
        {},
        WORDS,
        "a peft model that classifies",
    )


def test_what_a_model_can_not_learn_is_named(llama):
    for model, options, rows, message in no_rows_of_text(llama):
        with pytest.raises(EverlearnError, match=message):
            learned(model, [rows], **options)


def test_options_that_do_not_fit_are_named(llama):
    with pytest.raises(ConfigError, match=r"^model_options.dtype: the model is loaded already. Got 'bfloat16'"):
        ContinualTrainer(nn.Linear(2, 2), model_options={"dtype": "bfloat16"})
    with pytest.raises(ConfigError, match=r"^tokenizer: is for a model that is loaded"):
        ContinualTrainer("pocket", tokenizer=object())


def half_frozen() -> nn.Sequential:
    """Return an MLP whose first layer is frozen."""
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    network[0].requires_grad_(False)
    return network


def batches(number: int) -> DataLoader:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    return DataLoader(TensorDataset(x, 2 * number + (x[:, number] > 0).long()), batch_size=4)


def names_in(value: Any) -> set[str]:
    """Return the keys of nested dicts."""
    if not isinstance(value, dict):
        return set()
    return {str(key) for key in value}.union(*(names_in(part) for part in value.values()))


@pytest.mark.parametrize("strategy", names("strategy"))
def test_what_is_frozen_stays_so_and_costs_no_strategy_anything(strategy):
    network = half_frozen()
    frozen = list(network[0].parameters())
    before = [p.detach().clone() for p in frozen]
    trainer = ContinualTrainer(network, [strategy], {**LEARNER, "weight_decay": 0.1})
    try:
        for number in range(2):
            trainer.train_task(f"task_{number}", train_loader=batches(number))
    except ConfigError:
        return  # not for plain modules, or not for a task after another
    assert all(torch.equal(p, kept) for p, kept in zip(frozen, before, strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in frozen)
    kept_for = {name for name in names_in(trainer.run.strategies[0].state()) if name.endswith(("0.weight", "0.bias"))}
    assert kept_for <= set(trainer.run.model.adapters.trainable())


@pytest.mark.filterwarnings("ignore:task .* data loaders hold them")
def test_a_norm_that_is_laid_still_stays_so():
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    network[1].eval()
    trainer = ContinualTrainer(network, ["ewc"], LEARNER)
    for number in range(2):
        trainer.train_task(f"task_{number}", train_loader=batches(number), val_loader=batches(number))
    assert torch.equal(network[1].running_mean, torch.zeros(8))
    assert not torch.equal(network[2].running_mean, torch.zeros(8))
    network.eval()  # of a module that is in evaluation mode as a whole, nothing is laid still
    ContinualTrainer(network, [], LEARNER).train_task("again", train_loader=batches(0))
    assert not torch.equal(network[1].running_mean, torch.zeros(8))
