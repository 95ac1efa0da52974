"""Labelled rows that are learned as they come: scored before, classes that appear, answers that come later, resumed."""

import json
import os
import signal
import threading
import time

import pytest

from everlearn.errors import ConfigError, Paused, StreamError
from everlearn.listener import Listener
from everlearn.runs import resume, run
from everlearn.state import checkpoints, load_state
from everlearn.types import Episode
from support.labelled import delayed, labelled_recipe, labelled_row, scored_row, tagged_row, write_rows
from support.runs import Stopped, assert_same

LABELLED = [labelled_row(number) for number in range(16)]


def lines(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found if line.get("type") != "header"]


def assert_equal_ends(one, other):
    for name in ("episodes.jsonl", "evaluations.jsonl", "questions.jsonl"):
        assert lines(one / name) == lines(other / name)
    assert_same(*(load_state(checkpoints(folder / "checkpoints")[-1])[0] for folder in (one, other)))


@pytest.fixture
def source(tmp_path):
    return {"name": "rows", "path": str(write_rows(tmp_path / "rows.jsonl", LABELLED))}


class StopAt(Listener):
    """Stops a run, as a crash would, at an episode."""

    def __init__(self, n: int):
        self.left = n

    def episode(self, done: int, n_episodes: int | None, episode: Episode) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped

    def inform(self, text: str) -> None:
        pass


def test_every_row_is_scored_before_it_is_learned_and_classes_appear_on_the_way(bert, source, tmp_path):
    out = tmp_path / "run"
    results = run(labelled_recipe(bert, source), out)
    assert results == json.loads((out / "results.json").read_text())
    assert (results["complete"], results["rows"], results["n"]) == (True, "classify", 16)
    episodes = lines(out / "episodes.jsonl")
    assert [line["answer"] for line in episodes] == [row["label"] for row in LABELLED]
    assert [line["correct"] for line in episodes] == [float(line["answer"] == line["before"]) for line in episodes]
    assert episodes[0]["before"] is None  # no label was known
    assert episodes[1]["before"] == "red"  # the only one
    first_blue = next(i for i, row in enumerate(LABELLED) if row["label"] == "blue")
    assert {line["before"] for line in episodes[1 : first_blue + 1]} <= {"red", "green"}
    right = sum(line["correct"] for line in episodes)
    assert results["score"]["value"] == pytest.approx(right / 16)
    assert results["seeds"][0]["labels"] == ["red", "green", "blue"]
    state = load_state(checkpoints(out / "checkpoints")[-1])[1]
    grown = [arguments["labels"] for operation, arguments in state["structure"] if operation == "labels"]
    assert grown == [["red"], ["red", "green"], ["red", "green", "blue"]]


def test_the_same_rows_are_learned_better_the_second_time(bert, tmp_path):
    source = {"name": "rows", "path": str(write_rows(tmp_path / "rows.jsonl", LABELLED * 6))}
    model = {"name": str(bert), "adapter": {"name": "full"}}
    results = run(labelled_recipe(bert, source, model=model), tmp_path / "run")
    outcomes = [line["correct"] for line in lines(tmp_path / "run" / "episodes.jsonl")]
    assert sum(outcomes[-32:]) > sum(outcomes[:32]) + 4
    assert results["whole"]["accuracy"] > results["whole"]["majority"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("label", {"boundary": 4}),
        ("label", {"learner": {"learning_rate": "adaptive", "batch_size": 3, "updates": 2}}),
        ("label", {"drift": {"detector": {"name": "page_hinkley", "threshold": 0.4, "min_values": 3},
                             "actions": ["boundary", "raise_rate"]}}),
        ("tags", {"learner": {"learning_rate": 0.01, "batch_size": 2}}),
        ("score", {}),
        ("score", {"learner": {"learning_rate": 0.01, "batch_size": 8}}),
    ],
)  # fmt: skip
def test_stopped_anywhere_it_ends_like_one_that_never_was(bert, tmp_path, kind, changes):
    made_rows = {"label": labelled_row, "tags": tagged_row, "score": scored_row}
    rows = [made_rows[kind](number) for number in range(16 if kind != "score" else 26)]
    path = write_rows(tmp_path / "rows.jsonl", delayed(rows, kind, 3))
    strategies = [{"name": "replay", "capacity": 6}, {"name": "ewc", "n_examples": 4}]
    source = {"name": "rows", "path": str(path), "kind": {"label": "classify", "tags": "tag"}.get(kind, kind)}
    made = labelled_recipe(bert, source, strategies=strategies, **changes)
    wanted, out = tmp_path / "whole", tmp_path / "stopped"
    results = run(made, wanted)
    assert results["n"] == len(rows) - 3
    assert results["seeds"][0]["n_waiting"] == 3
    for n in (5, 1, 4, 3):
        with pytest.raises(Stopped):
            resume(out, StopAt(n)) if out.exists() else run(made, out, listener=StopAt(n))
    resume(out)
    assert_equal_ends(out, wanted)


