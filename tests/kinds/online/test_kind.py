"""Online runs: what they leave behind, stopped anywhere and resumed, held-out problems kept apart, all methods."""

import json
import re
import signal
from dataclasses import dataclass

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from everlearn.errors import ConfigError, ModelError, Paused, StateError, StreamError
from everlearn.kinds.online import load_online_recipe
from everlearn.listener import Listener
from everlearn.models.reloaded import Sample
from everlearn.registry import find, names
from everlearn.runs import resume, run
from everlearn.state import checkpoints, load_state
from everlearn.strategy import Strategy, learned
from everlearn.types import Episode
from support.runs import Stopped, assert_same, suits
from support.sources import NAME, Sums, SumsFeed, sum_row


def recipe(llama, strategies=(), **changes):
    return load_online_recipe(
        {
            "source": {"name": NAME},
            "model": {"name": str(llama), "adapter": {"rank": 2, "dropout": 0.1}},
            "learner": {"learning_rate": 0.01},
            "strategies": list(strategies),
            "episodes": 12,
            "boundary": 5,
            "evaluation": {"n": 4, "interval": 4},
            "checkpoint": {"every_s": None, "every_steps": 3},
            "device": "cpu",
            **changes,
        }
    )


@dataclass
class Back(Strategy):
    """At the end of a task, puts back the weights of its beginning."""

    start_: dict = learned(dict)

    def begin_task(self, run, task):
        self.start_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}

    def end_task(self, run, task):
        with torch.no_grad():
            for name, p in run.model.adapters.trainable().items():
                p.copy_(self.start_[name])


BACK = f"{__name__}:Back"


def lines(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in found
        if line.get("type") != "header"
    ]


def test_what_a_run_leaves_behind(llama, tmp_path):
    results = run(recipe(llama), tmp_path / "run")
    out = tmp_path / "run"
    assert results == json.loads((out / "results.json").read_text())
    assert results["complete"]
    assert [point["episode"] for point in results["curve"]] == [0, 4, 8, 12]
    assert results["n"] == 4
    assert set(results["by_type"]) == {"even", "odd"}
    episodes = lines(out / "episodes.jsonl")
    assert [line["question"] for line in episodes] == [f"{i}+1=" for i in range(12)]
    assert [line["answer"] for line in episodes] == [str(i + 1) for i in range(12)]
    kept = sorted(path.name for path in out.glob("checkpoint_ep*"))
    assert kept == ["checkpoint_ep12", "checkpoint_ep4", "checkpoint_ep8"]
    base = AutoModelForCausalLM.from_pretrained(llama)
    assert PeftModel.from_pretrained(base, out / "checkpoint_ep12").peft_config["default"].r == 2


def test_a_saved_adapter_is_loaded_back_once_and_what_answers_otherwise_is_told_and_not_kept(
    llama, tmp_path, monkeypatch
):
    asked = []

    def answers_otherwise(sample, folder, model):
        asked.append(folder)
        raise ModelError("it answers otherwise")

    monkeypatch.setattr(Sample, "check", lambda sample, folder, model: asked.append(folder))
    run(recipe(llama), tmp_path / "run")
    assert len(asked) == 1
    monkeypatch.setattr(Sample, "check", answers_otherwise)
    with pytest.warns(UserWarning, match="it answers otherwise"):
        assert run(recipe(llama), tmp_path / "other")["complete"]
    assert not list((tmp_path / "other").glob("checkpoint_ep*"))


def test_at_the_end_of_a_task_is_scored_what_the_strategies_leave_in_the_model(llama, tmp_path):
    made = recipe(llama, [BACK], boundary=4, keep_checkpoints=3)
    run(made, tmp_path / "run")
    early, late = (load_file(tmp_path / "run" / f"checkpoint_ep{n}" / "adapter_model.safetensors") for n in (4, 12))
    assert_same(early, late)
    between = recipe(llama, [BACK], boundary=5, keep_checkpoints=3)
    run(between, tmp_path / "between")
    moved = load_file(tmp_path / "between" / "checkpoint_ep4" / "adapter_model.safetensors")
    assert any(not torch.equal(moved[name], tensor) for name, tensor in early.items())


