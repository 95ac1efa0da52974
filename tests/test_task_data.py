"""A task's data in every form, and what says that a part has no place."""

import pytest
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, StreamError
from everlearn.task_data import TaskConfig, parts_of
from support.lifelong import moods
from support.tasks import classify_task

ROWS, HELD_OUT = moods(0)[:8], moods(0)[8:]


def test_parts_have_their_usual_names():
    loader = DataLoader(ROWS, 2)
    assert parts_of(ROWS) == {"train": ROWS}
    assert parts_of("a.csv") == {"train": "a.csv"}
    assert parts_of(loader) == {"train_loader": loader}
    for name in ("test", "evaluate", "evaluation", "eval", "val", "validation", "dev"):
        assert parts_of({"train": ROWS, name: HELD_OUT}) == {"train": ROWS, "evaluate": HELD_OUT}
    three = {"train": 1, "validation": 2, "test": 3}
    assert parts_of(three) == {"train": 1, "validation": 2, "evaluate": 3}
    assert parts_of((ROWS, HELD_OUT)) == {"train": ROWS, "evaluate": HELD_OUT}
    assert parts_of(tuple(ROWS[:2])) == {"train": tuple(ROWS[:2])}
    config = TaskConfig(train=ROWS, labels=["good", "bad"], eval_fraction=0.5)
    assert parts_of(config)["options"]["labels"] == ["good", "bad"]
    both = DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(HELD_OUT))
    assert set(parts_of(both)) == {"train", "evaluate"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": 1, "tset": 2}, r"part of an unknown name. Got 'tset'. Did you mean 'test'"),
        ({"train": 1, "test": 2, "eval": 3}, r"names its evaluate rows twice"),
        ({"test": 2}, r"has nothing to train on. Got \['test'\]"),
        ({"text": "a", "label": "b"}, r"unknown name. Got 'text'.*rows are a list of mappings"),
    ],
)
def test_a_mapping_that_is_none_of_parts(data, message):
    with pytest.raises(StreamError, match=message):
        parts_of(data)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="eval_fraction"):
        TaskConfig(train=ROWS, eval_fraction=3)


@pytest.mark.filterwarnings("ignore:Task .* nothing was learned")
def test_all_forms_teach_the_same(bert):
    def pairs(samples):
        return [sample["text"] for sample in samples], [sample["label"] for sample in samples]

    def columns(samples):
        return {name: [sample[name] for sample in samples] for name in samples[0]}

    task = classify_task(0)
    task_rows = [{**row, "label": task.labels[row["label"]]} for row in [*task.train, *task.evaluation]]
    forms = [
        {"train": ROWS, "test": HELD_OUT},
        (Dataset.from_list(ROWS), Dataset.from_list(HELD_OUT)),
        TaskConfig(train=ROWS, evaluate=HELD_OUT),
        (DataLoader(ROWS, 4), DataLoader(HELD_OUT, 4)),
        (DataLoader([(row["text"], row["label"]) for row in ROWS], 4), HELD_OUT),
        *((DataLoader(ROWS, 4, shuffle=True, collate_fn=make), HELD_OUT) for make in (pairs, columns, list)),
    ]
    scores = []
    for form in forms:
        trainer = ContinualTrainer(str(bert), learner={"epochs": 1, "batch_size": 4}, progress=False)
        scores.append(trainer.train_task("mood", **parts_of(form)))
    assert all(score == scores[0] for score in scores)
    made, read = (ContinualTrainer(str(bert), learner={"epochs": 1}, progress=False) for _ in range(2))
    told = made.train_task("mood", **parts_of(task))
    assert told == read.train_task("mood", train=task_rows[: len(task.train)], evaluate=task_rows[len(task.train) :])
    with pytest.raises(StreamError, match="a task brings all its rows"):
        made.train_task("again", train=task, evaluate=HELD_OUT)