def test_a_row_whose_answer_comes_later_is_scored_by_what_was_answered_at_first(bert, tmp_path):
    known = [{**row, "label": LABELLED[i % 2]["label"]} for i, row in enumerate(LABELLED[:4])]
    question = {"id": "late", "text": "two cat is"}
    path = write_rows(tmp_path / "rows.jsonl", [*known, question, *LABELLED[4:12], {"id": "late", "label": "green"}])
    run(labelled_recipe(bert, {"name": "rows", "path": str(path)}), tmp_path / "run")
    (asked,) = lines(tmp_path / "run" / "questions.jsonl")
    last = lines(tmp_path / "run" / "episodes.jsonl")[-1]
    assert (asked["id"], last["id"]) == ("late", "late")
    assert last["before"] == asked["answer"]
    memory = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]["strategies"]["replay"]["memory_"]
    assert all(set(row) == {"text", "text_pair", "label"} for row in memory["stream"]["rows"])


def test_tags_are_scored_by_entities(bert, tmp_path):
    rows = [tagged_row(number) for number in range(12)]
    source = {"name": "rows", "path": str(write_rows(tmp_path / "rows.jsonl", rows * 4))}
    model = {"name": str(bert), "adapter": {"name": "full"}}
    results = run(labelled_recipe(bert, source, model=model), tmp_path / "run")
    assert (results["rows"], results["score"]["name"]) == ("tag", "entity_f1")
    assert results["faded"]["entity_f1"] > 0.5
    episodes = lines(tmp_path / "run" / "episodes.jsonl")
    assert episodes[0]["answer"] == ["B-place", "O", "O", "O"]
    assert results["seeds"][0]["labels"] == ["B-place", "O", "B-person"]


def test_numbers_are_learned_in_the_scale_of_the_first_rows(bert, tmp_path):
    rows = [{"text": row["text"], "score": 50.0 + 20 * (row["label"] == "red")} for row in LABELLED]
    source = {"name": "rows", "path": str(write_rows(tmp_path / "rows.jsonl", rows * 6))}
    model = {"name": str(bert), "adapter": {"name": "full"}}
    results = run(labelled_recipe(bert, source, model=model), tmp_path / "run")
    assert (results["rows"], results["score"]["name"]) == ("score", "mean_error")
    episodes = lines(tmp_path / "run" / "episodes.jsonl")
    assert (episodes[0]["before"], episodes[0]["correct"], episodes[0]["answer"]) == (None, None, rows[0]["score"])
    errors = [abs(line["before"] - line["answer"]) for line in episodes[1:]]
    assert results["whole"]["mean_error"] == pytest.approx(sum(errors) / 95)
    assert sum(errors[-32:]) / 32 < 0.6 * results["whole"]["running_mean"]
    state = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]
    (first, second) = (arguments for name, arguments in state["structure"] if name == "scale" and arguments["mean"])
    assert (first["mean"], first["std"]) == (70.0, 70.0)
    assert second["mean"] == pytest.approx(sum(row["score"] for row in (rows * 2)[:20]) / 20)


def test_declared_labels_have_room_from_the_start(bert, source, tmp_path):
    made = labelled_recipe(bert, {**source, "labels": ["blue", "green", "red"]}, episodes=4)
    run(made, tmp_path / "run")
    state = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]
    assert [arguments["labels"] for name, arguments in state["structure"] if name == "labels"] == [
        ["blue", "green", "red"]
    ]
    assert lines(tmp_path / "run" / "episodes.jsonl")[0]["before"] in ("blue", "green", "red")


