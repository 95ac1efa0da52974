"""The whole course on the digits: a stop, going on, the recipe, and what a folder in use refuses."""

import pytest
import yaml

from everlearn.cli import main
from everlearn.config import load_recipe
from everlearn.errors import ConfigError, Paused, StateError
from everlearn.kinds.advice import advise, content_of, go_on, is_advice
from everlearn.listener import Listener
from everlearn.state import read_json, write_json

SETTINGS = ["stream.n_tasks=2", "stream.per_task=40", "model.options.hidden=[16]", "learner.epochs=2"]


class Listening(Listener):
    """Notes the names of the trials and what it is told; stops one of them by raising what a pause raises."""

    def __init__(self, stop=""):
        self.stop, self.heard, self.informed = stop, [], []

    def part(self, name):
        self.heard.append(name)

    def inform(self, text):
        self.informed.append(text)

    def step(self, done, loss):
        if self.heard[-1] == self.stop:
            raise Paused("here")


def content(seed=0):
    return content_of(["digits"], "mlp", SETTINGS, seed)


def test_stopped_gone_on_with_and_extended(tmp_path, capsys):
    out = tmp_path / "advice"
    first = Listening(stop="replay")
    with pytest.raises(Paused, match=str(out)):
        advise(content(), out, budget_s=600, strategies=["replay"], listener=first)
    assert first.heard == ["timing", "none", "replay"]
    assert is_advice(out)
    before = (out / "trials" / "none" / "results.jsonl").read_bytes()

    second = Listening()
    found = go_on(out, second)
    assert second.heard == ["replay", "joint"]
    assert "2 of 3 trials to run: 40 rows" in second.informed[0]
    assert (out / "trials" / "none" / "results.jsonl").read_bytes() == before
    assert not (out / "trials" / "none" / "final").exists()
    assert {option.name for option in found.options} == {"none", "replay"}
    text = (out / "recipe.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# Made by everlearn advise.\n# everlearn run {out / 'recipe.yaml'}"[:60])
    assert "seed 0" in text
    written = load_recipe(yaml.safe_load(text))
    assert written.stream == content()["stream"]  # whole, not cut down to the trials
    assert [strategy.name for strategy in written.build_strategies()] in ([], ["replay"])
    assert (out / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (out / "report.html").read_text(encoding="utf-8")

    third = Listening()
    advise(content(), out, budget_s=600, strategies=["replay", "lwf"], listener=third)
    assert third.heard == ["lwf"]

    with pytest.raises(ConfigError, match="another seed"):
        advise(content(seed=1), out, budget_s=600, strategies=["replay"], listener=third)
    begun = read_json(out / "advise.json")
    others = [{**record, "sha256": {**record["sha256"], "train": "0"}} for record in begun["made_of"]["data"]]
    write_json(out / "advise.json", {**begun, "made_of": {**begun["made_of"], "data": others}})
    with pytest.raises(StateError, match="the rows are not those that it began with"):
        advise(content(), out, budget_s=600, strategies=["replay"], listener=third)
    write_json(out / "advise.json", begun)
    changed = {**content(), "strategies": [{"name": "lwf", "strength": 2.0}]}
    with pytest.raises(ConfigError, match="lwf with other options"):
        advise(changed, out, budget_s=600, strategies=["lwf"], listener=third)
    assert main(["resume", str(out)]) == 0  # done already: only shown again
    assert "Recommended" in capsys.readouterr().out
    for damaged in ("", "[]", "{}"):
        (out / "advise.json").write_text(damaged)
        with pytest.raises(StateError, match=r"advise\.json: "):
            go_on(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stream", "digits", "--model", "mlp", "--budget", "ten"], "--budget: is no time"),
        (["--stream", "digits", "--model", "mlp", "--strategies", "replay,ewcc"], "Did you mean 'ewc'"),
        (["--stream", "nowhere.jsonl"], "--stream: is no file"),
        (["--stream", "digits", "--model", "pocket"], "model.name: is no plain module"),
        (["--stream", "digits", "--model", "mlp", "--set", "stream.n_tasks=1"], "there is one task"),
        (["--stream", "digits", "--model", "mlp", "--out", "."], "--out: the folder is not empty"),
        (["--stream", "digits", "--model", "mlp", "--budget", "0.001s"], "--budget: is too small"),
    ],
)
def test_errors_are_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["advise", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs" / "advise" / "advise.json").exists()


def test_it_is_a_recipe_too_and_its_trials_are_compared(tmp_path, capsys):
    learner = {key: value for key, value in content()["learner"].items() if key != "name"}  # as `run` takes it
    recipe = {"kind": "advice", "budget": "10m", "methods": ["replay"], "recipe": {**content(), "learner": learner}}
    path, out = tmp_path / "advise.yaml", tmp_path / "advice"
    path.write_text(yaml.safe_dump(recipe))
    assert main(["run", str(path), "--out", str(out)]) == 0
    assert "Recommended" in capsys.readouterr().out
    assert (out / "recipe.yaml").exists()
    assert main(["compare", str(out), "--out", str(tmp_path / "side")]) == 0
    assert "advice: replay" in (tmp_path / "side" / "report.html").read_text()
    path.write_text(yaml.safe_dump({**recipe, "budget": "ten"}))
    assert main(["run", str(path), "--out", str(tmp_path / "other")]) == 1
    assert "--budget: is no time" in capsys.readouterr().err
