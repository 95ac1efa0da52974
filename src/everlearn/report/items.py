"""The items that a model lost and gained since their task was learned, with what it answered then and now."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from everlearn.errors import StateError, describe
from everlearn.evaluation.answers import (
    Flip,
    flips_of,
    has_answers,
    kept_text,
    question_of,
    readable,
    right_answer,
    told,
)
from everlearn.report.matrix import NEVER, SeedMatrix
from everlearn.report.table import Grid
from everlearn.report.views import RunView
from everlearn.state import make_folder, read_json, write_json
from everlearn.types import Task

MOST_SHOWN = 10  # items of a task that were lost, and as many that were gained
_SHOWN_CHARACTERS = 300


def keep_items(run_folder: Path, seed: int, tasks: Iterable[Task]) -> None:
    """Write what each evaluation item of a seed asks and its right answer, cut, into the run's `items/`, once.

    Cost: reads every evaluation row of the tasks whose items are answered in words.
    """
    path = _items_file(run_folder, seed)
    if path.exists():
        return
    make_folder(path.parent)
    items = {
        task.name: [[kept_text(question_of(row)), kept_text(right_answer(task, row))] for row in task.evaluation]
        for task in tasks
        if has_answers(task)
    }
    write_json(path, items)


def read_items(run_folder: Path, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Return {task: question and right answer of each item} of a seed; empty where the run keeps no answers.

    Raises:
        StateError: if the file is damaged.
    """
    path = _items_file(run_folder, seed)
    if not path.exists():
        return {}
    content = read_json(path)
    try:
        return {task: [(str(question), str(right)) for question, right in items] for task, items in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        way_out = "Delete it: the report then leaves the items out"
        raise StateError(
            describe(str(path), "is no list of items for each task", type(content).__name__, way_out)
        ) from error


def items_grid(view: RunView) -> Grid:
    """Return the items of a run that were lost and gained since their task was learned first; no rows where there are
    none, or none are kept. Of several seeds it is the first."""  # fmt: skip
    title = f"Items of {view.name} that were lost and gained since they were learned"
    if not view.started:
        return Grid(title, (), ())
    matrix = view.started[0]
    flips = _flips(view, matrix, read_items(view.run.folder, matrix.seed))
    grid = flips_grid(title, flips, ("when learned", "in the end"))
    return replace(grid, note=f"Seed {matrix.seed}. {grid.note}")


def flips_grid(title: str, flips: Sequence[Flip], heads: tuple[str, str]) -> Grid:
    """Return items on which two models differ: of each task at most `MOST_SHOWN` lost and as many gained; the note
    counts them all.

    Args:
        heads: how the two answers are called.
    """
    rows, counts = [], []
    for task in dict.fromkeys(flip.task for flip in flips):
        own = [flip for flip in flips if flip.task == task]
        told = []
        for word, found in (("lost", [f for f in own if f.lost]), ("gained", [f for f in own if not f.lost])):
            rows += [_row(word, flip) for flip in found[:MOST_SHOWN]]
            told.append(f"{len(found)} {word}{_shown(len(found))}")
        counts.append(f"{task}: {', '.join(told)}.")
    return Grid(title, ("task", "question", "right answer", *heads), tuple(rows), " ".join(counts))


def _flips(view: RunView, matrix: SeedMatrix, items: dict[str, list[tuple[str, str]]]) -> list[Flip]:
    """Return the items on which the last scores differ from those when their task was learned first."""
    scores = {
        (result.after, result.score.task): result.score for result in view.run.scores if result.seed == matrix.seed
    }
    flips = []
    for task, learned_at in zip(matrix.tasks, matrix.learned_at, strict=True):
        then, now = (scores.get((step, task)) for step in (learned_at, matrix.last_step))
        if learned_at == NEVER or then is None or now is None or not (then.answers or now.answers):
            continue
        asked = [(question, right, None) for question, right in items.get(task, ())]
        if len(asked) == len(then.outcomes) == len(now.outcomes):
            flips += flips_of(asked, then, now)
    return flips


def _row(word: str, flip: Flip) -> tuple[str, ...]:
    texts = (readable(text, _SHOWN_CHARACTERS) for text in (flip.question, flip.right))
    before = told(flip.answer_before, flip.before, _SHOWN_CHARACTERS)
    after = told(flip.answer_after, flip.after, _SHOWN_CHARACTERS)
    return (f"{readable(flip.task, 100)}\n{word}", *texts, before, after)


def _shown(n: int) -> str:
    return f" ({MOST_SHOWN} shown)" if n > MOST_SHOWN else ""


def _items_file(run_folder: Path, seed: int) -> Path:
    return Path(run_folder) / "items" / f"seed-{seed}.json"
