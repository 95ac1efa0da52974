"""The arena as a stream of tasks."""

from unittest.mock import ANY

import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.registry import find
from everlearn.streams.arena.generate import ADVANCED_TYPES, TYPES, problem_at
from everlearn.streams.arena.problem import verify
from everlearn.streams.arena.stream import ArenaStream, check_disjoint


@pytest.fixture(scope="module")
def stream():
    return ArenaStream().build()


def test_five_tasks_in_order_with_the_default_sizes(stream):
    assert tuple(task.name for task in stream) == TYPES
    for task in stream:
        assert (task.kind, task.verifier) == ("prompt", "arena")
        assert (len(task.train), len(task.validation), len(task.evaluation)) == (300, 40, 100)
        assert task.max_new_tokens >= 8


def test_rows_carry_right_answers(stream):
    for task in stream:
        for row in task.evaluation:
            assert row["prompt"].endswith("\nAnswer:")
            assert row["completion"].startswith(" ")
            assert verify(row["completion"], row)
            assert "choices" not in row or sum(verify(choice, row) for choice in row["choices"]) == 1


def test_no_prompt_occurs_twice_in_a_task(stream):
    for task in stream:
        prompts = [row["prompt"] for row in [*task.train, *task.validation, *task.evaluation]]
        assert len(set(prompts)) == len(prompts)


def test_pools_stay_disjoint_over_seeds():
    for name in TYPES:
        trained = ArenaStream(types=(name,), n_train=200, data_seed=0).build().tasks[0].train
        asked = ArenaStream(types=(name,), n_train=1, n_eval=100, data_seed=1).build().tasks[0].evaluation
        assert not {row["prompt"] for row in trained} & {row["prompt"] for row in asked}


def test_the_same_fields_build_the_same_stream(stream):
    assert ArenaStream().build() == stream
    assert ArenaStream(data_seed=1).build() != stream


def test_one_difficulty_is_enough_for_the_default_sizes():
    built = ArenaStream(difficulty=1).build()
    assert all(len(task.evaluation) == 100 for task in built)


def test_the_advanced_types_are_tasks_by_name():
    stream = ArenaStream(types=ADVANCED_TYPES, n_train=20, n_eval=20).build()
    assert tuple(task.name for task in stream) == ADVANCED_TYPES
    assert all(verify(row["completion"], row) for task in stream for row in task.evaluation)
    assert all(len(task.evaluation) == 100 for task in ArenaStream(types=ADVANCED_TYPES, difficulty=1).build())


def test_no_validation_items():
    (task,) = ArenaStream(types=("math",), n_validation=0, n_train=5, n_eval=5, difficulty=(2, 3)).build()
    assert task.validation is None


def test_shared_items_are_refused(monkeypatch):
    monkeypatch.setattr("everlearn.streams.arena.generate.pool_of", lambda *_: ANY)  # any item fits any pool
    with pytest.raises(StreamError, match="train and validation share an item"):
        ArenaStream(types=("math",), n_train=200, difficulty=1).build()


def test_a_shared_content_is_refused_by_name():
    problem = problem_at("math", 0, difficulty=1)
    with pytest.raises(StreamError, match=r"arena 'math': train and evaluation share an item\. Got"):
        check_disjoint("math", {"train": [problem], "evaluation": [problem]})
    check_disjoint("math", {"train": [problem], "evaluation": []})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"types": ()}, "arena.types"),
        ({"types": ("comparision",)}, "Did you mean 'comparison'"),
        ({"n_train": 0}, r"arena\.n_train: .* Got 0"),
        ({"n_eval": 1.5}, r"arena\.n_eval: .* Got 1.5"),
        ({"n_validation": -1}, r"arena\.n_validation"),
        ({"difficulty": 9}, r"arena\.difficulty: .* Got 9"),
        ({"data_seed": "x"}, r"arena\.data_seed"),
    ],
)
def test_a_bad_field_is_named_with_its_value(fields, message):
    with pytest.raises(ConfigError, match=message):
        ArenaStream(**fields)


def test_it_is_registered():
    assert find("stream", "arena") is ArenaStream
