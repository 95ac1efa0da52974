"""docs/adaptive.md: its code runs as it stands, and its commands are there."""

import json
import re
from pathlib import Path

import yaml
from typer.testing import CliRunner

from everlearn.cli import app
from everlearn.config import build_strategies
from everlearn.experts import Library

PAGE = (Path(__file__).parents[2] / "docs" / "adaptive.md").read_text(encoding="utf-8")


def test_the_example_runs_and_the_commands_after_it(llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = next(code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "Library.create" in code)
    names = {"MODEL": str(llama)}
    exec(compile(code, "docs/adaptive.md", "exec"), names)
    assert capsys.readouterr().out.strip().splitlines()[-1] == "True"
    (signals,) = re.findall(r"```python\n([^`]*Signals[^`]*)```", PAGE)
    exec(compile(signals, "docs/adaptive.md", "exec"), names)
    assert names["similarities"].shape == (2,)
    assert (names["similarities"].abs() <= 1).all()
    library = Library.open("my_library")
    assert [expert.description for expert in library.experts] == ["adds numbers: one more", "adds numbers: two more"]
    CliRunner().invoke(app, ["experts", "export", "my_library", "adapter", "--expert", "0"])
    lines = re.findall(r"```\n(everlearn experts ls my_library.*?)```", PAGE, re.DOTALL)[0].splitlines()
    assert len(lines) == 6
    for line in lines:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
    assert [expert.origin for expert in library.open("my_library").experts] == ["imported", "merged"]


def test_ten_lines_make_a_library_and_the_commands_after_them_read_it(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, letters in (("books", "ab"), ("films", "cd")):
        rows = [{"prompt": f"{'t' * (1 + n % 3)} {n}=", "completion": letters[n % 2]} for n in range(16)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = re.findall(r"```yaml\n(# my\.yaml.*?)```", PAGE, re.DOTALL)[0].replace("smollm2", str(llama))
    Path("my.yaml").write_text(recipe, encoding="utf-8")
    chosen = ("--set", "learner.epochs=1", "--set", "device=cpu")
    assert CliRunner().invoke(app, ["run", "my.yaml", "--out", "runs/my", *chosen]).exit_code == 0
    for line in re.findall(r"```\n(everlearn experts ls runs.*?)```", PAGE, re.DOTALL)[0].splitlines():
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
        assert "reviews of books" in result.output
    for text in re.findall(r"```yaml\n(strategies:.*?)```", PAGE, re.DOTALL):
        build_strategies(yaml.safe_load(text)["strategies"])
    (rows,) = re.findall(r"```python\n([^`]*predict_rows[^`]*)```", PAGE)
    compile(rows, "docs/adaptive.md", "exec")