def test_the_end_of_a_type_and_of_the_run_are_scored_behind_the_task_s_end(llama, tmp_path):
    source = {"name": NAME, "by_type": True}
    for name, changes in {"type": {"boundary": "type", "source": source}, "short": {"boundary": 8}}.items():
        made = recipe(llama, [BACK], evaluation={"n": 4, "interval": 2}, keep_checkpoints=9, **changes)
        run(made, tmp_path / name)
        out = tmp_path / name
        ends = (6, 12) if name == "type" else (8, 12)  # six even ones, six odd ones; eight and four
        first, last = (load_file(out / f"checkpoint_ep{n}" / "adapter_model.safetensors") for n in ends)
        assert_same(first, last)
        assert not any(tensor.any() for key, tensor in last.items() if "lora_B" in key)
        middle = load_file(out / "checkpoint_ep4" / "adapter_model.safetensors")
        assert any(tensor.any() for key, tensor in middle.items() if "lora_B" in key)


def test_the_loss_is_that_of_the_new_problem_whatever_is_learned_with_it(llama, tmp_path):
    found = {}
    for name, strategies in {
        "plain": [],
        "more": [{"name": "replay", "ratio": 3}, {"name": "l2", "strength": 9.0}],
    }.items():
        made = recipe(
            llama, strategies, learner={"learning_rate": 1e-9}, model={"name": str(llama), "adapter": {"rank": 2}}
        )
        run(made, tmp_path / name)
        found[name] = [line["loss"] for line in lines(tmp_path / name / "episodes.jsonl")]
    assert found["more"] == pytest.approx(found["plain"], rel=1e-4)


class StopAt(Listener):
    """Stops a run, as a crash would, at an episode before it is saved."""

    def __init__(self, n: int):
        self.left = n

    def episode(self, done: int, n_episodes: int, episode: Episode) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


PROTECTION = ({"name": "replay", "capacity": 6}, {"name": "ewc", "n_examples": 4})


@pytest.mark.parametrize("boundary", [4, 5])  # with 4, scorings fall on the ends of tasks
def test_a_run_that_is_stopped_anywhere_ends_like_one_that_never_was(llama, tmp_path, boundary):
    wanted, out = tmp_path / "whole", tmp_path / "stopped"
    made = recipe(llama, [*PROTECTION, {"name": "ema", "decay": 0.9}], seeds=[0, 1], boundary=boundary)
    run(made, wanted)
    stops = 0
    with pytest.raises(Stopped):
        run(made, out, listener=StopAt(4))
    for n in (1, 2, 5, 3, 4, 2, 5):
        stops += 1
        try:
            resume(out, StopAt(n))
        except Stopped:
            continue
    resume(out)
    assert stops == 7
    assert lines(out / "episodes.jsonl") == lines(wanted / "episodes.jsonl")
    assert lines(out / "evaluations.jsonl") == lines(wanted / "evaluations.jsonl")
    ends = [load_state(checkpoints(folder / "checkpoints")[-1])[0] for folder in (out, wanted)]
    assert_same(*ends)


def test_a_run_with_steps_and_several_updates_is_stopped_and_goes_on(llama, tmp_path):
    wanted, out = tmp_path / "whole", tmp_path / "stopped"
    learner = {"learning_rate": 0.01, "updates": 2, "learn": "steps"}
    source = {"name": NAME, "explained": True}
    made = recipe(llama, [{"name": "replay", "ratio": 1.5}], learner=learner, source=source, boundary=4)
    run(made, wanted)
    for n in (6, 4):
        with pytest.raises(Stopped):
            resume(out, StopAt(n)) if out.exists() else run(made, out, listener=StopAt(n))
    resume(out)
    assert lines(out / "episodes.jsonl") == lines(wanted / "episodes.jsonl")
    assert_same(final_weights(out), final_weights(wanted))
    _, values = load_state(checkpoints(out / "checkpoints")[-1])
    kept = values["strategies"]["replay"]["memory_"]["stream"]["rows"]
    assert {row["explanation"] for row in kept} == {f"{n}, {n + 1}" for n in range(12)}


