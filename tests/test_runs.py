import json
import random
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy
import pytest
import torch

from everlearn.config import load_recipe, read_yaml
from everlearn.errors import ConfigError, ModelError, Paused, StateError, StreamError
from everlearn.listener import Listener
from everlearn.models import load
from everlearn.models.load import ModelConfig
from everlearn.runs import resume, run
from everlearn.state import checkpoints, load_state
from everlearn.strategy import Strategy
from support.recipes import final_weights, language_recipe, lines_of, plain_recipe
from support.runs import StopAfter, Stopped, assert_same, make_bench, weights


@dataclass
class Calls(Strategy):
    """Writes down every hook that it is called for."""

    name = "calls"
    label: str = "a"
    calls: list = field(default_factory=list)

    def adapt_model(self, run, task):
        self.calls.append((self.label, "adapt_model", task.name))

    def begin_task(self, run, task):
        self.calls.append((self.label, "begin_task", task.name))

    def train_data(self, mixture, run):
        self.calls.append((self.label, "train_data", run.current))
        return mixture

    def end_task(self, run, task):
        self.calls.append((self.label, "end_task", task.name))

    def before_eval(self, run, task):
        self.calls.append((self.label, "before_eval", task.name))


class Second(Calls):
    name = "second"


def test_hooks_come_in_the_order_that_the_protocol_prints(llama, bert):
    bench, calls = make_bench("plain", llama, bert), []
    one = bench.run([Calls("a", calls), Second("b", calls)], epochs=1)
    one.learn(bench.tasks[0])
    one.score(bench.tasks[1])
    name = bench.tasks[0].name
    assert calls == [
        ("a", "adapt_model", name), ("b", "adapt_model", name), ("a", "begin_task", name), ("b", "begin_task", name),
        ("a", "train_data", name), ("b", "train_data", name), ("b", "end_task", name), ("a", "end_task", name),
        ("a", "before_eval", bench.tasks[1].name), ("b", "before_eval", bench.tasks[1].name),
    ]  # fmt: skip


