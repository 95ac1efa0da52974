"""What hyperparameters are chosen on: the first tasks, rows held out of training, never an evaluation row."""

import pytest

from everlearn.bench.search import FirstTasks, Search, best, trial_content, trial_settings
from everlearn.errors import ConfigError
from everlearn.streams.digits import DigitsStream

ARENA = {"name": "arena", "types": ["math", "logic"], "n_train": 10, "n_validation": 4, "n_eval": 5}


def test_evaluation_rows_are_validation_rows():
    from everlearn.config import build

    whole = build("stream", ARENA, "stream").build()
    (first,) = FirstTasks(ARENA, 1).build()
    assert list(first.evaluation) == list(whole.tasks[0].validation)
    assert list(first.train) == list(whole.tasks[0].train)
    assert first.validation is None


def test_rows_are_held_out_of_training_where_there_are_none_to_validate_on():
    whole = DigitsStream(n_tasks=3).build().tasks[2]
    first = FirstTasks({"name": "digits", "n_tasks": 3, "order": [2, 0]}, 1).build().tasks[0]
    assert first.name == whole.name
    assert len(first.train) + len(first.evaluation) == len(whole.train)
    assert len(first.evaluation) == round(0.2 * len(whole.train))
    test_items = {tuple(row.tolist()) for row in whole.evaluation.x}
    held, trained = ({tuple(row.tolist()) for row in rows.x} for rows in (first.evaluation, first.train))
    assert not held & test_items
    assert not held & trained


def test_a_trial_is_the_cells_recipe_on_fewer_tasks():
    content = {"stream": dict(ARENA), "learner": {"name": "sft"}, "seeds": [0]}
    trial = trial_content(content, 1, 7)
    assert trial["stream"] == {"name": "everlearn.bench.search:FirstTasks", "of": ARENA, "n_tasks": 1, "seed": 7}
    assert trial["seeds"] == [7]
    assert trial["learner"] == {"name": "sft"}
    with pytest.raises(ConfigError, match="search: needs tasks"):
        trial_content({"source": {}}, 1, 0)
    assert trial_settings({"stream.per_task": 3, "learner.epochs": 2}) == {"stream.of.per_task": 3, "learner.epochs": 2}


def test_candidates_are_all_combinations_with_the_methods_own():
    search = Search({"learner.epochs": [1, 2]}, {"ewc": {"strategies.0.strength": [10, 100]}})
    assert search.candidates("none") == [{"learner.epochs": 1}, {"learner.epochs": 2}]
    assert len(search.candidates("ewc")) == 4
    assert search.candidates("ewc")[1] == {"learner.epochs": 1, "strategies.0.strength": 100}


def test_the_best_is_the_highest_and_the_first_of_equals():
    assert best([0.1, None, 0.5, 0.5]) == 2
    with pytest.raises(ConfigError, match="every trial failed"):
        best([None, None])
