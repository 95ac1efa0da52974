"""How many of Countdown's test problems a model solves, group by group."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from everlearn.errors import StreamError, describe
from everlearn.evaluation.score import score_task
from everlearn.learners.devices import start_accelerator
from everlearn.models.load import ModelConfig, load_model
from everlearn.streams.files import load_task
from everlearn.streams.folders import find_tasks
from everlearn.streams.sampling import select_rows
from everlearn.types import Score, Task


def success_rates(
    model: str,
    data: Path,
    *,
    max_new_tokens: int = 1024,
    n: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
) -> Iterator[Score]:
    """Yield a model's score on each group's test problems, answered greedily; any right solution counts.

    Args:
        model: a folder, or a hub id.
        data: a folder as `everlearn countdown generate` writes it.
        max_new_tokens: of an answer.
        n: the first so many problems of a group; None for all.
        batch_size: problems answered at once.
        device: auto, cpu or cuda.

    Raises:
        StreamError: if there are no such files. ModelError: if the model can't be loaded.

    Cost: a forward pass over each prompt, and one for each token of the longest answer of a batch.
    """
    tasks = [_task(files.name, files.files.get("evaluation"), max_new_tokens) for files in find_tasks([data])]
    accelerator = start_accelerator(device=device)
    loaded = load_model(ModelConfig(name=model), tasks, device=accelerator.device.type)
    loaded.network.to(accelerator.device)
    for task in tasks:
        rows = task.evaluation if n is None else select_rows(task.evaluation, range(min(n, len(task.evaluation))))
        yield score_task(loaded, replace(task, evaluation=rows), "evaluation", accelerator, batch_size)


def _task(name: str, path: Path | None, max_new_tokens: int) -> Task:
    """Return a task that is only scored."""
    if path is None:
        raise StreamError(
            describe(f"task {name!r}", "has no test file", name, "Put a test.parquet beside train.parquet")
        )
    return load_task(
        name, path, path, allow_overlap=True, verifier="countdown", extra_columns=("numbers", "target", "operators"),
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
