"""Real processes, killed at random moments and resumed until they are done: the result is that of one that never was.

The children are forked from a server that has imported everything once, so that a kill costs tenths of a second.
"""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from everlearn.experts import Library
from everlearn.runs import run
from everlearn.state import checkpoints, load_state, named_files, read_json
from support.experts import state_of
from support.labelled import delayed, labelled_mapping, labelled_row
from support.recipes import final_weights, language_recipe, lines_of, plain_recipe, reinforcement_recipe
from support.runs import assert_same
from support.topics import mock_broker, send
from support.worker import work

N_KILLS = {"plain": 16, "language": 8, "on_disk": 5, "experts": 5, "online": 8, "meta": 5, "policy": 5, "topic": 5}
PATIENCE_S = 120  # for one event, on a busy machine
CHECKPOINT = {"every_s": None, "every_steps": 3}


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.worker", "everlearn.streams.files", "everlearn.streams.digits", "peft"])
    return context


@pytest.fixture(scope="module")
def topic(bert):
    """Yield the recipe of a run over a topic whose rows get their labels later."""
    producer, servers = mock_broker()
    send(producer, "rows", delayed([labelled_row(number) for number in range(15)], "label", 3))
    source = {"name": "kafka", "topic": "rows", "servers": servers, "follow": False}
    yield labelled_mapping(bert, source, learner={"learning_rate": "adaptive", "batch_size": 2}, drift={})
    producer.flush(0)  # it holds the broker until here


@pytest.fixture(scope="module")
def recipes(llama, topic, tmp_path_factory):
    protection = [{"name": "replay", "capacity": 12}, {"name": "ewc", "n_examples": 16}]
    common = {"seeds": [0, 1], "checkpoint": CHECKPOINT, "evaluation": {"future": True}}
    plain = plain_recipe(protection, **common)
    plain["model"]["options"]["dropout"] = 0.2
    language = language_recipe(protection, llama, tmp_path_factory.mktemp("rows"), dropout=0.2, **common)
    on_disk = {**plain, "strategies": [{"name": "replay", "capacity": 12, "selection": "loss", "on_disk": True}]}
    experts = {**language, "strategies": [{"name": "experts", "share_first": 2}, protection[1]], "evaluation": {}}
    model = {"name": str(llama), "adapter": {"rank": 2, "dropout": 0.1}}
    online = {
        "source": {"name": "support.sources:Sums"}, "model": model, "learner": {"learning_rate": 0.01},
        "strategies": protection, "episodes": 12, "boundary": 5, "evaluation": {"n": 4, "interval": 4},
        "seeds": [0, 1], "checkpoint": CHECKPOINT, "device": "cpu",
    }  # fmt: skip
    meta = {
        "stream": language["stream"], "held_out": [language["stream"]["tasks"][1]["name"]], "model": model,
        "learner": {"first_order": True, "adaptation_steps": 2, "meta_batch_size": 1, "n_support": 4, "n_query": 4},
        "n_steps": 6, "evaluation": {"steps": [0, 2], "rates": {"sgd": [0.1]}}, "seeds": [0, 1],
        "checkpoint": CHECKPOINT, "device": "cpu",
    }  # fmt: skip
    replay = {"name": "replay", "capacity": 6}
    learner = {"advantage": "gae", "critic": "model", "updates": 2, "kl": 0.1, "reference": "last", "entropy": 0.01}
    policy = reinforcement_recipe(
        [replay, "ewc"], llama, tmp_path_factory.mktemp("problems"), learner=learner,
        **{**common, "checkpoint": {**CHECKPOINT, "every_steps": 1}},
    )  # fmt: skip
    return {
        "plain": plain, "language": language, "on_disk": on_disk, "experts": experts, "online": online,
        "meta": meta, "policy": policy, "topic": topic,
    }  # fmt: skip


@pytest.fixture(scope="module")
def wanted(recipes, tmp_path_factory):
    """Return the folders of the uninterrupted runs."""
    folders = {name: tmp_path_factory.mktemp("whole") / name for name in recipes}
    for name, recipe in recipes.items():
        run(recipe, folders[name])
    return folders


