from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from everlearn.errors import ConfigError
from everlearn.home import Home
from everlearn.models import dtypes, load
from everlearn.models.dtypes import fast_dtype, half_trained, train_in_float32
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model, with_dtype
from everlearn.models.objectives import mean_loss
from everlearn.trainer import ContinualTrainer
from support.tasks import classify_task, prompt_task

ADAPTERS = ("lora", "prompt", "prefix", "lora_prompt", "lora beside new tokens")


def set_cpu(monkeypatch, avx512_bf16: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "chosen"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")],
)
def test_fast_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, avx512_bf16, amx, chosen):
    set_cpu(monkeypatch, avx512_bf16, amx)
    assert fast_dtype("cpu") == chosen
    told: list[str] = []
    assert with_dtype(ModelConfig(dtype="fast"), "cpu", told.append).dtype == chosen
    assert told == ([] if chosen == "float32" else ["Weights are loaded as bfloat16 (model.dtype: fast)."])


def test_auto_is_float32_on_a_cpu_and_the_checkpoint_s_on_a_gpu(llama, tmp_path, monkeypatch):
    AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(load, "on_gpu", lambda device: device != "cpu")
    for folder, on_gpu in ((llama, "float32"), (tmp_path, "bfloat16")):
        assert with_dtype(ModelConfig(str(folder)), "auto").dtype == on_gpu
        assert with_dtype(ModelConfig(str(folder)), "cpu").dtype == "float32"


@pytest.mark.parametrize(
    "config", [ModelConfig("mlp"), ModelConfig("a.b:c", dtype="fast"), ModelConfig(dtype="float16")]
)
def test_plain_modules_and_dtypes_by_name_stay(config):
    assert with_dtype(config, "cpu") == config


@pytest.mark.parametrize("dtype", ["auto", "fast"])
def test_weights_that_are_all_trained_are_float32(monkeypatch, dtype):
    set_cpu(monkeypatch, True, True)
    monkeypatch.setattr(load, "on_gpu", lambda device: True)
    assert with_dtype(ModelConfig(adapter=AdapterConfig("full"), dtype=dtype), "auto").dtype == "float32"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_are_all_trained_in_half_precision_are_refused(dtype):
    wanted = rf"^model.dtype: small changes .* lost in it. Got '{dtype}'. Write auto, and learner.precision: bf16"
    with pytest.raises(ConfigError, match=wanted):
        ModelConfig(adapter=AdapterConfig("full"), dtype=dtype)


def loaded(folder: Path, task_of: Callable, dtype: str = "bfloat16", **options) -> tuple[Model, dict]:
    """A model and a batch of its task's rows."""
    task = task_of(0)
    model = load_model(ModelConfig(str(folder), dtype=dtype, **options), [task], seed=3)
    if task.labels:
        model.adapters.do("labels", task=task.name, labels=list(task.labels), seed=0)
    features = model.objective.encode(task.train, task)
    return model, model.objective.collate(model.objective.take(features, list(range(4))))


def losses(model: Model, batch: dict, n: int = 5) -> list[float]:
    """The loss before each of some steps, and after the last."""
    optimizer = torch.optim.AdamW(model.adapters.trainable().values(), lr=1e-2)
    found = []
    for _ in range(n):
        loss = mean_loss(model.objective.forward(model.network, batch))
        found.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_is_trained_beside_bfloat16_weights_is_float32(llama, adapter):
    template = {"chat_template": "chatml"} if adapter == ADAPTERS[-1] else {}
    model, batch = loaded(llama, prompt_task, adapter=AdapterConfig(adapter.split()[0]), **template)
    trained = model.adapters.trainable()
    assert {p.dtype for p in trained.values()} == {torch.float32}
    others = [p for name, p in model.network.named_parameters() if name not in trained]
    assert {p.dtype for p in others} == {torch.bfloat16}
    found = losses(model, batch)
    assert found[-1] < found[0]


def test_layers_that_the_checkpoint_lacks_are_trained_in_float32(bert):
    """BERT's pooler, which stands between half-precision layers and the head."""
    model, batch = loaded(bert, classify_task)
    assert {p.dtype for p in model.adapters.trainable().values()} == {torch.float32}
    exact, _ = loaded(bert, classify_task, "float32")
    with torch.no_grad():
        found, wanted = (each.objective.forward(each.network, batch).logits for each in (model, exact))
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.02)
    found = losses(model, batch)
    assert found[-1] < found[0]


def test_a_layer_in_float32_takes_and_gives_what_it_did():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).bfloat16()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = network(x)
    train_in_float32(network, ["0.weight", "0.bias"])
    assert [layer.weight.dtype for layer in network] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(network(x), before, rtol=2e-2, atol=2e-2)


def test_half_precision_that_the_caller_trains_is_told(llama):
    network = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    task, tokenizer, options = prompt_task(0), AutoTokenizer.from_pretrained(llama), {"adapter": {"name": "full"}}
    trainer = ContinualTrainer(network, tokenizer=tokenizer, model_options=options, learner={"epochs": 1})
    with pytest.warns(UserWarning, match=r"^Weights are trained in bfloat16: a change of less than about 1/256"):
        trainer.train_task("words", train=list(task.train), evaluate=list(task.evaluation))


def test_nothing_is_told_of_float32():
    assert half_trained(nn.Linear(2, 2).parameters()) is None
    assert "1/2048" in half_trained(nn.Linear(2, 2).half().parameters())


def test_a_home_keeps_the_dtype_that_was_chosen(llama, tmp_path, monkeypatch):
    set_cpu(monkeypatch, True, False)
    monkeypatch.setattr(dtypes, "on_gpu", lambda device: False)
    home = Home.create(tmp_path / "home", {"name": str(llama), "dtype": "fast"})
    assert Home.open(home.path).settings.model.dtype == "bfloat16"
