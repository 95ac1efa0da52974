"""Online runs over the rows of a file that grows: nothing that was learned is lost, and rows keep what they say."""

import json
import os
import signal
import threading
import time

import pytest

from everlearn.errors import ConfigError, Paused, StreamError
from everlearn.kinds.online import load_online_recipe
from everlearn.listener import Listener
from everlearn.runs import resume, run
from everlearn.state import checkpoints, load_state
from everlearn.types import Episode
from support.runs import assert_same


def row(number, **more):
    return {"prompt": f"{number}+1=", "completion": str(number + 1), **more}


def add(path, rows):
    with open(path, "a") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


@pytest.fixture
def recipe(llama, tmp_path):
    add(tmp_path / "held_out.jsonl", [row(50 + n, type="sum") for n in range(4)])

    def made(path="rows.jsonl", strategies=(), source=None, **changes):
        path = path if path == "-" else str(tmp_path / path)
        return load_online_recipe(
            {
                "source": {
                    "name": "rows", "path": path, "held_out_path": str(tmp_path / "held_out.jsonl"),
                    "max_new_tokens": 2, **(source or {}),
                },
                "model": {"name": str(llama), "adapter": {"rank": 2, "dropout": 0.1}},
                "learner": {"learning_rate": 0.01},
                "strategies": list(strategies),
                "episodes": 100, "boundary": 4, "evaluation": {"n": 4, "interval": 3},
                "checkpoint": {"every_s": None}, "device": "cpu", **changes,
            }
        )  # fmt: skip

    return made


class After(Listener):
    """Does something in a thread when so many problems are learned; `n_scorings` before that, with 0."""

    def __init__(self, n, action):
        self.n, self.thread = n, threading.Thread(target=action)

    def episode(self, done: int, n_episodes: int, episode: Episode) -> None:
        if done == self.n:
            self.thread.start()

    def scoring(self, task) -> None:
        if self.n == 0 and not self.thread.ident:
            self.thread.start()


def interrupt_soon():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)


def lines(path):
    return [{**json.loads(line), "seconds": None} for line in path.read_text().splitlines()][-100:]


@pytest.mark.parametrize("n", [3, 4])  # in a task, and where one may end
def test_ctrl_c_while_waiting_keeps_what_was_learned(recipe, tmp_path, n):
    strategies = [{"name": "replay", "capacity": 6}, {"name": "ewc", "n_examples": 4}]
    add(tmp_path / "all.jsonl", [row(i) for i in range(7)])
    run(recipe("all.jsonl", strategies), tmp_path / "whole")
    add(tmp_path / "rows.jsonl", [row(i) for i in range(n)])
    growing = recipe("rows.jsonl", strategies, {"follow": True, "idle_s": 20})
    with pytest.raises(Paused):
        run(growing, tmp_path / "run", listener=After(n, interrupt_soon))
    assert load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]["context"]["n_done"] == n
    add(tmp_path / "rows.jsonl", [row(i) for i in range(n, 7)])
    with pytest.raises(Paused):  # once more, behind the last row
        resume(tmp_path / "run", After(7, interrupt_soon))
    folders = [tmp_path / "whole", tmp_path / "run"]
    assert lines(folders[0] / "episodes.jsonl") == lines(folders[1] / "episodes.jsonl")
    weights = [
        {
            name: t
            for name, t in load_state(checkpoints(out / "checkpoints")[-1])[0].items()
            if name.startswith("run/weights")
        }
        for out in folders
    ]
    assert_same(*weights)


def test_what_was_learned_is_saved_while_the_next_row_is_waited_for(recipe, tmp_path):
    out, found = tmp_path / "run", []
    add(tmp_path / "rows.jsonl", [row(i) for i in range(3)])

    def look():
        ends = time.monotonic() + 30
        while time.monotonic() < ends and not found:
            saved = checkpoints(out / "checkpoints")
            if saved and load_state(saved[-1])[1]["context"]["n_done"] == 3:
                found.append(True)
            time.sleep(0.02)
        add(tmp_path / "rows.jsonl", [row(3)])

    made = recipe(source={"follow": True, "idle_s": 31}, episodes=4, checkpoint={"every_s": 0.2})
    watch = After(3, look)
    assert run(made, out, listener=watch)["seeds"][0]["n_episodes"] == 4
    watch.thread.join()
    assert found


def test_ctrl_c_before_the_first_row_pauses_at_once(recipe, tmp_path):
    (tmp_path / "rows.jsonl").touch()
    started = time.monotonic()
    with pytest.raises(Paused):
        run(recipe(source={"follow": True, "idle_s": 30}), tmp_path / "run", listener=After(0, interrupt_soon))
    assert time.monotonic() - started < 25
    add(tmp_path / "rows.jsonl", [row(1)])
    with pytest.raises(Paused):
        resume(tmp_path / "run", After(1, interrupt_soon))
    assert len(lines(tmp_path / "run" / "episodes.jsonl")) == 1


def test_rows_may_say_their_type_and_difficulty(recipe, tmp_path):
    rows = [row(i, type="even" if i < 4 else "odd", difficulty=1 + i % 2 * 8) for i in range(8)]
    add(tmp_path / "rows.jsonl", rows)
    made = recipe(boundary="type", learner={"learning_rate": 0.01, "rate_by_difficulty": True})
    results = run(made, tmp_path / "run")
    found = lines(tmp_path / "run" / "episodes.jsonl")
    assert [line["type"] for line in found] == ["even"] * 4 + ["odd"] * 4
    assert [line["learning_rate"] for line in found] == pytest.approx([0.01, 0.006] * 4)
    assert set(results["by_type"]) == {"sum"}


@pytest.mark.parametrize(
    ("bad", "changes", "message"),
    [
        (row(1, difficulty="hard"), {}, r"rows.jsonl line 1: bad row: difficulty is str \('hard'\), not a number"),
        (row(1, difficulty=float("nan")), {}, "difficulty is NaN"),
        (row(1, type=3), {}, "type is int, not text"),
        (row(1), {"boundary": "type"}, r"boundary: a row has no type. Got '1\+1='"),
        (row(1, content="x"), {}, None),
        ({**row(51), "prompt": "51+1= \r\n"}, {}, "a held-out problem comes up for learning"),
        (row(50, content="new"), {}, "a held-out problem comes up for learning"),
        ({**row(1), "prompt": "one more than one?", "content": "same"}, {}, "a held-out problem comes up for learning"),
    ],
)
def test_a_row_that_can_not_be_learned_is_named(recipe, tmp_path, bad, changes, message):
    add(tmp_path / "held_out.jsonl", [row(90, content="same", type="sum")])
    add(tmp_path / "rows.jsonl", [bad])
    made = recipe(**{"evaluation": {"n": 5, "interval": 3}, **changes})
    if message is None:
        assert run(made, tmp_path / "run")["complete"]
        return
    with pytest.raises(StreamError, match=message):
        run(made, tmp_path / "run")


def test_standard_input_is_for_one_seed(recipe):
    with pytest.raises(ConfigError, match="seeds: standard input can be read once only"):
        recipe("-", seeds=[0, 1])
