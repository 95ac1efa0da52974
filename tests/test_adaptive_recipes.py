"""The recipes of the adaptive learner's experiments are sound and start, on tiny models and few rows."""

import json
from pathlib import Path

import pytest

from everlearn.config import load_recipe
from everlearn.runs import open_schedules, run

RECIPES = Path(__file__).parents[1] / "recipes" / "adaptive"
ALL = sorted(RECIPES.glob("*.yaml"))
METHODS = {"SL_A": [], "SL_B_5": ["ewc"], "SL_B_25": ["ewc"], "SL_C": ["gamma_ewc"]}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_recipe_is_sound_and_says_how_it_is_launched(path):
    load_recipe(path)
    assert f"everlearn run recipes/adaptive/{path.name}" in path.read_text(encoding="utf-8")


def test_the_settings_of_the_origin():
    recipes = {name: load_recipe(RECIPES / f"{name}.yaml") for name in METHODS}
    for name, recipe in recipes.items():
        learner = recipe.build_learner()
        assert recipe.stream["tasks"] == ["sst2", "rte", "mrpc"]
        assert (recipe.stream["per_task"], learner.batch_size, learner.epochs) == (250, 4, 12)
        assert recipe.stream["per_task_eval"] >= 250
        assert [strategy.name for strategy in recipe.build_strategies()] == METHODS[name]
        assert len(recipe.all_seeds()) == 5
    few, more, gated = (recipes[name].build_strategies()[0] for name in ("SL_B_5", "SL_B_25", "SL_C"))
    assert [(one.n_examples, one.strength) for one in (few, more)] == [(5, 100), (25, 500)]
    assert (gated.n_samples, gated.strength, gated.gamma_strength, gated.batch_size) == (25, 250, 3, 10)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """Return a folder laid out as GLUE's, with a few made-up rows."""
    folder = tmp_path_factory.mktemp("glue")
    for task, labels in (("sst2", ("negative", "positive")), ("rte", ("yes", "no")), ("mrpc", ("alike", "other"))):
        (folder / task).mkdir()
        for role, n in (("train", 8), ("validation", 4)):
            rows = [{"text": f"{task} {role} {i}", "text_pair": None if task == "sst2" else f"is {i}",
                     "label": labels[i % 2]} for i in range(n)]  # fmt: skip
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / task / f"{role}.jsonl").write_text(lines, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_it_starts(name, glue, bert, tmp_path):
    here = [
        f"stream.paths=[{glue}]",
        f"model.name={bert}",
        "device=cpu",
        "seeds=[0]",
        "learner.epochs=1",
        "model.max_length=32",
    ]
    results = run(load_recipe(RECIPES / f"{name}.yaml", here), tmp_path / "run")
    assert results["complete"]
    facts = results["seeds"][0]["cost"]["total"]["strategy_facts"]
    assert set(facts) == ({"gamma_ewc"} if name == "SL_C" else set())


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
