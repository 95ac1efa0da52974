"""docs/lifelong.md: its code runs as it stands, its recipe is read, and it names what there is."""

import re
from pathlib import Path

import pytest
import yaml

from everlearn.experience import SAMPLING
from everlearn.lifelong import LifelongConfig
from everlearn.runs import read_recipe
from support.lifelong import moods

PAGE = (Path(__file__).parents[2] / "docs" / "lifelong.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .* held out")
def test_its_code_runs(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = LifelongConfig.learner_options
    monkeypatch.setattr(LifelongConfig, "learner_options", lambda config: {**whole(config), "epochs": 2})
    tasks = [moods(0, 16), moods(1, 16)]
    names = {"task_sequence": tasks, "tasks": tasks, "more_data": moods(2, 16), "examples": ["is good"]}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code.replace("bert-base-uncased", str(bert)), names)
    assert names["later"].model.trainer.learned == ["task_0", "task_1", "one more"]
    assert names["answers"][0] in ("bad", "good")
    assert len(names["losses"]) == 2
    assert "forward_transfer" in capsys.readouterr().out


def test_it_names_every_sampling_strategy_and_its_recipe_is_one():
    assert all(f"| `{name}` |" in PAGE for name in SAMPLING if name != "reservoir")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    _, read = read_recipe(yaml.safe_load(recipe))
    assert read.build_strategies() == LifelongConfig(technique="ewc", ewc_lambda=1000).build_strategies()
