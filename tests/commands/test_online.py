"""`everlearn online`: its options make a recipe, it goes on where it was stopped, and it is compared."""

import json
import os

import pytest
import yaml

from everlearn.cli import main
from support.online import write_online_log


@pytest.fixture
def command(llama, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            {
                "source": {"name": "support.sources:Sums"},
                "model": {"name": str(llama), "adapter": {"rank": 2}},
                "learner": {"learning_rate": 0.01},
                "device": "cpu",
            }
        )
    )
    return ["online", str(tmp_path / "recipe.yaml"), "--episodes", "4", "--eval-tasks", "4", "--eval-interval", "2"]


def recipe_of(folder):
    return yaml.safe_load((folder / "recipe.yaml").read_text())


def test_the_command_learns_and_reports(command, tmp_path, capsys):
    assert main([*command, "--out", str(tmp_path / "a"), "--strategies", "replay, ewc", "--seed", "3"]) == 0
    assert "Held-out accuracy" in capsys.readouterr().out
    assert {"results.json", "report.html", "report.md", "learning_curves.png", "checkpoint_ep4"} <= {
        entry.name for entry in (tmp_path / "a").iterdir()
    }
    assert recipe_of(tmp_path / "a")["strategies"] == ["replay", "ewc"]
    assert json.loads((tmp_path / "a" / "results.json").read_text())["seeds"][0]["seed"] == 3
    assert main(["resume", str(tmp_path / "a")]) == 0  # done already: only shown again


def test_options_change_the_recipe(command, tmp_path):
    options = ["--lora-r", "3", "--lora-alpha", "5", "--lr", "0.002", "--soft-tokens", "2", "--set", "boundary=2"]
    assert main([*command, *options, "--out", str(tmp_path / "a")]) == 0
    recipe = recipe_of(tmp_path / "a")
    adapter = recipe["model"]["adapter"]
    assert {key: adapter[key] for key in ("name", "rank", "alpha", "soft_tokens")} == {
        "name": "lora_prompt", "rank": 3, "alpha": 5.0, "soft_tokens": 2,
    }  # fmt: skip
    assert (recipe["learner"]["learning_rate"], recipe["boundary"]) == (0.002, 2)


def test_soft_tokens_alone_are_a_prompt_without_lora(command, tmp_path):
    assert main([*command, "--soft-tokens", "2", "--out", str(tmp_path / "a")]) == 0
    assert recipe_of(tmp_path / "a")["model"]["adapter"]["name"] == "prompt"


def test_without_a_recipe_it_learns_from_the_arena(llama, tmp_path):
    sizes = ["--episodes", "2", "--eval-tasks", "5", "--eval-interval", "2", "--model", str(llama)]
    options = ["--set", "source.difficulty=2", "--set", "device=cpu", "--curriculum", "progress"]
    assert main(["online", *sizes, *options, "--out", str(tmp_path / "a")]) == 0
    assert recipe_of(tmp_path / "a")["source"] == {"difficulty": 2, "curriculum": {"name": "progress"}}


def test_online_runs_are_compared_with_online_runs_only(tmp_path, capsys):
    one = write_online_log(tmp_path / "one", {0: [[0, 0, 0, 0], [1, 1, 1, 1]]})
    two = write_online_log(tmp_path / "two", {0: [[0, 0, 0, 0], [1, 0, 1, 1]]})
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "side")]) == 0
    assert (tmp_path / "side" / "comparison_all.png").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "recipe.yaml").write_text("stream: {name: arena}")
    assert main(["compare", str(one), str(other), "--out", str(tmp_path / "side")]) == 1
    assert "compare: the runs are not of one kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "options", "wanted"),
    [
        (None, ["--data", "a.jsonl", "--held-out", "h.jsonl"], {"path": "a.jsonl", "held_out_path": "h.jsonl"}),
        ({"name": "rows", "path": "r.jsonl", "idle_s": 3.0}, ["--data", "a.jsonl"], {"path": "a.jsonl", "idle_s": 3.0}),
        ({"name": "rows", "path": "r.jsonl"}, ["--follow"], {"path": "r.jsonl", "follow": True}),
        (
            {"name": "rows", "path": "r.jsonl", "follow": True},
            ["--held-out", "h"],
            {"held_out_path": "h", "follow": True},
        ),
    ],
)
def test_options_for_rows_change_a_recipe_of_rows(source, options, wanted, tmp_path, monkeypatch):
    taken = {}
    monkeypatch.setattr("everlearn.kinds.online.load_online_recipe", lambda content, settings: taken.update(content))
    monkeypatch.setattr("everlearn.commands.online.run_and_show", lambda *_: None)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"source": source} if source else {"seed": 1}))
    assert main(["online", str(tmp_path / "recipe.yaml"), *options]) == 0
    assert wanted.items() <= taken["source"].items()
    assert taken["source"]["name"] == "rows"


