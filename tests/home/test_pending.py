"""What a learning in progress keeps on the disk."""

from pathlib import Path

import pytest

from everlearn.config import CheckpointConfig
from everlearn.errors import StateError
from everlearn.home.gate import Gate
from everlearn.home.pending import Plan, keep_before, read_before, read_plan, read_task, write_pending
from everlearn.home.store import Store
from everlearn.home.tasks import TaskCard
from everlearn.types import Score

CARD = TaskCard("t", "prompt", metrics=("choice",), max_new_tokens=5)
PLAN = Plan(
    4, 2, CARD, {"name": "sft"}, ["none"], 7, Gate(0.1, "safe"), True, CheckpointConfig(every_steps=3), notes=["n"]
)
ROWS = {
    "train": [{"prompt": "a é", "completion": "b", "choices": ["b", "c"]}],
    "validation": [],
    "evaluation": [{"prompt": "c\u2028d", "completion": "e", "choices": None}],
}


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_pending(store, PLAN, ROWS)
    plan = read_plan(store)
    assert (plan.card, plan.gate, plan.checkpoint, plan.seed, plan.force) == (CARD, PLAN.gate, PLAN.checkpoint, 7, True)
    assert (plan.data["n_train"], plan.data["n_evaluation"], len(plan.data["train_sha256"])) == (1, 1, 64)
    task, new = read_task(store, plan, [{"prompt": "old", "completion": "x"}])
    assert (task.train, new, task.validation) == (ROWS["train"], ROWS["evaluation"], None)
    assert [row["prompt"] for row in task.evaluation] == ["old", "c\u2028d"]
    assert (task.metrics, task.max_new_tokens) == (("choice",), 5)


def test_scores_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_pending(store, PLAN, ROWS)
    assert read_before(store) is None
    scores = {"t": Score("t", "choice", 0.5, None, 0.25, 2, (1.0, 0.0), {"choice": 0.5})}
    keep_before(store, scores)
    assert read_before(store) == scores


def test_damaged_plan(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_pending(store, PLAN, ROWS)
    path = store.pending / "plan.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(StateError, match=r"plan\.json: can't be read"):
        read_plan(store)
