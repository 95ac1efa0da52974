"""The commands of a home, and their exit codes."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.errors import ConfigError, EverlearnError, StateError, StreamError
from everlearn.home import Home

OPTIONS = ("--epochs", "1", "--batch-size", "8")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal so wide that no cell wraps, whatever the one that runs the tests."""
    for module in ("home", "runs", "terminal"):
        monkeypatch.setattr(f"everlearn.commands.{module}.console", Console(width=200))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Training and evaluation files of two tasks, as paths."""
    paths = {}
    for task, words in (("colours", ("red", "green")), ("animals", ("cat", "dog"))):
        for role, start in (("train", 0), ("eval", 30)):
            rows = [
                {"question": " ".join(["is"] * (i // 2 + 1) + [words[i % 2]]), "label": words[i % 2]}
                for i in range(start, start + 8)
            ]
            path = tmp_path / f"{task}-{role}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            paths[f"{task} {role}"] = str(path)
    return paths


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def learn(home: Path, files: dict[str, str], task: str, *more: object) -> Result:
    data = ("--train", files[f"{task} train"], "--eval", files[f"{task} eval"], "--column", "text=question")
    return invoke("learn", home, "--task", task, *data, *OPTIONS, *more)


def failure(result: Result, kind: type[EverlearnError]) -> str:
    """Return the one sentence of a command that failed; the main program prints it and exits with 1."""
    assert isinstance(result.exception, kind), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_home_from_first_to_last_command(bert: Path, files: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = invoke("init", home, "--model", bert, "--rank", 4, "--strategy", "replay", "--set", "device=cpu")
    assert made.exit_code == 0, made.output
    assert Home.open(home).settings.model.adapter.rank == 4

    first = learn(home, files, "colours", "--set", "learner.clip=0.5", "--metric", "accuracy")
    assert first.exit_code == 0, first.output
    assert "Version 1 is current." in first.output
    assert Home.open(home).versions()[1].learner["clip"] == 0.5

    refused = learn(home, files, "animals", "--gate-rule", "safe", "--strategy", "replay,ewc")
    assert refused.exit_code == 2, refused.output
    assert "Refused: version 2 did not pass the gate on colours" in refused.output
    assert "8 items are too few to tell" in refused.output
    assert Home.open(home).current == 1

    forced = learn(home, files, "animals", "--gate-rule", "safe", "--strategy", "none", "--force")
    assert forced.exit_code == 0, forced.output
    assert "current by force" in forced.output
    assert Home.open(home).versions()[3].strategies == []

    shown = invoke("diff", home, 1, 3, "--items", 2)
    assert shown.exit_code == 0, shown.output
    assert "version 1 has not learned it" in shown.output
    flips = Home.open(home).diff(1, 3).flips
    assert all(head in shown.output for head in ("question", "right answer", "before", "after"))
    assert (f"{len(flips) - 2} more items differ." in shown.output) == (len(flips) > 2)
    same = invoke("diff", home, 1, 1, "--items", 2)
    assert "No item's score differs." in same.output
    drawn = invoke("report", home)
    assert (drawn.exit_code, drawn.output.strip()) == (0, f"Report: {home / 'report.html'}")
    assert "everlearn: home" in (home / "report.html").read_text()
    checked = invoke("check", home)
    assert "All files are sound. Version 3 is current." in checked.output
    assert invoke("rollback", home, 1).exit_code == 0
    logged = invoke("log", home)
    assert [word for word in ("init", "refused", "forced", "rollback") if word not in logged.output] == []
    assert "was refused by the gate" in failure(invoke("rollback", home, 2), StateError)

    kept = files["colours eval"]
    again = invoke("retire", home, "colours", "--items", kept, "--correct", "--column", "text=question")
    assert "Evaluation items of colours: 0 corrected; 8 there now." in again.output
    few = tmp_path / "few.jsonl"
    few.write_text("".join(Path(kept).read_text().splitlines(keepends=True)[:3]))
    retired = invoke("retire", home, "colours", "--items", few, "--column", "text=question")
    assert (retired.exit_code, retired.output.strip()) == (0, "Evaluation items of colours: 3 taken out; 5 there now.")
    assert "3 retired; 5 items left" in invoke("log", home).output
    gone = invoke("retire", home, "colours", "--items", few, "--column", "text=question")
    assert "rows are no evaluation items of the task. Got 3." in failure(gone, StreamError)

    exported = invoke("export", home, tmp_path / "out", "--merged", "--version", 3, "--task", "animals")
    assert exported.exit_code == 0, exported.output
    assert "checked: logits of" in exported.output
    assert (tmp_path / "out" / "config.json").exists()
    assert "the folder is not empty" in failure(invoke("export", home, tmp_path / "out"), ConfigError)
    assert "there is nothing to go on with" in failure(invoke("resume", home), StateError)

    (home / "versions" / "000001" / "trained.json").write_text("[]")
    assert "trained.json: is damaged" in failure(invoke("check", home), StateError)


def test_recipe_makes_a_home(llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"stream: {{name: arena}}\nmodel: {{name: {llama}, adapter: {{name: lora, rank: 3}}}}\n"
        "learner: {epochs: 7}\nstrategies: [agem]\n"
    )
    options = ("--recipe", recipe, "--adapter", "full", "--seed", 4, "--no-answers")
    assert invoke("init", tmp_path / "home", *options).exit_code == 0
    settings = Home.open(tmp_path / "home").settings
    assert settings.evaluation.answers is False
    assert (settings.model.adapter.name, settings.model.adapter.rank, settings.seed) == ("full", 3, 4)
    assert (settings.learner["epochs"], settings.strategies) == (7, ["agem"])
    assert "keeps no answers" in invoke("diff", tmp_path / "home", 0, 0, "--items", 2).output


def test_mistakes_are_one_sentence(llama: Path, files: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "there is no home" in failure(learn(home, files, "colours"), StateError)
    assert "Did you mean 'lora'" in failure(invoke("init", home, "--model", llama, "--adapter", "lara"), ConfigError)
    both = failure(invoke("init", home, "--model", llama, "--abilities", "none", "--abilities", "self"), ConfigError)
    assert "--abilities: names none beside others" in both
    assert invoke("init", home, "--model", llama).exit_code == 0
    assert "Did you mean 'point'" in failure(learn(home, files, "colours", "--gate-rule", "piont"), ConfigError)
    message = failure(learn(home, files, "colours", "--set", "model.name=x"), ConfigError)
    assert "can't be set for one learning" in message
    assert "Write --column" in failure(learn(home, files, "colours", "--column", "text"), ConfigError)
    assert "is no assignment" in failure(learn(home, files, "colours", "--set", "learner.clip"), ConfigError)


def test_main_program_prints_the_sentence_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from everlearn.cli import main

    assert main(["log", str(tmp_path / "home")]) == 1
    error = capsys.readouterr().err
    assert "there is no home in the folder" in error
    assert "Traceback" not in error


def test_a_gate_on_abilities_of_a_home_that_watches_none_is_refused(
    bert: Path, tmp_path: Path, files: dict[str, str]
) -> None:
    home = tmp_path / "home"
    assert invoke("init", home, "--model", bert, "--abilities", "none", "--set", "device=cpu").exit_code == 0
    assert "watches no ability" in failure(learn(home, files, "colours", "--gate-abilities", "0.1"), ConfigError)