@pytest.mark.parametrize(
    ("adapter", "options", "wanted"),
    [
        ({"name": "lora_prompt"}, ["--soft-tokens", "3"], {"name": "lora_prompt", "soft_tokens": 3}),
        ({"name": "prefix"}, ["--soft-tokens", "3"], {"name": "prefix", "soft_tokens": 3}),
        ({"name": "prompt"}, ["--lora-r", "3"], "error: model.adapter.name: has no LoRA. Got 'prompt'"),
        ({}, ["--follow"], "error: --follow: needs rows to learn from"),
        ({}, ["--held-out", "h.jsonl"], "error: --held-out: needs rows to learn from. Got 'h.jsonl'"),
    ],
)
def test_options_that_can_not_apply_are_refused(adapter, options, wanted, tmp_path, capsys, monkeypatch):
    taken = {}
    monkeypatch.setattr("everlearn.kinds.online.load_online_recipe", lambda content, settings: taken.update(content))
    monkeypatch.setattr("everlearn.commands.online.run_and_show", lambda *_: None)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"model": {"adapter": adapter}}))
    code = main(["online", str(tmp_path / "recipe.yaml"), *options])
    if isinstance(wanted, str):
        assert code == 1
        assert wanted in capsys.readouterr().err
    else:
        assert taken["model"]["adapter"] == wanted


@pytest.mark.parametrize("recipe", [{"model": "pocket"}, {"source": "arena"}, {"model": {"adapter": "lora"}}])
def test_a_recipe_of_another_shape_is_one_sentence(recipe, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for options in (["--data", "a.jsonl"], ["--soft-tokens", "3"], ["--lora-r", "3"]):
        assert main(["online", str(tmp_path / "recipe.yaml"), *options, "--out", str(tmp_path / "a")]) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_a_comparison_does_not_overwrite_a_run(command, tmp_path, capsys):
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    before = (tmp_path / "a" / "report.html").read_bytes()
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), "--out", str(tmp_path / "a")]) == 1
    assert "error: --out: is the folder of a run" in capsys.readouterr().err
    assert (tmp_path / "a" / "report.html").read_bytes() == before


def test_a_start_that_fails_leaves_the_folder_free(command, tmp_path, capsys):
    for wrong in (["--model", str(tmp_path / "nothing")], ["--strategies", "joint"], ["--lr", "inf"]):
        assert main([*command, *wrong, "--out", str(tmp_path / "a")]) == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert main([*command, "--out", str(tmp_path / "a")]) == 0


def test_errors_are_one_sentence(command, tmp_path, capsys):
    assert main([*command, "--fp16", "--out", str(tmp_path / "a")]) == 1
    assert "error: learner.precision: fp16 needs a GPU" in capsys.readouterr().err
    assert main([*command, "--strategies", "joint", "--out", str(tmp_path / "b")]) == 1
    assert "it learns from whole tasks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["rows.jsonl"], {"name": "rows", "path": "rows.jsonl"}),
        (["-"], {"name": "rows", "path": "-"}),
        (["inbox", "--follow"], {"name": "rows", "path": "inbox", "follow": True}),
        (["kafka://a:1,b:2/reviews"], {"name": "kafka", "servers": "a:1,b:2", "topic": "reviews"}),
        (["--data", "rows.jsonl", "--lr", "adaptive", "--batch-size", "4"], {"name": "rows", "path": "rows.jsonl"}),
    ],
)
def test_rows_are_named_in_place_of_a_recipe(given, wanted, monkeypatch):
    taken = {}
    monkeypatch.setattr("everlearn.kinds.online.load_online_recipe", lambda content, settings: taken.update(content))
    monkeypatch.setattr("everlearn.commands.online.run_and_show", lambda *_: None)
    assert main(["online", *given]) == 0
    assert taken["source"] == wanted
    assert taken.get("learner", {}) == ({"learning_rate": "adaptive", "batch_size": 4} if "--lr" in given else {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rows.jsonl", "--data", "other.jsonl"], "--data: rows are named twice"),
        (["kafka://a:1"], "--data: names no topic. Got 'kafka://a:1'. Write kafka://HOST:PORT/TOPIC"),
        (["none.yaml"], "none.yaml"),
    ],
)
def test_rows_that_are_not_named_well_are_refused(given, message, capsys):
    assert main(["online", *given]) == 1
    assert message in capsys.readouterr().err


def test_labelled_rows_are_learned_from_standard_input(bert, tmp_path, monkeypatch, capfd):
    read, write = os.pipe()
    rows = [{"text": f"{word} cat", "label": word} for word in ("red", "green") * 3]
    os.write(write, "".join(json.dumps(row) + "\n" for row in rows).encode())
    os.close(write)
    with os.fdopen(read) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        options = ["--set", "device=cpu", "--out", str(tmp_path / "run")]
        assert main(["online", "-", "--model", str(bert), *options]) == 0
    assert "Scores of the stream" in capfd.readouterr().out
    assert json.loads((tmp_path / "run" / "results.json").read_text())["n"] == 6
    assert recipe_of(tmp_path / "run")["source"]["kind"] == "classify"
