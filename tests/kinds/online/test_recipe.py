"""The recipes for hub models load and start, each on a tiny model of the same architecture built from its config."""

from pathlib import Path

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from everlearn.kinds.online import load_online_recipe
from everlearn.runs import run
from support.models import byte_tokenizer

RECIPES = Path(__file__).parents[3] / "recipes"
SIZES = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "online_qwen2_5": (Qwen2Config, Qwen2ForCausalLM, {}),
    "online_qwen2_5_soft_prompt": (Qwen2Config, Qwen2ForCausalLM, {}),
    "online_lfm2": (Lfm2Config, Lfm2ForCausalLM, {"layer_types": ["conv", "full_attention"]}),
    "online_tinyllama": (LlamaConfig, LlamaForCausalLM, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hub_models_recipe_starts_on_its_architecture(name, tmp_path):
    config_class, network_class, options = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network_class(config_class(**SIZES, **options)).save_pretrained(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(tmp_path / "model")
    here = [f"model.name={tmp_path / 'model'}", "learner.precision='no'", "device=cpu"]
    small = ["episodes=2", "evaluation.n=5", "evaluation.interval=2", "seeds=[0]"]
    recipe = load_online_recipe(RECIPES / f"{name}.yaml", [*here, *small])
    results = run(recipe, tmp_path / "run")
    assert results["complete"]
    assert results["seeds"][0]["n_episodes"] == 2


@pytest.mark.parametrize("path", sorted(RECIPES.glob("online_*.yaml")), ids=lambda path: path.stem)
def test_every_online_recipe_is_sound_and_says_how_it_is_launched(path):
    load_online_recipe(path)
    assert f"everlearn online recipes/{path.name}" in path.read_text()


def test_the_reference_settings():
    adapter = load_online_recipe(RECIPES / "online_qwen2_5.yaml").model.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout, adapter.targets) == (16, 32.0, 0.1, ["q_proj", "v_proj"])
    rates = {name: load_online_recipe(RECIPES / f"{name}.yaml").learner.learning_rate for name in MODELS}
    assert rates == {
        "online_qwen2_5": 1e-4, "online_qwen2_5_soft_prompt": 1e-3, "online_lfm2": 5e-5, "online_tinyllama": 5e-5,
    }  # fmt: skip


def test_with_no_options_what_came_before_is_rehearsed():
    recipe = load_online_recipe({})
    settled = recipe.settled(recipe.build_source())
    assert settled.strategies == [{"name": "replay", "ratio": 7}]
    assert (settled.episodes, settled.boundary, settled.evaluation.interval) == (80, 5, 20)
    labelled = load_online_recipe({"source": {"name": "rows", "path": "rows.jsonl", "kind": "classify"}})
    settled = labelled.settled(labelled.build_source())
    assert settled.strategies == [{"name": "replay", "ratio": 1}]
    assert (settled.episodes, settled.boundary, settled.evaluation.interval) == (None, 100, 100)
    assert settled.model.head == "shared"
    assert (recipe.learner.learning_rate, recipe.learner.learn) == ("auto", "auto")
    without = load_online_recipe({"strategies": []})
    assert without.settled(without.build_source()).strategies == []
    assert recipe.source == {"name": "arena", "difficulty": 1}
    assert load_online_recipe({"source": {"name": "arena"}}).build_source().difficulty is None
