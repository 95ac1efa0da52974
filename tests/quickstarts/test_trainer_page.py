"""docs/trainer.md: its code runs as it stands, and it names every usual name."""

import re
from pathlib import Path

import pytest

from everlearn.spelling import OPTIMIZER, STRATEGIES, TRAINING, Doubled, Missing

PAGE = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:[Tt]ask 'task_1 again'")
def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    assert names["later"].run.learned == ["task_0", "task_1", "task_2", "task_1 again"]
    assert names["outputs"].shape == (4, 6)
    assert (tmp_path / names["page"]).exists()
    assert "backward_transfer" in capsys.readouterr().out


def test_it_names_every_usual_name():
    rows = {}
    for line in PAGE.splitlines():
        if "→" in line and line.startswith("| `"):
            sections, meanings = line.strip("|").split("|")
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", sections), meanings)
    for strategy, usual in STRATEGIES.items():
        told = rows[strategy].split(";")
        for name, meaning in usual.items():
            if isinstance(meaning, Missing):
                continue
            (part,) = [part for part in told if f"`{name}`" in part.split("→")[0]]
            if isinstance(meaning, Doubled):
                assert f"half of `{meaning.field}`" in part
            elif isinstance(meaning, str):
                assert f"→ `{meaning}`" in part
    assert all(f"`{name}`" in PAGE for name in (*OPTIMIZER, *TRAINING) if name != "name")
