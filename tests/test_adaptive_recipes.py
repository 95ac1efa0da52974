"""The recipes of the adaptive learner's experiments are sound and start, on tiny models and few rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import GemmaConfig, GemmaForCausalLM

from everlearn.config import load_recipe
from everlearn.runs import open_schedules, run
from support.models import HEADS, SIZES, byte_tokenizer

RECIPES = Path(__file__).parents[1] / "recipes" / "adaptive"
ALL = sorted(RECIPES.glob("*.yaml"))
METHODS = {
    "SL_A": [],
    "SL_B_5": ["ewc"],
    "SL_B_25": ["ewc"],
    "SL_C": ["gamma_ewc"],
    "SL_D": ["cmt"],
    "SL_E": ["gamma_ewc", "cmt"],
    "SL_F": ["gamma_ewc", "cmt"],
    "SL_F_Rep1": ["gamma_ewc", "cmt"],
    "SL_F_early": ["gamma_ewc", "cmt"],
    "SL_F_gemma_2b": ["gamma_ewc", "cmt"],
}
LABELS = {
    "sst2": ("negative", "positive"), "rte": ("yes", "no"), "mrpc": ("alike", "other"), "qnli": ("there", "missing"),
    "cola": ("good", "bad"),
}  # fmt: skip
SEEDS = {"SL_F_Rep1": [123], "SL_F_gemma_2b": [0]}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_recipe_is_sound_and_says_how_it_is_launched(path):
    load_recipe(path)
    assert f"everlearn run recipes/adaptive/{path.name}" in path.read_text(encoding="utf-8")


def test_the_settings_of_the_origin():
    recipes = {name: load_recipe(RECIPES / f"{name}.yaml") for name in METHODS}
    for name, recipe in recipes.items():
        learner = recipe.build_learner()
        assert recipe.stream["tasks"] == ["sst2", "rte", "mrpc", "qnli", "cola"][: 5 if "SL_F" in name else 3]
        assert (recipe.stream["per_task"], learner.batch_size, learner.epochs) == (250, 4, 12)
        assert recipe.stream["per_task_eval"] >= 250
        assert [strategy.name for strategy in recipe.build_strategies()] == METHODS[name]
        assert recipe.all_seeds() == SEEDS.get(name, [0, 1, 2, 3, 4])
        assert learner.early_stopping == (name == "SL_F_early")
    few, more, gated = (recipes[name].build_strategies()[0] for name in ("SL_B_5", "SL_B_25", "SL_C"))
    assert [(one.n_examples, one.strength) for one in (few, more)] == [(5, 100), (25, 500)]
    assert (gated.n_samples, gated.strength, gated.gamma_strength, gated.batch_size) == (25, 250, 3, 10)
    assert recipes["SL_F_Rep1"].build_strategies() == [
        replace(gated, n_samples=50),
        *recipes["SL_D"].build_strategies(),
    ]
    assert recipes["SL_F"].build_strategies() == recipes["SL_E"].build_strategies() == [
        gated, *recipes["SL_D"].build_strategies()
    ]  # fmt: skip
    replayed, early = recipes["SL_D"].build_strategies()[0], recipes["SL_F_early"].build_learner()
    assert (replayed.replay_alpha, replayed.feature_alpha, replayed.encoding_batch_size) == (0.2, 0.1, 16)
    assert (early.patience, early.delta, early.min_epochs) == (3, 0.001, 1)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """Return a folder laid out as GLUE's, with a few made-up rows."""
    folder = tmp_path_factory.mktemp("glue")
    for task, labels in LABELS.items():
        (folder / task).mkdir()
        for role, n in (("train", 8), ("validation", 4)):
            rows = [{"text": f"{task} {role} {i}", "text_pair": None if task in ("sst2", "cola") else f"is {i}",
                     "label": labels[i % 2]} for i in range(n)]  # fmt: skip
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / task / f"{role}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """Return the folder of a tiny Gemma, as Gemma-2B is built: one head of keys and values, GELU, scaled embeddings."""
    folder, tokenizer = tmp_path_factory.mktemp("gemma"), byte_tokenizer()
    config = GemmaConfig(
        **{**SIZES, **HEADS, "vocab_size": len(tokenizer)}, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        max_position_embeddings=64,
    )  # fmt: skip
    GemmaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_it_starts(name, glue, bert, gemma, tmp_path):
    here = [
        f"stream.paths=[{glue}]",
        f"model.name={gemma if 'gemma' in name else bert}",
        "device=cpu",
        "seeds=[0]",
        "learner.epochs=1",
        "model.max_length=32",
    ]
    if name == "SL_F_early":
        here.append("learner.epochs=4")  # else there is nothing to stop
    results = run(load_recipe(RECIPES / f"{name}.yaml", here), tmp_path / "run")
    assert results["complete"]
    facts = results["seeds"][0]["cost"]["total"]["strategy_facts"]
    assert set(facts) == set(METHODS[name]) - {"ewc"}


@pytest.mark.real_data
def test_glue_gives_the_rows_that_are_asked_for(shared_data):
    recipe = load_recipe(RECIPES / "SL_C.yaml", [f"stream.paths=[{shared_data / 'glue'}]", "seeds=[0]"])
    _, schedules = open_schedules(recipe)
    tasks = schedules[0].steps
    assert [(task.name, len(task.train), len(task.evaluation)) for task in tasks] == [
        ("sst2", 250, 400), ("rte", 250, 277), ("mrpc", 250, 400),
    ]  # fmt: skip
    assert [task.labels[1] for task in tasks] == ["positive", "not_entailment", "equivalent"]
    assert all(row["text_pair"] for task in tasks[1:] for row in task.train)
