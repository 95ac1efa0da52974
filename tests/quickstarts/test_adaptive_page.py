"""docs/adaptive.md: its code runs as it stands, and its commands are there."""

import re
from pathlib import Path

from typer.testing import CliRunner

from everlearn.cli import app
from everlearn.experts import Library

PAGE = (Path(__file__).parents[2] / "docs" / "adaptive.md").read_text(encoding="utf-8")


def test_the_example_runs_and_the_commands_after_it(llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    names = {"MODEL": str(llama)}
    exec(compile(code, "docs/adaptive.md", "exec"), names)
    assert capsys.readouterr().out.strip().splitlines()[-1] == "True"
    (signals,) = re.findall(r"```python\n([^`]*Signals[^`]*)```", PAGE)
    exec(compile(signals, "docs/adaptive.md", "exec"), names)
    assert names["similarities"].shape == (2,)
    assert (names["similarities"].abs() <= 1).all()
    (deciding,) = re.findall(r"```python\n([^`]*router_of[^`]*)```", PAGE)
    exec(compile(deciding, "docs/adaptive.md", "exec"), names)
    assert names["decision"].candidates[0].expert == 1
    library = Library.open("my_library")
    assert [expert.description for expert in library.experts] == ["adds numbers: one more", "adds numbers: two more"]
    CliRunner().invoke(app, ["experts", "export", "my_library", "adapter", "--expert", "0"])
    lines = re.findall(r"```\n(everlearn experts.*?)```", PAGE, re.DOTALL)[0].splitlines()
    assert len(lines) == 6
    for line in lines:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    assert [expert.origin for expert in library.open("my_library").experts] == ["imported", "merged"]
