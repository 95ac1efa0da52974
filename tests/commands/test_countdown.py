"""`everlearn countdown generate` and `export-verl`."""

import pyarrow.parquet as pq

from everlearn.cli import main
from everlearn.config import read_yaml, write_yaml
from support.countdown import RECIPE

SMALL = ["--n-train", "40", "--n-test", "10", "--max-number", "30", "--processes", "1"]


def test_it_writes_a_folder_a_group(tmp_path, capsys):
    assert main(["countdown", "generate", "--out", str(tmp_path), *SMALL]) == 0
    assert str(tmp_path / "3" / "test.parquet") in capsys.readouterr().out
    operators = {"0": "+", "1": "+-", "2": "+-*", "3": "+-*/"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == list(operators)
    for group, signs in operators.items():
        for split, n in (("train", 40), ("test", 10)):
            rows = pq.read_table(tmp_path / group / f"{split}.parquet").to_pylist()
            assert (len(rows), {row["operators"] for row in rows}) == (n, {signs})


def test_options(tmp_path):
    options = ["--group", "pmd", "--size", "3", "--require-new-operator", "--prompt", "short", "--max-target", "50"]
    assert main(["countdown", "generate", "--out", str(tmp_path), *SMALL, *options]) == 0
    (folder,) = tmp_path.iterdir()
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    assert folder.name == "pmd"
    assert all(row["needs_new_operator"] and "/" in row["solution"] for row in rows)
    assert all(len(row["numbers"]) == 3 and row["target"] <= 50 for row in rows)
    assert rows[0]["prompt"][0]["content"].startswith("Numbers ")


def test_a_size_that_runs_dry_is_told(tmp_path, capsys):
    options = ["--n-train", "60", "--n-test", "20", "--max-number", "5", "--processes", "1", "--group", "0"]
    assert main(["countdown", "generate", "--out", str(tmp_path), *options]) == 0
    assert "Group 0 ran dry with 3 numbers at" in capsys.readouterr().out


def test_errors_are_one_sentence(tmp_path, capsys):
    assert main(["countdown", "generate", "--out", str(tmp_path), "--group", "+%"]) == 1
    assert "countdown.group: is no group of operators. Got '+%'." in capsys.readouterr().err
    assert main(["countdown", "generate", "--out", str(tmp_path), *SMALL, "--max-number", "3", "--group", "0"]) == 1
    assert "has too few problems" in capsys.readouterr().err
    assert list(tmp_path.rglob("*.parquet")) == []


def test_a_recipe_is_exported(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(write_yaml(RECIPE), encoding="utf-8")
    command = ["countdown", "export-verl", str(tmp_path / "small.yaml"), str(tmp_path / "out")]
    assert main([*command, "--set", "learner.prompts=5"]) == 0
    assert str(tmp_path / "out/launch.sh") in capsys.readouterr().out
    config = read_yaml(tmp_path / "out/config/countdown.yaml")
    assert (config["data"]["train_batch_size"], config["trainer"]["project_name"]) == (5, "small")
    assert main(command) == 1
    assert "exists. Got 'out'." in capsys.readouterr().err


def test_a_recipe_of_another_kind_is_not(tmp_path, capsys):
    (tmp_path / "plain.yaml").write_text("stream: {name: countdown}", encoding="utf-8")
    assert main(["countdown", "export-verl", str(tmp_path / "plain.yaml"), str(tmp_path / "out")]) == 1
    assert "is no recipe of reinforcement. Got 'plain.yaml'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