def test_learning_leaves_the_global_generator_alone_and_depends_on_the_seed(llama, bert):
    bench = make_bench("causal_lora", llama, bert, dropout=0.2)
    state = torch.get_rng_state()
    first = weights(bench.learn(bench.run(epochs=1)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert_same(first, weights(bench.learn(bench.run(epochs=1))))
    other = weights(bench.learn(bench.run(epochs=1, seed=1)))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_module_that_draws_from_python_and_numpy_is_seeded_and_resumed(llama, bert, tmp_path):
    bench = replace(make_bench("plain", llama, bert), config=ModelConfig("support.noisy:build"))
    random.seed(1), numpy.random.seed(1)
    states = random.getstate(), numpy.random.get_state()[1].copy()
    whole = bench.learn(bench.run())
    score = whole.score(bench.tasks[0])
    assert random.getstate() == states[0]
    assert (numpy.random.get_state()[1] == states[1]).all()
    random.seed(2), numpy.random.seed(2)
    assert_same(weights(whole), weights(bench.learn(bench.run())))
    for moment in (4, 9):
        folder = tmp_path / str(moment)
        with pytest.raises(Stopped):
            bench.learn(bench.run(folder=folder, every_steps=1, listener=StopAfter(moment)))
        random.seed(moment), numpy.random.seed(moment)
        resumed = bench.learn(bench.run(folder=folder, every_steps=1))
        assert_same(weights(whole), weights(resumed))
        assert resumed.score(bench.tasks[0]) == score


def test_rows_that_are_drawn_when_they_are_read_are_the_same_after_a_resume(llama, bert, tmp_path):
    @dataclass
    class Drawn(Sequence):
        rows: list

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            row = self.rows[index]
            return {**row, "prompt": row["prompt"] + str(random.randrange(10)) + str(numpy.random.randint(10))}

    bench = make_bench("causal_lora", llama, bert)
    bench = replace(bench, tasks=tuple(replace(task, train=Drawn(task.train)) for task in bench.tasks))
    whole = weights(bench.learn(bench.run()))
    with pytest.raises(Stopped):
        bench.learn(bench.run(folder=tmp_path, every_steps=1, listener=StopAfter(8)))
    assert_same(whole, weights(bench.learn(bench.run(folder=tmp_path, every_steps=1))))


def test_a_run_writes_its_folder(tmp_path):
    recipe = plain_recipe(["replay", "ewc"], seeds=[0, 1], evaluation={"future": True})
    results = run(recipe, tmp_path / "out")
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["complete"]
    assert [entry["seed"] for entry in results["seeds"]] == [0, 1]
    header, *lines = lines_of(tmp_path / "out")
    assert header["type"] == "header"
    for seed in (0, 1):
        cells = [(line["after"], line["task"]) for line in lines if line["type"] == "score" and line["seed"] == seed]
        assert cells == [(after, task) for after in range(-1, 3) for task in ("split_0_1", "split_2_3", "split_4_5")]
        costs = [line for line in lines if line["type"] == "cost" and line["seed"] == seed]
        assert [cost["n_steps"] for cost in costs] == [12, 12, 12]
        assert all(cost["strategy_bytes"].keys() == {"replay", "ewc"} for cost in costs)
    first, second = final_weights(tmp_path / "out", 0), final_weights(tmp_path / "out", 1)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_without_future_only_tasks_seen_are_scored(tmp_path):
    run(plain_recipe([]), tmp_path / "out")
    cells = [(line["after"], line["task"]) for line in lines_of(tmp_path / "out") if line["type"] == "score"]
    names = ("split_0_1", "split_2_3", "split_4_5")
    assert cells == [(after, task) for after in range(3) for task in names[: after + 1]]


def test_overrides_reach_the_recipe_that_is_kept(tmp_path):
    run(plain_recipe([]), tmp_path / "out", ["learner.epochs=1", "stream.order=[1, 0]"])
    header, *lines = lines_of(tmp_path / "out")
    assert header["recipe"]["learner"]["epochs"] == 1
    assert [line["trained"] for line in lines if line["type"] == "cost"] == ["split_2_3", "split_0_1"]


def test_rounds_learn_a_task_again(tmp_path):
    recipe = plain_recipe(["replay", "ewc", "lwf"])
    recipe["stream"] |= {"rounds": 2, "split_rounds": True, "order": [0, 1]}
    results = run(recipe, tmp_path / "out")
    assert results["seeds"][0]["schedule"] == ["split_0_1", "split_2_3"] * 2


def test_a_folder_in_use_is_refused_and_resume_needs_one(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(ConfigError, match=r"the folder is not empty.*everlearn resume"):
        run(plain_recipe([]), tmp_path)
    with pytest.raises(StateError, match=r"there is no run in the folder.*everlearn run"):
        resume(tmp_path)


def test_what_a_crash_left_before_anything_was_saved_is_no_run(tmp_path):
    (tmp_path / ".recipe.yaml.123.tmp").touch()
    run(plain_recipe([]), tmp_path)
    assert not list(tmp_path.glob(".*"))


@dataclass
class AskAfter(Listener):
    """Sends this process a SIGINT, as Ctrl-C does, after so many events."""

    n_events: int

    def count(self, *arguments):
        self.n_events -= 1
        if self.n_events == 0:
            signal.raise_signal(signal.SIGINT)

    training = step = scoring = scored = consolidating = count


@pytest.mark.parametrize("n_events", [1, 5, 13, 14, 15, 16, 17, 40, 58])
def test_interrupted_and_resumed_it_ends_the_same(n_events, tmp_path):
    recipe = plain_recipe(["replay", "ewc"], seeds=[0, 1], evaluation={"future": True})
    if not (whole := tmp_path.parent / "whole_interrupted").exists():
        run(recipe, whole)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Paused):
        run(recipe, tmp_path / "out", listener=AskAfter(n_events))
    assert signal.getsignal(signal.SIGINT) is handler
    resume(tmp_path / "out")
    assert lines_of(tmp_path / "out") == lines_of(whole)
    for seed in (0, 1):
        assert_same(final_weights(tmp_path / "out", seed), final_weights(whole, seed))


def test_a_run_tells_and_writes_down_what_its_rows_are(llama, tmp_path):
    recipe = language_recipe([], llama, tmp_path)
    first = recipe["stream"]["tasks"][0]
    with open(first["train"], "a") as file:
        file.write(json.dumps({"prompt": "twice", "completion": "1"}) + "\n")
        file.write(json.dumps({"prompt": "twice", "completion": "2"}) + "\n")
    with pytest.warns(UserWarning, match="add_0.*prompts of train with two answers or more: 1") as told:
        results = run({**recipe, "learner": {"epochs": 1}, "seeds": [0, 1]}, tmp_path / "out")
    assert len(told) == 1
    header, *data = lines_of(tmp_path / "out")[:3]
    assert "model.safetensors" in header["model"]
    assert [(line["type"], line["task"]) for line in data] == [("data", "add_0"), ("data", "add_1")]
    assert [line["n"] for line in data] == [{"train": 18, "evaluation": 6}, {"train": 16, "evaluation": 6}]
    assert data[1]["counts"] == {"train": {"n": 16, "n_cut": 0, "n_answers_cut": 0}} | {
        "evaluation": {"n": 6, "n_cut": 0, "n_answers_cut": 0, "n_questions_cut": 0, "n_out_of_reach": 0}
    }
    assert data[0]["notes"] == [str(told[0].message)]
    assert results["data"] == [{key: value for key, value in line.items() if key != "type"} for line in data]


def test_the_dtype_that_was_chosen_is_told_and_kept(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "fast_dtype", lambda device: "bfloat16")
    recipe = language_recipe([], llama, tmp_path)
    recipe["model"] = {**recipe["model"], "dtype": "fast"}
    with pytest.warns(UserWarning, match=r"^Weights are loaded as bfloat16 \(model.dtype: fast\)\.$"):
        run({**recipe, "learner": {"epochs": 1}}, tmp_path / "out")
    assert read_yaml(tmp_path / "out" / "recipe.yaml")["model"]["dtype"] == "bfloat16"
    assert lines_of(tmp_path / "out")[0]["recipe"]["model"]["dtype"] == "bfloat16"


def test_a_run_goes_on_with_no_other_rows_and_no_other_model(llama, tmp_path):
    shutil.copytree(llama, tmp_path / "model")
    recipe = language_recipe([], tmp_path / "model", tmp_path)
    out, rows = tmp_path / "out", Path(recipe["stream"]["tasks"][0]["train"])
    with pytest.raises(Paused):
        run(recipe, out, listener=AskAfter(16))
    begun, log = rows.read_text(), (out / "results.jsonl").read_bytes()
    rows.write_text("".join(begun.splitlines(keepends=True)[:-4]))
    with pytest.raises(StateError, match=r"task 'add_0': the rows are not those .* Got 'train: 16 rows, now 12'"):
        resume(out)
    rows.write_text(begun.replace('"1"', '"9"'))
    with pytest.raises(StateError, match="train: 16 rows, with other content"):
        resume(out)
    rows.unlink()
    (tmp_path / "moved.jsonl").write_text(begun)
    text = (out / "recipe.yaml").read_text().replace(str(rows), str(tmp_path / "moved.jsonl"))
    (out / "recipe.yaml").write_text(text)
    config = tmp_path / "model" / "config.json"
    kept = config.read_text()
    config.write_text(kept + " ")
    with pytest.raises(StateError, match=r"model: is not the one that it began with\. Got \['config.json'\]"):
        resume(out)
    assert (out / "results.jsonl").read_bytes() == log
    config.write_text(kept)
    assert resume(out)["complete"]


@pytest.mark.parametrize("way_out", [False, True])
def test_an_item_of_another_task_is_not_trained_on(way_out, llama, tmp_path):
    recipe = language_recipe([], llama, tmp_path)
    first, second = recipe["stream"]["tasks"]
    with open(second["train"], "a") as file:
        file.write(Path(first["eval"]).read_text())
    recipe["learner"] = {"epochs": 1}
    if way_out:
        second["allow_overlap"] = True
        with pytest.warns(UserWarning, match=r"'add_1': rows of it that are evaluation items of 'add_0': 6 \(allow_ov"):
            run(recipe, tmp_path / "out")
        return
    with pytest.raises(StreamError, match=r"training row 17 of 'add_1' and evaluation item 1 of 'add_0'\. Got.*: 6\}"):
        run(recipe, tmp_path / "out")
    recipe["stream"]["order"] = ["add_1"]  # what isn't learned isn't measured
    run(recipe, tmp_path / "out")


def test_a_metric_that_does_not_fit_is_refused_before_anything_is_trained(llama, tmp_path):
    recipe = language_recipe([], llama, tmp_path)
    recipe["stream"]["tasks"][1]["metrics"] = ["accuracy"]
    with pytest.raises(ConfigError, match="task 'add_1': metrics: a metric doesn't fit"):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_validation_rows_are_held_out_only_where_early_stopping_can_act(tmp_path):
    rows = [{"prompt": f"{n}=", "completion": str(n)} for n in range(100)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for learner, held in (({}, False), ({"epochs": 4}, True), ({"epochs": 9, "early_stopping": False}, False)):
        recipe = load_recipe({"stream": {"name": "files", "paths": str(tmp_path / "a.jsonl")}, "learner": learner})
        assert bool(recipe.build_stream().build().tasks[0].validation) == held
        recipe.stream["validation_fraction"] = 0.1
        assert recipe.build_stream().build().tasks[0].validation


def test_resuming_a_finished_run_returns_its_results(tmp_path):
    results = run(plain_recipe([]), tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert resume(tmp_path / "out") == results
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_goes_on(tmp_path):
    recipe = plain_recipe(["ewc"], checkpoint={"every_steps": 3})
    run(recipe, tmp_path / "whole")
    with pytest.raises(Paused):
        run(recipe, tmp_path / "out", listener=AskAfter(9))
    *_, before, newest = checkpoints(tmp_path / "out" / "checkpoints")
    tensors = newest / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(StateError, match=r"checksum differs.*Delete"):
        resume(tmp_path / "out")
    tensors.unlink()
    (newest / "values.json").unlink()
    newest.rmdir()
    load_state(before)
    resume(tmp_path / "out")
    assert_same(final_weights(tmp_path / "out"), final_weights(tmp_path / "whole"))
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "whole")


def test_a_state_of_another_model_is_refused(llama, bert, tmp_path):
    bench = make_bench("plain", llama, bert)
    bench.learn(bench.run(folder=tmp_path, epochs=1), upto=1)
    with pytest.raises(ModelError, match="saved"):
        make_bench("causal_lora", llama, bert).run(folder=tmp_path).restore()


def test_strategies_that_rest_keep_their_state(llama, bert, tmp_path):
    bench = make_bench("plain", llama, bert)
    bench.learn(bench.run(["ewc", "replay"], folder=tmp_path, epochs=1), upto=1)
    resting = bench.run(["ewc"], folder=tmp_path, epochs=1)
    resting.restore()
    assert set(resting.dormant) == {"replay"}
    resting.checkpoint()
    back = bench.run(["ewc", "replay"], folder=tmp_path, epochs=1)
    back.restore()
    assert back.strategies[1].n_seen_ == 24


def test_off_the_main_thread_it_runs_without_a_signal_handler(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(plain_recipe([]), tmp_path / "out")))
    thread.start()
    thread.join()
    assert results[0]["complete"]


class Borrowing(Strategy):
    """Adds 1 to all weights while a task is scored."""

    name = "borrowing"

    def before_eval(self, run, task):
        weights = {name: p.detach() + 1 for name, p in run.model.adapters.trainable().items()}
        run.until_scored.enter_context(run.model.adapters.using(weights))

    def facts(self):
        return {"n": 1}


def test_what_is_changed_for_scoring_is_undone_afterwards(llama, bert):
    bench = make_bench("plain", llama, bert)
    one = bench.run([Borrowing()], epochs=1)
    assert one.learn(bench.tasks[0]).strategy_facts == {"borrowing": {"n": 1}}
    before = weights(one)
    with one.ready_for(bench.tasks[0]):
        assert all(torch.equal(before[name] + 1, tensor) for name, tensor in weights(one).items())
    one.score(bench.tasks[0])
    assert_same(before, weights(one))
    one.strategies[0].before_eval(one, bench.tasks[0])  # a caller that doesn't score
    with pytest.raises(ZeroDivisionError), one.ready_for(bench.tasks[0]):
        _ = 1 / 0
    assert_same(before, weights(one))
