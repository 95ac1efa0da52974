import json
from dataclasses import replace

import pytest
import torch

from everlearn.errors import ConfigError, StateError, StreamError
from everlearn.evaluation import abilities as module
from everlearn.evaluation.abilities import Abilities
from everlearn.memory.own_texts import divergences_on
from everlearn.runs import resume, run
from everlearn.state import pack, unpack
from support.recipes import final_weights, language_recipe, lines_of
from support.runs import StopAfter, Stopped, assert_same, make_bench
from support.tasks import tensor_task


@pytest.fixture
def small(monkeypatch):
    """Probes of a size for tests."""
    monkeypatch.setattr(module, "N_TEXTS", 5)
    monkeypatch.setattr(module, "MAX_TOKENS", 6)


@pytest.fixture
def files(tmp_path):
    """Files of the user's: text, prompts, prompts with choices."""
    (tmp_path / "prose.txt").write_text("The first.\nStill it.\n\n\n\r\n\r\nThe second.\n", encoding="utf-8")
    rows = {
        "sums": [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(3)],
        "facts": [{"prompt": "a", "completion": "b", "choices": ["b", "c"]}] * 2,
    }
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return [str(tmp_path / name) for name in ("prose.txt", "sums.jsonl", "facts.jsonl")]


def test_files_become_tasks_that_are_only_measured(files):
    prose, sums, facts = Abilities.read(files).tasks.values()
    assert [row["text"] for row in prose.evaluation] == ["The first.\nStill it.", "The second."]
    assert (prose.kind, sums.kind, facts.kind) == ("text", "prompt", "prompt")
    assert [row["completion"] for row in sums.evaluation] == ["1", "2", "3"]
    assert (sums.metrics, facts.metrics) == ((), ("choice",))
    assert all(len(task.train) == 0 for task in (prose, sums, facts))


