"""The demo's course on a cut-down setting: three run folders, a report beside them, and going on after a stop."""

import pytest

from everlearn import demo
from everlearn.config import load_recipe
from everlearn.errors import ConfigError, Paused
from everlearn.listener import Listener
from everlearn.state import read_json

pytestmark = pytest.mark.filterwarnings(
    "ignore:task .*(longer than 64 tokens|questions lose)"
)  # the stand-in's context is short


@pytest.fixture
def small(llama, monkeypatch):
    stream = {"name": "arena", "types": ["comparison", "causal"], "n_train": 8, "n_validation": 4, "n_eval": 6}
    model = {"name": str(llama), "max_length": 64, "adapter": {"name": "lora", "rank": 2}}
    learner = {"name": "sft", "epochs": 1, "batch_size": 4}
    monkeypatch.setitem(demo.SETTINGS, "pocket", {"stream": stream, "model": model, "learner": learner})


class StopAt(Listener):
    """Asks for a pause in one of the runs by raising what a pause raises."""

    def __init__(self, name):
        self.name, self.now = name, ""

    def part(self, name):
        self.now = name

    def step(self, done, loss):
        if self.now == self.name:
            raise Paused("here")


def test_three_runs_and_a_report(small, tmp_path):
    folders = demo.run_demo(tmp_path, 0, Listener())
    assert list(folders) == ["plain", "replay_ewc", "joint"]
    for folder in folders.values():
        assert read_json(folder / "results.json")["complete"]
        assert (folder / "results.jsonl").exists()
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "report.md").exists()
    assert list(tmp_path.glob("*.png"))
    with pytest.raises(ConfigError, match=r"^demo: the folder holds another demo\. Got .*'seed': 0.*--out\.$"):
        demo.run_demo(tmp_path, 1, Listener())
    with pytest.raises(ConfigError, match=r"^demo: the folder holds another demo"):
        demo.run_demo(tmp_path, 0, Listener(), "smollm2")


def test_a_stopped_demo_goes_on(small, tmp_path):
    with pytest.raises(Paused):
        demo.run_demo(tmp_path, 0, StopAt("replay_ewc"))
    before = (tmp_path / "plain" / "results.jsonl").read_bytes()
    demo.run_demo(tmp_path, 0, Listener())
    assert (tmp_path / "plain" / "results.jsonl").read_bytes() == before
    assert read_json(tmp_path / "replay_ewc" / "results.json")["complete"]


def test_there_is_no_demo_of_any_other_model(tmp_path):
    with pytest.raises(ConfigError, match=r"^demo: model.*Got 'mlp'"):
        demo.run_demo(tmp_path, 0, Listener(), "mlp")


@pytest.mark.parametrize("model", demo.SETTINGS)
def test_every_model_s_recipes_are_sound(model):
    for strategies in demo.RUNS[model].values():
        recipe = load_recipe({**demo.SETTINGS[model], "strategies": strategies, "seed": 0})
        assert recipe.model.name == model
        assert recipe.build_strategies() is not None
