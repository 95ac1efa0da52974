"""The whole course on the digits: a stop, going on, the recipe, and what a folder in use refuses."""

from contextlib import nullcontext

import pytest
import yaml

from everlearn.advise import advise, content_of, go_on, is_advice
from everlearn.cli import main
from everlearn.config import load_recipe
from everlearn.errors import ConfigError, Paused, StateError
from everlearn.listener import Listener
from everlearn.state import read_json, write_json

SETTINGS = ["stream.n_tasks=2", "stream.per_task=40", "model.options.hidden=[16]", "learner.epochs=2"]


class StopAt(Listener):
    """Asks for a pause by raising what a pause raises."""

    def step(self, done, loss):
        raise Paused("here")


class Listening:
    """Notes the names of the trials; stops one of them."""

    def __init__(self, stop=""):
        self.stop, self.heard = stop, []

    def __call__(self, name):
        self.heard.append(name)
        return nullcontext(StopAt() if name == self.stop else Listener())


def content(seed=0):
    return content_of(["digits"], "mlp", SETTINGS, seed)


def test_stopped_gone_on_with_and_extended(tmp_path, capsys):
    out = tmp_path / "advice"
    first = Listening(stop="replay")
    with pytest.raises(Paused, match=str(out)):
        advise(content(), out, budget_s=600, strategies=["replay"], listen=first)
    assert first.heard == ["timing", "none", "replay"]
    assert is_advice(out)
    before = (out / "trials" / "none" / "results.jsonl").read_bytes()

    second, told = Listening(), []
    found = go_on(out, second, told.append)
    assert second.heard == ["replay", "joint"]
    assert "2 of 3 trials to run: 40 rows" in told[0]
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
    advise(content(), out, budget_s=600, strategies=["replay", "lwf"], listen=third)
    assert third.heard == ["lwf"]

    with pytest.raises(ConfigError, match="another seed"):
        advise(content(seed=1), out, budget_s=600, strategies=["replay"], listen=third)
    begun = read_json(out / "advise.json")
    others = [{**record, "sha256": {**record["sha256"], "train": "0"}} for record in begun["made_of"]["data"]]
    write_json(out / "advise.json", {**begun, "made_of": {**begun["made_of"], "data": others}})
    with pytest.raises(StateError, match="the rows are not those that it began with"):
        advise(content(), out, budget_s=600, strategies=["replay"], listen=third)
    write_json(out / "advise.json", begun)
    changed = {**content(), "strategies": [{"name": "lwf", "strength": 2.0}]}
    with pytest.raises(ConfigError, match="lwf with other options"):
        advise(changed, out, budget_s=600, strategies=["lwf"], listen=third)
    assert main(["resume", str(out)]) == 0  # done already: only shown again
    assert "Recommended" in capsys.readouterr().out


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
