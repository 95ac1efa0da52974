import json
import signal
from pathlib import Path

import pytest
import torch

from everlearn.errors import ConfigError, Paused, StateError
from everlearn.kinds.meta.recipe import load_meta_recipe
from everlearn.learners.meta import MetaLearner
from everlearn.listener import Listener
from everlearn.runs import resume, run
from everlearn.state import load_state, unpack
from support.recipes import language_recipe
from support.runs import StopAfter, Stopped, assert_same


@pytest.fixture(scope="module")
def recipe(llama, tmp_path_factory):
    language = language_recipe([], llama, tmp_path_factory.mktemp("rows"), dropout=0.2)
    tasks = language["stream"]["tasks"]
    return {
        "stream": {"name": "files", "tasks": tasks},
        "model": language["model"],
        "learner": {"first_order": True, "inner_lr": 0.1, "adaptation_steps": 2, "meta_batch_size": 1,
                    "n_support": 4, "n_query": 4},
        "held_out": [tasks[1]["name"]],
        "n_steps": 3,
        "starts": ["plain", "joint", "meta"],
        "evaluation": {"steps": [0, 2], "rates": {"sgd": [0.1], "adamw": [0.01]}},
        "seeds": [0, 1],
        "checkpoint": {"every_s": None, "every_steps": 1},
        "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(recipe, out)
    return out


def final(out):
    return load_state(out / "final" / "seed-1")[0]


def test_results_hold_each_seed_start_and_number_of_steps(whole, recipe):
    results = json.loads((whole / "results.json").read_text())
    found = {(line["seed"], line["start"], line["steps"]) for line in results["scores"]}
    assert found == {(seed, start, n) for seed in (0, 1) for start in ("plain", "joint", "meta") for n in (0, 2)}
    assert all(line["n"] == len(line["outcomes"]) and line["low"] is not None for line in results["scores"])
    assert results["complete"] is True
    assert results["summary"]["n_seeds"] == 2


def test_the_learned_start_can_be_loaded(whole, recipe):
    loaded = load_meta_recipe(recipe)
    tensors, values = load_state(whole / "final" / "seed-1")
    learner = MetaLearner(loaded.model, options=recipe["learner"], seed=1)
    learner.load_state(unpack(values, tensors), loaded.tasks()[0])
    assert learner.n_steps == 3
    assert any(p.abs().sum() > 0 for n, p in learner.model.adapters.trainable().items() if "lora_B" in n)


@pytest.mark.parametrize("n_steps", [2, 7])
def test_a_run_that_was_killed_ends_as_if_it_never_was(n_steps, recipe, whole, tmp_path):
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "run", listener=StopAfter(n_steps))
    assert not (tmp_path / "run" / "results.json").exists()
    results = resume(tmp_path / "run")
    assert results["scores"] == json.loads(json.dumps(resume(whole)["scores"]))
    assert_same(final(tmp_path / "run"), final(whole))


class InterruptAt(Listener):
    """Sends this process SIGINT, as Ctrl-C does, at one of the outer steps or scorings."""

    def __init__(self, event):
        self.left = event

    def step(self, done, loss):
        self._count()

    def scoring(self, task):
        self._count()

    def _count(self):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("event", [1, 3, 5, 8])  # a scoring, a step, the last step, the last scoring of a seed
def test_ctrl_c_pauses_and_resume_goes_on_to_the_same_end(event, recipe, whole, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Paused):
        run({**recipe, "checkpoint": {"every_s": None}}, tmp_path / "run", listener=InterruptAt(event))
    assert signal.getsignal(signal.SIGINT) is handler
    assert resume(tmp_path / "run")["scores"] == json.loads(json.dumps(resume(whole)["scores"]))
    assert_same(final(tmp_path / "run"), final(whole))


def test_it_goes_on_with_no_other_rows(recipe, llama, tmp_path):
    tasks = language_recipe([], llama, tmp_path)["stream"]["tasks"]
    with pytest.raises(Stopped):
        run({**recipe, "stream": {"name": "files", "tasks": tasks}}, tmp_path / "run", listener=StopAfter(2))
    rows = Path(tasks[1]["eval"])
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(StateError, match=r"task 'add_1': the rows are not those .* Got 'evaluation: 6 rows, now 5'"):
        resume(tmp_path / "run")


def test_a_used_folder_is_refused(recipe, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="the folder is not empty"):
        run(recipe, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StateError, match="there is no run in the folder"):
        resume(tmp_path)
    with pytest.raises(ConfigError, match="is no task of the stream"):
        run({**recipe, "held_out": ["nothing"]}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_seed_has_intervals_over_items(recipe, tmp_path):
    torch.manual_seed(5)
    results = run(recipe, tmp_path / "run", ["seeds=[0]", "starts=[plain, meta]", "n_steps=1"])
    assert results["summary"]["differences"]["meta - plain"]["2"]["low"] is not None
