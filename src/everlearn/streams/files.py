"""Tasks from JSON Lines, CSV and Parquet files, or from rows in memory.

The rows of a task follow the ecosystem's columns: `prompt` and `completion`, or `messages`; `prompt`, `chosen` and
`rejected`; `text` (and `text_pair`) and `label`, `labels` or `score`; `tokens` and `tags`; `text` alone.

>>> rows = [{"text": "It broke.", "label": "bad"}, {"text": "Works well.", "label": "good"}]
>>> task = load_task("reviews", rows, [{"text": "It works.", "label": "good"}])
>>> task.kind, task.labels, task.train[0]
('classify', ('bad', 'good'), {'text': 'It broke.', 'label': 0})
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from everlearn.errors import ConfigError, describe, nearest
from everlearn.registry import register
from everlearn.streams.folders import TaskFiles, find_tasks
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.reading import Data
from everlearn.types import Stream, Task

_ENTRY_FILES = ("train", "eval", "validation")
_ENTRY_OPTIONS = tuple(option.name for option in fields(TaskOptions))


def load_task(
    name: str,
    train: Data,
    evaluation: Data | None = None,
    *,
    validation: Data | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    choices: Sequence[str] = (),
    verifier: str | None = None,
    max_new_tokens: int | None = None,
    threshold: str | None = None,
    beta: float = 0.1,
    description: str | None = None,
    extra_columns: Sequence[str] = (),
    eval_fraction: float = 0.2,
    validation_fraction: float | None = None,
    on_bad_row: str = "error",
    allow_overlap: bool = False,
) -> Task:
    """Return a task made of files (.jsonl, .csv, .tsv, .parquet), lists of dicts or `datasets.Dataset`s.

    Without `evaluation`, `eval_fraction` of the training rows is held out: those whose content's hash, as a fraction of
    the largest hash, is below it, so that equal rows stay together and a row stays where it is when others are added.
    The rows next in the hash's order are the validation rows, where a `validation_fraction` is given.

    Args:
        name: the task's name.
        train, evaluation, validation: path of a file, or rows in memory.
        columns, kind, labels, metrics, choices, verifier, max_new_tokens, threshold, beta, description,
            extra_columns, eval_fraction, validation_fraction, on_bad_row, allow_overlap: see `TaskOptions`.

    Returns:
        The task; its rows are `datasets.Dataset`s in memory, with the columns of its kind, labels as indices; those of
        chats, and with nested `extra_columns`, are `NestedRows` over one.

    Raises:
        StreamError: if a file can't be read, rows are bad (the first five with file, line and reason), or train and
            evaluation share content.
        ConfigError: if an option is not allowed.

    Cost: one pass over each file; memory about the size of the text, plus 120 bytes a row.
    """
    options = TaskOptions(
        columns=dict(columns or {}),
        kind=kind,
        labels=list(labels or ()),
        metrics=list(metrics),
        choices=list(choices),
        verifier=verifier,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        beta=beta,
        description=description,
        extra_columns=list(extra_columns),
        eval_fraction=eval_fraction,
        validation_fraction=validation_fraction,
        on_bad_row=on_bad_row,
        allow_overlap=allow_overlap,
    )
    return build_task(name, train, evaluation, validation, options)


@register("stream", "files")
@dataclass(frozen=True, kw_only=True)
class FileStream(TaskOptions):
    """A task a file, or a task a folder of train and test files.

    Args:
        paths: a folder, a file, or a list of both; `find_tasks` in `everlearn.streams.folders` tells which files make
            which task. Paths start at the working folder; `~` is the home folder.
        tasks: which tasks, in order: names of those found under `paths`, or mappings with `name`, `train`, and
            optionally `eval`, `validation` (paths) and any option of `TaskOptions`. Empty: all found.

    The other fields are the `TaskOptions` of every task.

    Raises:
        ConfigError: if a field is wrong.
    """

    paths: str | list[str] = field(default_factory=list)
    tasks: list[str | dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.paths and not self.tasks:
            way_out = "Give a folder, files, or tasks with their files"
            raise ConfigError(describe("stream.paths", "there is nothing to read", self.paths, way_out))
        for index, entry in enumerate(self.tasks):
            if not isinstance(entry, str):
                _check_entry(f"stream.tasks[{index}]", entry)

    def build(self) -> Stream:
        """Read all the files and return the stream.

        Raises:
            StreamError: if files are missing, unreadable, or hold bad rows.
            ConfigError: if `tasks` names one that is not under `paths`.
        """
        paths = [self.paths] if isinstance(self.paths, str) else self.paths
        found = find_tasks([Path(path).expanduser() for path in paths])
        if not self.tasks:
            return Stream("files", tuple(self._from_files(files) for files in found))
        return Stream("files", tuple(self._task(index, entry, found) for index, entry in enumerate(self.tasks)))

    def _task(self, index: int, entry: str | dict[str, Any], found: list[TaskFiles]) -> Task:
        if isinstance(entry, str):
            by_name = {files.name: files for files in found}
            if entry not in by_name:
                way_out = f"{nearest(entry, by_name)}Found: {', '.join(by_name) or 'none'}"
                raise ConfigError(describe(f"stream.tasks[{index}]", "is no task under stream.paths", entry, way_out))
            return self._from_files(by_name[entry])
        own = {name: value for name, value in entry.items() if name in _ENTRY_OPTIONS}
        options = replace(self._options(), **own)
        return build_task(entry["name"], entry["train"], entry.get("eval"), entry.get("validation"), options)

    def _from_files(self, files: TaskFiles) -> Task:
        roles = files.files
        return build_task(files.name, roles["train"], roles.get("evaluation"), roles.get("validation"), self._options())

    def _options(self) -> TaskOptions:
        return TaskOptions(**{name: vars(self)[name] for name in _ENTRY_OPTIONS})


def _check_entry(where: str, entry: object) -> None:
    if not isinstance(entry, Mapping):
        raise ConfigError(describe(where, "is neither a name nor a mapping", entry, "Write {name: ..., train: ...}"))
    allowed = ("name", *_ENTRY_FILES, *_ENTRY_OPTIONS)
    for key in entry:
        if key not in allowed:
            way_out = f"{nearest(key, allowed)}Keys: {', '.join(allowed)}"
            raise ConfigError(describe(f"{where}.{key}", "is no key of a task", key, way_out))
    for key in ("name", "train"):
        if not isinstance(entry.get(key), str):
            raise ConfigError(describe(f"{where}.{key}", "is missing or no text", entry.get(key), "Write a text"))