def start(server, recipe: dict, out: Path):
    ours, theirs = server.Pipe(duplex=False)
    child = server.Process(target=work, args=(recipe, out, theirs), daemon=True)
    child.start()
    theirs.close()
    return child, ours


def wait_for(pipe, n_events: int) -> str:
    """Return the last of up to `n_events` events, or the one that ended the run."""
    event = "none"
    for _ in range(n_events):
        assert pipe.poll(PATIENCE_S), "the child says nothing"
        event = pipe.recv()
        if event in ("done", "paused"):
            break
    return event


def without_seconds(path: Path) -> list[dict]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "env")} for line in found]


def check_policy_equal(out: Path, whole: Path) -> None:
    assert without_seconds(out / "iterations.jsonl") == without_seconds(whole / "iterations.jsonl")
    for seed in (0, 1):
        assert_same(final_weights(out, seed), final_weights(whole, seed))
    assert lines_of(out) == lines_of(whole)
    assert not list(out.rglob("*.tmp"))


def check_online_equal(out: Path, whole: Path) -> None:
    for name in ("episodes.jsonl", "evaluations.jsonl", "questions.jsonl"):
        assert without_seconds(out / name) == without_seconds(whole / name)
    assert_same(*(load_state(checkpoints(folder / "checkpoints")[-1])[0] for folder in (out, whole)))
    assert not list(out.rglob("*.tmp"))


def check_meta_equal(out: Path, whole: Path) -> None:
    for seed in (0, 1):
        assert_same(final_weights(out, seed), final_weights(whole, seed))
    assert read_json(out / "results.json")["scores"] == read_json(whole / "results.json")["scores"]
    assert not list(out.rglob("*.tmp"))


def check_equal(out: Path, whole: Path) -> None:
    for seed in (0, 1):
        assert_same(final_weights(out, seed), final_weights(whole, seed))
    assert lines_of(out) == lines_of(whole)
    assert read_json(out / "results.json")["summary"] == read_json(whole / "results.json")["summary"]
    assert not list(out.rglob("*.tmp"))
    states = [*(out / "final").iterdir(), *checkpoints(out / "checkpoints")]
    named = set().union(*(named_files(read_json(folder / "values.json")) for folder in states))
    assert {path.name for path in (out / "memory").glob("*")} == named


@pytest.mark.parametrize("name", sorted(N_KILLS))
def test_killed_at_random_moments_it_ends_as_if_it_never_was(name, server, recipes, wanted, tmp_path):
    choose = random.Random(name)
    n_kills = n_chains = 0
    while n_kills < N_KILLS[name]:
        out = tmp_path / str(n_chains)
        n_chains += 1
        event = ""
        while event != "done":
            child, pipe = start(server, recipes[name], out)
            more = n_kills < N_KILLS[name]
            event = wait_for(pipe, choose.randint(1, 20) if more else 10**6)
            if event != "done":
                time.sleep(choose.random() * 0.02)  # into the step, the write or the rename that follows
                os.kill(child.pid, signal.SIGKILL)
                n_kills += 1
            child.join(PATIENCE_S)
            assert child.exitcode == (0 if event == "done" else -signal.SIGKILL)
        checks = {
            "online": check_online_equal,
            "topic": check_online_equal,
            "meta": check_meta_equal,
            "policy": check_policy_equal,
        }
        checks.get(name, check_equal)(out, wanted[name])
        for kept in (wanted[name] / "library").glob("seed-*"):
            state_then, state_now = (state_of(Library.open(f / "library" / kept.name)) for f in (wanted[name], out))
            assert state_then == state_now


def test_interrupted_it_pauses_at_the_next_step_and_goes_on(server, recipes, wanted, tmp_path):
    for n_events in (9, 14):  # in mid-task; the other, later
        child, pipe = start(server, recipes["plain"], tmp_path)
        assert wait_for(pipe, n_events) != "done"
        os.kill(child.pid, signal.SIGINT)
        assert wait_for(pipe, 10**6) == "paused"
        child.join(PATIENCE_S)
        assert child.exitcode == 0
    child, pipe = start(server, recipes["plain"], tmp_path)
    assert wait_for(pipe, 10**6) == "done"
    child.join(PATIENCE_S)
    check_equal(tmp_path, wanted["plain"])