@pytest.mark.filterwarnings("ignore:task 'stream'. prompts and completions are put as turns:UserWarning")
def test_problems_are_turns_of_a_conversation_where_there_is_a_template(llama, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "everlearn.learners.answering.generate_greedily",
        lambda _, objective, prompts, *rest: [asked.append(objective.tokenizer.decode(prompts[0])) or ""],
    )
    model = {"name": str(llama), "adapter": {"rank": 2}, "chat_template": "chatml"}
    run(recipe(llama, model=model, episodes=2), tmp_path / "run")
    assert set(asked) == {f"<|im_start|>user\n{n}+1=<|im_end|>\n<|im_start|>assistant\n" for n in (0, 1)}


class StopAtSecondSeed(Listener):
    """Stops a run, as a crash would, when its second seed is first scored: nothing of that seed is saved yet."""

    def __init__(self):
        self.begun = 0

    def evaluated(self, done: int, accuracy: float) -> None:
        self.begun += done == 0
        if self.begun == 2:
            raise Stopped


def test_it_goes_on_with_no_other_held_out_problems(llama, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        run(recipe(llama), tmp_path / "run", listener=StopAt(6))
    monkeypatch.setattr(Sums, "held_out", lambda self, n: [sum_row(2000 + i) for i in range(n)])
    with pytest.raises(StateError, match=r"task 'stream': .* Got 'evaluation: 4 rows, with other content'"):
        resume(tmp_path / "run")


def test_a_run_that_is_stopped_between_two_seeds_ends_like_one_that_never_was(llama, tmp_path):
    wanted, out = tmp_path / "whole", tmp_path / "stopped"
    run(recipe(llama, seeds=[0, 1]), wanted)
    with pytest.raises(Stopped):
        run(recipe(llama, seeds=[0, 1]), out, listener=StopAtSecondSeed())
    assert resume(out)["complete"]
    assert lines(out / "evaluations.jsonl") == lines(wanted / "evaluations.jsonl")


class InterruptLastScoring(Listener):
    """Presses Ctrl-C while the last scoring of a seed is at work."""

    def evaluated(self, done: int, accuracy: float) -> None:
        if done == 12:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_seed_s_last_scoring_stops_the_run_before_the_next_seed(llama, tmp_path):
    wanted, out = tmp_path / "whole", tmp_path / "stopped"
    made = recipe(llama, seeds=[0, 1], boundary=4)  # so that it comes after the last step
    run(made, wanted)
    with pytest.raises(Paused):
        run(made, out, listener=InterruptLastScoring())
    assert {line["seed"] for line in lines(out / "evaluations.jsonl")} == {0}
    assert resume(out)["complete"]
    assert lines(out / "evaluations.jsonl") == lines(wanted / "evaluations.jsonl")


def test_a_source_that_ends_early_ends_the_run(llama, tmp_path):
    results = run(recipe(llama, source={"name": NAME, "n": 5}), tmp_path / "run")
    assert results["complete"]
    assert results["seeds"][0]["n_episodes"] == 5
    assert results["curve"][-1]["episode"] == 5


def test_a_held_out_problem_is_never_learned(llama, tmp_path):
    with pytest.raises(StreamError, match=r"online: a held-out problem comes up for learning\. Got '10\+1='"):
        run(recipe(llama, source={"name": NAME, "held_out_from": 10}), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_each_type_is_a_task_where_asked(llama, tmp_path):
    made = recipe(llama, ["replay"], boundary="type", source={"name": NAME, "by_type": True})
    run(made, tmp_path / "run")
    _, values = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert values["learned"] == ["even", "odd"]
    assert set(values["strategies"]["replay"]["memory_"]) == {"even", "odd"}


def works_online(name: str) -> bool:
    return "online" not in find("strategy", name).unsuited


def entry_of(name: str) -> dict:
    return {"name": name, **({"capacity": 6} if name in ("der", "derpp", "gem", "agem") else {})}


def final_weights(out):
    return load_state(checkpoints(out / "checkpoints")[-1])[0]


def run_without_dropout(llama, strategies, out, **changes):
    model = {"name": str(llama), "adapter": {"rank": 2}}
    return run(recipe(llama, strategies, **{"boundary": 4, "model": model, **changes}), out)


@pytest.fixture(scope="module")
def plain(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    run_without_dropout(llama, [], out)
    return {name: tensor for name, tensor in final_weights(out).items() if "lora" in name}


@pytest.mark.parametrize(
    "name", [n for n in names("strategy") if suits(find("strategy", n), "causal_lora") and works_online(n)]
)
def test_every_method_works_online_and_does_something(llama, plain, tmp_path, name):
    needs_types = "one_stream" in find("strategy", name).unsuited
    changes = {"boundary": "type"} if needs_types else {}
    results = run_without_dropout(llama, [entry_of(name)], tmp_path / "run", **changes)
    assert results["complete"]
    assert results["seeds"][0]["n_episodes"] == 12
    found = final_weights(tmp_path / "run")
    same = [torch.equal(found[key], tensor) for key, tensor in plain.items() if key in found]
    if name == "none":
        assert len(same) == len(plain) > 0
        assert all(same)
    else:
        own = [tensor for key, tensor in found.items() if key not in plain and "lora_B" in key]
        assert not all(same) if same else any(tensor.any() for tensor in own)  # its own layers in place of the LoRA's


def test_a_method_that_must_know_tasks_apart_is_refused_where_all_problems_are_one(llama, tmp_path):
    with pytest.raises(ConfigError, match="set boundary: type"):
        run(recipe(llama, ["hat"]), tmp_path / "run")


def suits_prompt(name: str) -> bool:
    traits = {"causal", "prompt", "soft_prompt", "online"}
    return not any(set(unsuited.split("+")) <= traits for unsuited in find("strategy", name).unsuited)


@pytest.mark.parametrize("name", [n for n in names("strategy") if suits_prompt(n)])
def test_methods_that_need_no_layers_work_with_a_soft_prompt(llama, tmp_path, name):
    made = recipe(llama, [entry_of(name)], model={"name": str(llama), "adapter": {"name": "prompt", "soft_tokens": 2}})
    assert run(made, tmp_path / "run")["complete"]


@pytest.mark.parametrize("name", [n for n in names("strategy") if not works_online(n)])
def test_methods_that_need_a_whole_task_are_refused_with_the_reason(llama, tmp_path, name):
    with pytest.raises(ConfigError, match=re.escape(find("strategy", name).unsuited["online"])):
        run(recipe(llama, [name]), tmp_path / "run")


@pytest.mark.parametrize(
    ("rows", "held_out", "message"),
    [
        ([{"completion": "1"}], [sum_row(90)], "source: a row that it gave is bad: column 'prompt' is missing"),
        (["text"], [sum_row(90)], "source: a row that it gave is no mapping. Got 'text'"),
        ([{**sum_row(1), "difficulty": "hard"}], [sum_row(90)], "difficulty is str"),
        ([sum_row(1)], [], "source: holds no problem out"),
        ([], [sum_row(90)], "source: gave no problem to learn from"),
    ],
)
def test_what_a_source_gives_is_checked(llama, tmp_path, monkeypatch, rows, held_out, message):
    monkeypatch.setattr(Sums, "held_out", lambda self, n: held_out)
    monkeypatch.setattr(SumsFeed, "known", lambda self, n: [])
    given = iter(rows)
    monkeypatch.setattr(SumsFeed, "next", lambda self: next(given, None))
    with pytest.raises((StreamError, ConfigError), match=re.escape(message)):
        run(recipe(llama), tmp_path / "run")


def test_what_was_learned_before_a_bad_row_is_kept(llama, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "run"
    run(recipe(llama), whole)
    proper = SumsFeed.next

    def failing(self):
        if self.place == 7:
            raise StreamError("a bad row")
        return proper(self)

    monkeypatch.setattr(SumsFeed, "next", failing)
    made = recipe(llama, checkpoint={"every_s": None})
    with pytest.raises(StreamError, match="a bad row"):
        run(made, out)
    assert load_state(checkpoints(out / "checkpoints")[-1])[1]["context"]["n_done"] == 7
    monkeypatch.undo()
    resume(out)
    assert lines(out / "episodes.jsonl") == lines(whole / "episodes.jsonl")


def test_an_answer_that_leaves_no_room_for_the_prompt_is_refused(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(Sums, "max_new_tokens", 100_000)
    with pytest.raises(ConfigError, match="max_new_tokens: leaves no room for a prompt"):
        run(recipe(llama), tmp_path / "run")


def test_a_folder_in_use_and_a_foreign_folder_are_refused(llama, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="out: the folder is not empty"):
        run(recipe(llama), tmp_path)
    with pytest.raises(StateError, match="folder: there is no run in the folder"):
        resume(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundary": "kind"}, "boundary: is unknown. Got 'kind'"),
        ({"episodes": 0}, "episodes: is out of range. Got 0"),
        ({"evaluation": {"n": 0}}, "evaluation.n: is out of range. Got 0"),
        ({"learner": {"lr": 1.0}}, "learner.lr: is unknown"),
        ({"source": {"name": "areena"}}, "Did you mean 'arena'"),
        ({"seed": 1, "seeds": [2]}, "seeds: stands beside seed"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_path(llama, change, message):
    with pytest.raises(ConfigError, match=message):
        recipe(llama, **change)


def test_drift_ends_a_task_opens_another_and_raises_the_rate(llama, tmp_path):
    detector = {"name": "page_hinkley", "threshold": 0.5, "tolerance": 0.0, "min_values": 5}
    drift = {"detector": detector, "actions": ["boundary", "raise_rate"], "rate_factor": 2.0, "n_steps": 2}
    source = {"name": "support.sources:Turning", "at": 14}
    made = recipe(
        llama, ["replay"], drift=drift, source=source, boundary=50, episodes=22, learner={"learning_rate": 0.03}
    )
    run(made, tmp_path / "run")
    told = lines(tmp_path / "run" / "episodes.jsonl")
    (at,) = [line["episode"] for line in told if line["drift"]]
    assert at > 14
    assert [line["learning_rate"] for line in told[at : at + 3]] == pytest.approx([0.06, 0.045, 0.03])
    _, values = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert values["learned"] == ["stream", "stream, 1 drifts on"]


def test_a_run_that_reacts_to_drift_resumes_to_the_same_end(llama, tmp_path):
    drift = {"detector": {"name": "page_hinkley", "threshold": 0.5, "tolerance": 0.0, "min_values": 5}}
    source = {"name": "support.sources:Turning", "at": 14}
    made = recipe(llama, ["ewc"], drift=drift, source=source, boundary=50, episodes=22, learner={"learning_rate": 0.03})
    run(made, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(made, tmp_path / "stopped", listener=StopAt(18))
    resume(tmp_path / "stopped")
    assert lines(tmp_path / "stopped" / "episodes.jsonl") == lines(tmp_path / "whole" / "episodes.jsonl")


def test_answers_are_kept_unless_the_recipe_says_no(llama, tmp_path):
    run(recipe(llama, episodes=4), tmp_path / "kept")
    header, *evaluations = map(json.loads, (tmp_path / "kept" / "evaluations.jsonl").read_text().splitlines())
    assert header["asked"] == [[f"{i}+1=", str(i + 1)] for i in range(1000, 1004)]
    answers = [line["answers"] for line in evaluations if line["type"] == "evaluation"]
    assert [len(found) for found in answers] == [4, 4]
    run(recipe(llama, episodes=4, evaluation={"n": 4, "interval": 4, "answers": False}), tmp_path / "not_kept")
    header, *evaluations = map(json.loads, (tmp_path / "not_kept" / "evaluations.jsonl").read_text().splitlines())
    assert "asked" not in header
    assert all(line["answers"] == [] for line in evaluations if line["type"] == "evaluation")
    for line in lines(tmp_path / "not_kept" / "episodes.jsonl"):
        assert not {"question", "answer", "before", "after"} & set(line)


def test_problems_and_their_outcomes_stand_in_one_order_where_types_mix(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("everlearn.evaluation.score.is_right", lambda task, answer, row, objective: task.name == "odd")
    results = run(recipe(llama, episodes=2, boundary="type"), tmp_path / "run")
    assert {name: entry["final"]["value"] for name, entry in results["by_type"].items()} == {"even": 0.0, "odd": 1.0}