def test_what_cannot_be_read_or_measured_is_refused(tmp_path):
    with pytest.raises(StreamError, match=r"evaluation.abilities: can't be read .*missing.txt"):
        Abilities.read([str(tmp_path / "missing.txt")])
    (tmp_path / "blank.txt").write_text(" \n\n \n")
    with pytest.raises(StreamError, match="has no text"):
        Abilities.read([str(tmp_path / "blank.txt")])
    with pytest.raises(StreamError, match=r"missing.jsonl"):
        Abilities.read([str(tmp_path / "missing.jsonl")])
    (tmp_path / "labels.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    with pytest.raises(ConfigError, match=r"labels.jsonl has rows of another kind. Got 'classify'"):
        Abilities.read([str(tmp_path / "labels.jsonl")])
    with pytest.raises(ConfigError, match=r"are measured on language models that write. Got 'tensor'"):
        Abilities.read(["self"], [tensor_task(0)])
    assert Abilities.read([], [tensor_task(0)]).names == ()


def test_what_of_a_file_does_not_fit_the_model_is_told(llama, bert, tmp_path):
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a" * 200, "completion": "b"}) + "\n")
    one = make_bench("causal_lora", llama, bert).run(epochs=1)
    with pytest.warns(UserWarning, match="lose"):
        Abilities.read([str(tmp_path / "long.jsonl")]).make(one)
    told = " ".join(one.notes)
    assert "long.jsonl': 1 of 1 evaluation rows are longer than 64 tokens" in told
    assert "long.jsonl': 1 of 1 questions lose their start" in told


def test_self_is_minus_the_divergence_from_the_base(small, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    one, abilities = bench.run(epochs=1), Abilities.read(["self"], bench.tasks)
    with pytest.raises(StateError, match="hasn't written its texts"):
        list(abilities.measure(one))
    abilities.make(one)
    (before,) = abilities.measure(one)
    assert abs(before.value) < 1e-5
    bench.learn(one)
    flags = [p.requires_grad for p in one.model.network.parameters()]
    (after,) = abilities.measure(one)
    found = divergences_on(one, abilities.texts, abilities.answers, 5)
    assert after.value == pytest.approx(-sum(total for total, _ in found) / sum(n for _, n in found))
    assert after.outcomes == pytest.approx([-total / n for total, n in found])
    assert (after.task, after.metric, after.n) == ("self", "negative_kl", 5)
    assert after.low < after.value < after.high <= 0
    assert [p.requires_grad for p in one.model.network.parameters()] == flags


def test_what_was_made_comes_back(small, files, llama, bert, tmp_path):
    bench = make_bench("causal_lora", llama, bert)
    one, abilities = bench.run(), Abilities.read(["self", *files], bench.tasks)
    abilities.make_in(one, tmp_path / "abilities")
    again = Abilities.read(["self", *files], bench.tasks)
    again.make_in(bench.learn(bench.run(epochs=1)), tmp_path / "abilities")  # the base is not asked again
    first, second = {}, {}
    assert pack(abilities.state(), first, "a") == pack(again.state(), second, "a")
    assert_same(first, second)
    assert list(again.measure(one)) == list(abilities.measure(one))
    assert [score.task for score in again.measure(one)] == ["self", *files]
    with open(files[1], "a") as file:
        file.write('{"prompt": "9+1=", "completion": "10"}\n')
    with pytest.raises(StateError, match=r"the file's rows are others now. Got '.*sums.jsonl'"):
        Abilities.read(["self", *files]).load_state(unpack(pack(abilities.state(), first, "a"), first))


def test_the_arenas_types_that_the_base_solves_are_measured_on_other_problems(llama, bert, monkeypatch):
    bench = make_bench("causal_lora", llama, bert)
    one, abilities, tried = bench.run(), Abilities.read(["arena"]), {}
    score = one.score(bench.tasks[0])

    def solves(model, task, *arguments):
        name = task.name.rpartition("/")[2]
        tried[name] = task.evaluation
        return replace(score, value={"math": 0.5, "logic": 1.0}.get(name, 0.25))

    monkeypatch.setattr(module, "score_task", solves)
    abilities.make(one)
    assert len(tried) == 15
    assert abilities.types == ("math", "logic")
    task = abilities.tasks["arena"]
    assert (len(task.evaluation), task.verifier) == (64, "arena")
    chose = {row["prompt"] for rows in tried.values() for row in rows}
    assert not chose & {row["prompt"] for row in task.evaluation}
    monkeypatch.undo()
    assert [found.task for found in abilities.measure(one)] == ["arena"]


def test_a_base_that_solves_no_type_is_told_of(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    one, abilities = bench.run(), Abilities.read(["arena"])
    with pytest.warns(UserWarning, match=r"solves no type of the arena's problems \(at least 50% of 8\)"):
        abilities.make(one)
    assert list(abilities.measure(one)) == []


@pytest.fixture
def recipe(small, files, llama, tmp_path):
    replay = {"name": "self_replay", "n_texts": 4, "max_tokens": 4}
    learner = {"epochs": 1, "batch_size": 4, "learning_rate": 0.03}  # four steps a task
    changes = {"evaluation": {"abilities": ["self", *files[:2]]}, "seeds": [0, 1], "checkpoint": {"every_steps": 3}}
    return {**language_recipe([replay], llama, tmp_path, **changes), "learner": learner}


def test_a_run_measures_them_before_the_first_task_and_after_each(recipe, files, tmp_path):
    results = run(recipe, tmp_path / "out")
    lines = [line for line in lines_of(tmp_path / "out") if line["type"] == "ability"]
    names = ["self", *files[:2]]
    assert [(line["seed"], line["after"], line["trained"], line["task"]) for line in lines] == [
        (seed, after, trained, name)
        for seed in (0, 1)
        for after, trained in ((-1, None), (0, "add_0"), (1, "add_1"))
        for name in names
    ]
    first, second = ([line["outcomes"] for line in lines if line["seed"] == seed][:3] for seed in (0, 1))
    assert first == second  # of one base, measured on the same texts
    entry = results["seeds"][1]["abilities"]["self"]
    assert entry["values"] == [line["value"] for line in lines if (line["seed"], line["task"]) == (1, "self")][1:]
    assert results["abilities"]["self"]["after"]["mean"] < results["abilities"]["self"]["before"]["mean"]
    assert list(results["abilities"]) == names


def test_killed_at_any_moment_and_resumed_it_measures_the_same(recipe, tmp_path):
    run(recipe, tmp_path / "whole")
    for moment in (4, 5, 9):  # before the first task was scored, after it, and as the second seed begins
        out = tmp_path / str(moment)
        with pytest.raises(Stopped):
            run(recipe, out, listener=StopAfter(moment))
        resume(out)
        assert lines_of(out) == lines_of(tmp_path / "whole"), moment
    assert_same(final_weights(out, 1), final_weights(tmp_path / "whole", 1))


def test_what_is_learned_is_the_same_without_them(recipe, tmp_path):
    run(recipe, tmp_path / "with")
    run({**recipe, "evaluation": {}}, tmp_path / "without")
    assert_same(final_weights(tmp_path / "with"), final_weights(tmp_path / "without"))
    scores = [line for line in lines_of(tmp_path / "with") if line["type"] not in ("ability", "header")]
    assert scores == [line for line in lines_of(tmp_path / "without") if line["type"] != "header"]
    assert "abilities" not in json.loads((tmp_path / "without" / "results.json").read_text())
    assert not (tmp_path / "without" / "abilities").exists()


def test_with_all_weights_trained_what_is_kept_is_compared(small, llama, tmp_path):
    recipe = language_recipe([], llama, tmp_path, evaluation={"abilities": ["self"]})
    recipe["model"]["adapter"] = {"name": "full"}
    with pytest.raises(Stopped):
        run(recipe, tmp_path / "out", listener=StopAfter(10))
    resume(tmp_path / "out")
    values = [line["value"] for line in lines_of(tmp_path / "out") if line["type"] == "ability"]
    assert abs(values[0]) < 1e-5
    assert values[1] < -0.01
    assert values[2] < -0.01


def test_measuring_draws_nothing(small, llama, bert):
    bench = make_bench("causal_lora", llama, bert, dropout=0.5)
    one, abilities = bench.run(), Abilities.read(["self"])
    one.model.network.train()
    state = torch.get_rng_state()
    abilities.make(one)
    first = list(abilities.measure(one))
    assert list(abilities.measure(one)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert one.model.network.training


def test_methods_that_choose_by_the_task_can_be_watched(small, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    for name in ("hat", "packnet", "progressive_prompts", "separate"):
        one, abilities = bench.run([name], epochs=1), Abilities.read(["self"])
        abilities.make(one)
        (before,) = abilities.measure(one)
        (after,) = abilities.measure(bench.learn(one, upto=1))
        assert abs(before.value) < 1e-5, name
        assert after.value < -1e-4, name
