"""docs/bridge.md: its code runs as it stands, and what it says of each strategy is so."""

import re
from pathlib import Path

from everlearn.learners.bridge import STATE
from everlearn.registry import find, names
from support.trainers import quick

PAGE = (Path(__file__).parents[2] / "docs" / "bridge.md").read_text(encoding="utf-8")


def test_the_example_runs(llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick(monkeypatch)
    code = re.findall(r"```python\n(.*?)```", PAGE, re.S)[0]
    names = {"FOLDER": str(llama)}
    exec(compile(code, "docs/bridge.md", "exec"), names)
    assert names["second"].kept.run.learned == ["sums", "words"]
    assert (tmp_path / "model" / STATE).is_dir()
    assert float(capsys.readouterr().out.strip().splitlines()[-1]) > 0


def test_the_table_names_what_is_refused():
    refused, tables = PAGE.split("Refused on all of them", 1)[1], PAGE.split("Refused on all of them", 1)[0]
    for name in names("strategy"):
        unsuited = find("strategy", name).unsuited
        if "trainer" in unsuited:
            assert f"`{name}`" in refused or name in ("l2p", "progressive_prompts")
        elif "causal" not in unsuited and name != "none":
            line = next(line for line in tables.splitlines() if f"`{name}`" in line and line.startswith("|"))
            assert line.endswith("| no | no |") == ("rollouts" in unsuited)
