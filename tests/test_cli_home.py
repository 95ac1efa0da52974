"""The commands of a home, and their exit codes."""

import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from everlearn.cli_home import add_home_commands, resume_home
from everlearn.errors import ConfigError, EverlearnError, StateError, StreamError
from everlearn.home import Home

OPTIONS = ("--epochs", "1", "--batch-size", "8")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal so wide that no cell wraps, whatever the one that runs the tests."""
    monkeypatch.setattr("everlearn.cli_home.console", Console(width=200))


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    add_home_commands(app)
    app.command("resume")(resume_home)
    return app


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


def invoke(app: typer.Typer, *arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def learn(app: typer.Typer, home: Path, files: dict[str, str], task: str, *more: object) -> Result:
    data = ("--train", files[f"{task} train"], "--eval", files[f"{task} eval"], "--column", "text=question")
    return invoke(app, "learn", home, "--task", task, *data, *OPTIONS, *more)


def failure(result: Result, kind: type[EverlearnError]) -> str:
    """Return the one sentence of a command that failed; the main program prints it and exits with 1."""
    assert isinstance(result.exception, kind), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_home_from_first_to_last_command(app: typer.Typer, bert: Path, files: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = invoke(app, "init", home, "--model", bert, "--rank", 4, "--strategy", "replay", "--set", "device=cpu")
    assert made.exit_code == 0, made.output
    assert Home.open(home).settings.model.adapter.rank == 4

    first = learn(app, home, files, "colours", "--set", "learner.clip=0.5", "--metric", "accuracy")
    assert first.exit_code == 0, first.output
    assert "Version 1 is current." in first.output
    assert Home.open(home).versions()[1].learner["clip"] == 0.5

    refused = learn(app, home, files, "animals", "--gate-rule", "safe", "--strategy", "replay,ewc")
    assert refused.exit_code == 2, refused.output
    assert "Refused: version 2 did not pass the gate on colours" in refused.output
    assert "8 items are too few to tell" in refused.output
    assert Home.open(home).current == 1

    forced = learn(app, home, files, "animals", "--gate-rule", "safe", "--strategy", "none", "--force")
    assert forced.exit_code == 0, forced.output
    assert "current by force" in forced.output
    assert Home.open(home).versions()[3].strategies == []

    shown = invoke(app, "diff", home, 1, 3, "--items", 2)
    assert shown.exit_code == 0, shown.output
    assert "version 1 has not learned it" in shown.output
    flips = Home.open(home).diff(1, 3).flips
    assert all(head in shown.output for head in ("question", "right answer", "before", "after"))
    assert (f"{len(flips) - 2} more items differ." in shown.output) == (len(flips) > 2)
    drawn = invoke(app, "report", home)
    assert (drawn.exit_code, drawn.output.strip()) == (0, f"Report: {home / 'report.html'}")
    assert "everlearn: home" in (home / "report.html").read_text()
    checked = invoke(app, "check", home)
    assert "All files are sound. Version 3 is current." in checked.output
    assert invoke(app, "rollback", home, 1).exit_code == 0
    logged = invoke(app, "log", home)
    assert [word for word in ("init", "refused", "forced", "rollback") if word not in logged.output] == []
    assert "was refused by the gate" in failure(invoke(app, "rollback", home, 2), StateError)

    kept = files["colours eval"]
    again = invoke(app, "retire", home, "colours", "--items", kept, "--correct", "--column", "text=question")
    assert "Evaluation items of colours: 0 corrected; 8 there now." in again.output
    few = tmp_path / "few.jsonl"
    few.write_text("".join(Path(kept).read_text().splitlines(keepends=True)[:3]))
    retired = invoke(app, "retire", home, "colours", "--items", few, "--column", "text=question")
    assert (retired.exit_code, retired.output.strip()) == (0, "Evaluation items of colours: 3 taken out; 5 there now.")
    assert "3 retired; 5 items left" in invoke(app, "log", home).output
    gone = invoke(app, "retire", home, "colours", "--items", few, "--column", "text=question")
    assert "rows are no evaluation items of the task. Got 3." in failure(gone, StreamError)

    exported = invoke(app, "export", home, tmp_path / "out", "--merged", "--version", 3, "--task", "animals")
    assert exported.exit_code == 0, exported.output
    assert "checked: logits of" in exported.output
    assert (tmp_path / "out" / "config.json").exists()
    assert "the folder is not empty" in failure(invoke(app, "export", home, tmp_path / "out"), ConfigError)
    assert "there is nothing to go on with" in failure(invoke(app, "resume", home), StateError)

    (home / "versions" / "000001" / "trained.json").write_text("[]")
    assert "trained.json: is damaged" in failure(invoke(app, "check", home), StateError)


def test_recipe_makes_a_home(app: typer.Typer, llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"stream: {{name: arena}}\nmodel: {{name: {llama}, adapter: {{name: lora, rank: 3}}}}\n"
        "learner: {epochs: 7}\nstrategies: [agem]\n"
    )
    options = ("--recipe", recipe, "--adapter", "full", "--seed", 4, "--no-answers")
    assert invoke(app, "init", tmp_path / "home", *options).exit_code == 0
    settings = Home.open(tmp_path / "home").settings
    assert settings.evaluation.answers is False
    assert (settings.model.adapter.name, settings.model.adapter.rank, settings.seed) == ("full", 3, 4)
    assert (settings.learner["epochs"], settings.strategies) == (7, ["agem"])


def test_mistakes_are_one_sentence(app: typer.Typer, llama: Path, files: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "there is no home" in failure(learn(app, home, files, "colours"), StateError)
    assert "Did you mean 'lora'" in failure(
        invoke(app, "init", home, "--model", llama, "--adapter", "lara"), ConfigError
    )
    assert invoke(app, "init", home, "--model", llama).exit_code == 0
    assert "Did you mean 'point'" in failure(learn(app, home, files, "colours", "--gate-rule", "piont"), ConfigError)
    message = failure(learn(app, home, files, "colours", "--set", "model.name=x"), ConfigError)
    assert "can't be set for one learning" in message
    assert "Write --column" in failure(learn(app, home, files, "colours", "--column", "text"), ConfigError)
    assert "is no assignment" in failure(learn(app, home, files, "colours", "--set", "learner.clip"), ConfigError)


def test_main_program_prints_the_sentence_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from everlearn.cli import main

    assert main(["log", str(tmp_path / "home")]) == 1
    error = capsys.readouterr().err
    assert "there is no home in the folder" in error
    assert "Traceback" not in error
