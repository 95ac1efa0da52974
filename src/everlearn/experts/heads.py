"""Classifiers' heads on their way between a model, which has one for each task, and the experts that they belong to."""

from everlearn.experts.decisions import nearest_of
from everlearn.experts.library import Library
from everlearn.experts.record import Head
from everlearn.experts.router import Decision
from everlearn.models.adapters import Adapters
from everlearn.types import Task


def head_of(adapters: Adapters, task: str) -> Head | None:
    """Return a copy of a task's head in a model; None where it has none, as of a language model."""
    return Head.of(adapters, task) if task in adapters.task_blocks else None


def has_head(library: Library, expert: int, learned: str, adapters: Adapters, task: Task) -> bool:
    """Tell whether an expert can answer a task as it does one that it learned: a classifier needs the same labels."""
    return adapters.head is None or library.expert(expert).labels.get(learned) == list(task.outputs)


def lend_head(library: Library, decision: Decision, adapters: Adapters, task: Task) -> None:
    """Let a model's head for a task be that of the nearest one, where the labels are the same; else it stays."""
    near = nearest_of(decision)
    if near is not None and adapters.head is not None and has_head(library, near.expert, near.task, adapters, task):
        library.head(near.expert, near.task).copy_to(adapters, task.name)
