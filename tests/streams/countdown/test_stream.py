"""Countdown as a stream of tasks."""

import doctest

import pytest
import yaml

from everlearn.cli import main
from everlearn.errors import ConfigError, StreamError
from everlearn.registry import find
from everlearn.streams.countdown import stream as module
from everlearn.streams.countdown.stream import CountdownStream
from everlearn.streams.countdown.verify import verify


@pytest.fixture(scope="module")
def stream():
    return CountdownStream(n_train=100, n_eval=30).build()


def test_the_examples():
    assert doctest.testmod(module).failed == 0


def test_a_task_a_group(stream):
    assert find("stream", "countdown") is CountdownStream
    assert [task.name for task in stream] == ["0", "1", "2", "3"]
    for task in stream:
        assert (task.kind, task.verifier) == ("prompt", "countdown")
        assert (len(task.train), len(task.evaluation)) == (100, 30)


@pytest.mark.parametrize("tags", ["both", "none"])
@pytest.mark.parametrize("prompt", ["short", "instruct"])
def test_planted_answers_are_right(tags, prompt):
    (task,) = CountdownStream(("2",), n_train=20, n_eval=5, sizes=(3, 4), tags=tags, prompt=prompt).build()
    for row in [*task.train, *task.evaluation]:
        assert row["prompt"].endswith("<answer>") == (tags == "none")
        assert ("answer" in row["completion"]) == (tags == "both")
        assert verify(row["completion"], row)
        assert not verify(row["completion"].replace(str(row["numbers"][0]), "999"), row)
    assert {len(row["numbers"]) for row in task.train} == {3, 4}


def test_no_evaluation_item_is_trained_on(stream):
    def names(rows):
        return {(tuple(sorted(row["numbers"])), row["target"]) for row in rows}

    trained = set().union(*(names(task.train) for task in stream))
    asked = set().union(*(names(task.evaluation) for task in stream))
    assert not trained & asked


def test_the_same_fields_build_the_same_stream(stream):
    assert CountdownStream(n_train=100, n_eval=30).build() == stream
    assert CountdownStream(n_train=100, n_eval=30, data_seed=1).build() != stream


def test_too_few_problems_are_told():
    with pytest.raises(StreamError, match="has too few problems"):
        CountdownStream(("0",), max_number=5).build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": ("5",)}, "group: is no group"),
        ({"n_train": 0}, "n_train: is out of range"),
        ({"data_seed": -1}, "data_seed: is out of range"),
        ({"prompt": "long"}, "prompt: is unknown"),
        ({"tags": "one"}, "tags: is unknown"),
        ({"sizes": (2,)}, "sizes: are no different sizes"),
    ],
)
def test_what_it_refuses(fields, message):
    with pytest.raises(ConfigError, match=message):
        CountdownStream(**fields)


def test_a_recipe_learns_it(llama, tmp_path, capsys):
    recipe = {
        "stream": {"name": "countdown", "groups": [0], "n_train": 8, "n_eval": 2, "max_number": 9},
        "model": {"name": str(llama), "adapter": {"rank": 2}},
        "learner": {"name": "sft", "learning_rate": 0.01, "batch_size": 4, "epochs": 1},
        "device": "cpu",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert "average accuracy" in capsys.readouterr().out
