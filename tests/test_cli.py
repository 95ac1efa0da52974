"""The command line: exit codes, one clear sentence for an error, and what the commands print."""

import subprocess
import sys

import pytest
import yaml

import everlearn
from everlearn import cli, registry
from everlearn.cli import main

PUBLIC = (
    ("run", "runs"),
    ("load_recipe", "config"),
    ("ContinualTrainer", "trainer"),
    ("Task", "types"),
    ("MetaLearner", "learners.meta"),
)

RECIPE = {
    "stream": {"name": "digits", "mode": "split", "n_tasks": 2, "scenario": "task"},
    "model": {"name": "mlp", "options": {"hidden": [16]}},
    "learner": {"name": "sft", "epochs": 1, "batch_size": 32},
    "strategies": ["replay"],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_run_then_compare(recipe, tmp_path, capsys):
    assert main(["run", str(recipe), "--out", str(tmp_path / "a"), "--seeds", "2"]) == 0
    assert main(["run", str(recipe), "--out", str(tmp_path / "b"), "--set", "strategies=[]"]) == 0
    assert "average accuracy" in capsys.readouterr().out
    assert {"results.json", "results.jsonl", "recipe.yaml", "report.html", "report.md"} <= {
        entry.name for entry in (tmp_path / "a").iterdir()
    }
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["compare", *both, "--out", str(tmp_path / "side")]) == 0
    assert (tmp_path / "side" / "report.html").exists()
    assert main(["resume", str(tmp_path / "a")]) == 0  # done already: only shown again


def test_meta_then_resume(tmp_path, capsys):
    content = {
        "stream": {"name": "digits", "mode": "split", "n_tasks": 5, "scenario": "domain"},
        "held_out": ["split_8_9"],
        "model": {"name": "mlp", "options": {"hidden": [16]}},
        "learner": {"inner_lr": 0.5, "adaptation_steps": 2, "meta_batch_size": 2},
        "n_steps": 2,
        "starts": ["plain", "meta"],
        "evaluation": {"steps": [2], "rates": {"sgd": [0.1]}},
    }
    recipe, out = tmp_path / "meta.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(content))
    assert main(["meta", str(recipe), "--out", str(out), "--seeds", "2", "--set", "n_steps=1"]) == 0
    printed = capsys.readouterr().out
    assert "meta - plain" in printed
    assert "2 seeds" in printed
    assert {"recipe.yaml", "results.json", "meta.png", "report.html", "final"} <= {
        entry.name for entry in out.iterdir()
    }
    assert main(["resume", str(out)]) == 0  # done already: only shown again
    assert capsys.readouterr().out.replace("\n", "").endswith(str(out / "report.html"))
    assert main(["run", str(recipe), "--out", str(tmp_path / "one"), "--set", "starts=[plain]"]) == 0
    assert main(["compare", str(out), str(tmp_path / "one"), "--out", str(tmp_path / "side")]) == 0
    assert {"report.html", "meta.png"} == {entry.name for entry in (tmp_path / "side").iterdir()}
    capsys.readouterr()
    assert main(["run", str(recipe), "--out", str(tmp_path / "other"), "--set", "held_out=[split_8]"]) == 1
    assert "held_out: is no task of the stream" in capsys.readouterr().err


def test_a_used_folder_is_refused_and_kept(recipe, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    assert main(["run", str(recipe), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out: the folder is not empty.")
    assert "Traceback" not in error
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml", "--out", "x"], "nowhere.yaml: can't be read"),
        (["compare", "nowhere"], "there is no run in the folder"),
        (["resume", "nowhere"], "there is no run in the folder"),
        (["show", "ewcc"], "Did you mean 'ewc'"),
        (["arena", "--type", "grammar"], "grammar"),
        (["nonsense"], "nonsense"),
        (["arena", "--difficulty", "many"], "difficulty"),
    ],
)
def test_errors_are_one_sentence_and_exit_code_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_ls_and_show_and_arena(capsys):
    assert main(["ls", "strategies"]) == 0
    assert "replay" in capsys.readouterr().out
    assert main(["show", "ewc"]) == 0
    assert "Kirkpatrick" in capsys.readouterr().out
    assert main(["ls", "curricula"]) == 0
    assert "ramp" in capsys.readouterr().out
    assert main(["show", "progress"]) == 0
    assert "Colas" in capsys.readouterr().out
    assert main(["arena", "-n", "2", "--type", "causal", "--type", "passage"]) == 0
    assert capsys.readouterr().out.count("Answer:") == 2


def test_help_and_import_do_not_wait_for_torch():
    code = "import sys, everlearn, everlearn.cli as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_public_names_are_there():
    assert set(everlearn.__all__) <= set(dir(everlearn))
    assert all(getattr(everlearn, name) is vars(sys.modules[f"everlearn.{home}"])[name] for name, home in PUBLIC)
    with pytest.raises(AttributeError, match="no_such_name"):
        everlearn.no_such_name  # noqa: B018


def test_ctrl_c_is_answered(monkeypatch, capsys):
    def interrupted(kind):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "names", interrupted)
    assert main(["ls", "kinds"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_the_installed_command_imports_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "here.py").write_text("def judge(answer, row):\n    return True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.setattr(cli, "main", lambda: registry.find("verifier", "here:judge")("", {}) - 1)
    with pytest.raises(SystemExit) as ended:
        cli.script()
    assert ended.value.code == 0
