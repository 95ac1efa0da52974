"""The kind of run that docs/kinds.md shows, as a user would take it from there."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from everlearn import registry
from everlearn.cli import main
from everlearn.errors import Paused
from everlearn.listener import Listener
from everlearn.runs import folder_kind, run

PAGE = Path(__file__).parents[1] / "docs" / "kinds.md"


class PauseAtSecondScore(Listener):
    """Raises what a pause raises when the second task of the second seed is about to be scored."""

    def __init__(self):
        self.n = 0

    def scoring(self, task):
        self.n += 1
        if self.n == 4:
            raise Paused("here")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 75
    (tmp_path / "zero_shot.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL).group(1))
    yield {
        **content,
        "stream": {"name": "digits", "n_tasks": 2},
        "model": {"name": "mlp", "options": {"hidden": [8]}},
    }
    sys.modules.pop("zero_shot", None)
    registry._entries["run"].pop("zero_shot", None)


def test_it_is_run_paused_gone_on_with_and_compared(recipe, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["run", str(path), "--out", str(tmp_path / "whole")]) == 0
    with pytest.raises(Paused):
        run(path, tmp_path / "run", listener=PauseAtSecondScore())
    assert folder_kind(tmp_path / "run").name == "zero_shot"
    assert main(["resume", str(tmp_path / "run")]) == 0
    scores = [json.loads((tmp_path / name / "results.json").read_text())["scores"] for name in ("whole", "run")]
    assert scores[0] == scores[1]
    assert [score["seed"] for score in scores[0]] == [0, 0, 1, 1]
    assert main(["run", str(path), "--out", str(tmp_path / "three"), "--seeds", "3"]) == 0
    scores = json.loads((tmp_path / "three" / "results.json").read_text())["scores"]
    assert [score["seed"] for score in scores] == [0, 0, 1, 1, 2, 2]
    assert sorted(entry.name for entry in (tmp_path / "run" / "final").iterdir()) == ["seed-0", "seed-1"]
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "whole"), str(tmp_path / "run"), "--out", str(tmp_path / "side")]) == 0
    assert "whole" in capsys.readouterr().out