def test_a_batch_that_waits_for_its_rows_is_kept_when_it_is_paused(bert, tmp_path):
    def made(path, **changes):
        source = {"name": "rows", "path": str(path), "labels": ["red", "green", "blue"], **changes}
        learner = {"learning_rate": 0.01, "batch_size": 4}
        return labelled_recipe(bert, source, learner=learner, boundary=8, episodes=10)

    run(made(write_rows(tmp_path / "all.jsonl", LABELLED[:10])), tmp_path / "whole")
    growing = made(write_rows(tmp_path / "rows.jsonl", LABELLED[:6]), follow=True)

    class Interrupt(Listener):
        def episode(self, done, n_episodes, episode):
            if done == 4:  # two more are read, and wait for others
                threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(Paused):
        run(growing, tmp_path / "run", listener=Interrupt())
    context = load_state(checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]["context"]
    assert (context["n_done"], len(context["gathered"])) == (4, 2)
    write_rows(tmp_path / "rows.jsonl", LABELLED[6:10])
    resume(tmp_path / "run")
    assert lines(tmp_path / "run" / "episodes.jsonl") == lines(tmp_path / "whole" / "episodes.jsonl")


def test_a_bad_row_in_a_batch_costs_nothing_that_came_before_it(bert, tmp_path):
    def made(path):
        return labelled_recipe(bert, {"name": "rows", "path": str(path)}, learner={"batch_size": 4})

    run(made(write_rows(tmp_path / "whole.jsonl", LABELLED)), tmp_path / "whole")
    path = write_rows(tmp_path / "rows.jsonl", [*LABELLED[:7], {"text": 7}, *LABELLED[8:]])
    with pytest.raises(StreamError, match="line 8: bad row"):
        run(made(path), tmp_path / "run")
    path.unlink()
    write_rows(tmp_path / "rows.jsonl", LABELLED)
    resume(tmp_path / "run")
    assert lines(tmp_path / "run" / "episodes.jsonl") == lines(tmp_path / "whole" / "episodes.jsonl")


def test_a_folder_is_watched(bert, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.jsonl", LABELLED[:3])

    class Lay(Listener):
        def episode(self, done, n_episodes, episode):
            if done == 3:
                write_rows(folder / ".b", LABELLED[3:7])
                time.sleep(0.05)
                (folder / ".b").rename(folder / "b.jsonl")

    source = {"name": "rows", "path": str(folder), "follow": True, "kind": "classify"}
    results = run(labelled_recipe(bert, source, episodes=7), tmp_path / "run", listener=Lay())
    assert results["n"] == 7


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        ([{"text": "a"}], {}, "column 'label' is missing, and without an 'id'"),
        ([{"sentence": "a"}], {}, r"source.kind: its first row tells no kind. Got {'sentence': 'a'}"),
        ([], {}, "source.kind: its first row tells no kind .there is none."),
        ([{"id": 1, "text": "a"}] * 2, {}, "a question with the id '1' waits already"),
        ([{"text": "a", "label": "x"}], {"labels": ["y"]}, "unknown label 'x'"),
        ([{"id": 1, "text": "a"}, {"id": 1, "label": "x"}], {"labels": ["y"]}, "unknown label 'x'"),
    ],
)
def test_a_row_that_can_not_be_learned_is_named(bert, tmp_path, rows, source, message):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(StreamError, match=message):
        run(labelled_recipe(bert, {"name": "rows", "path": str(path), **source}), tmp_path / "run")


def test_labelled_rows_have_no_held_out_ones(bert, source, tmp_path):
    made = labelled_recipe(bert, {**source, "kind": "classify", "held_out_path": source["path"]})
    with pytest.raises(ConfigError, match=r"source\.held_out_path: labelled rows have no held-out ones"):
        run(made, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"source\.held_out_path: prompts need held-out ones"):
        run(labelled_recipe(bert, {**source, "kind": "prompt"}), tmp_path / "other")
