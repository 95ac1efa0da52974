"""Which files in a folder make which task, by their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from everlearn.errors import StreamError, describe
from everlearn.streams.reading import SUFFIXES

# word in a file's name -> what the file is for
ROLES = {
    "train": "train",
    "test": "evaluation",
    "eval": "evaluation",
    "evaluation": "evaluation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_WITH_ROLE = re.compile(rf"(?P<name>.+)[_.-](?P<role>{'|'.join(ROLES)})", re.IGNORECASE)


@dataclass
class TaskFiles:
    """The files of one task; without an evaluation file the train file is split."""

    name: str
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, role: str, path: Path) -> None:
        """Note that `path` plays `role`.

        Raises:
            StreamError: if another file plays it already.
        """
        other = self.files.setdefault(role, path)
        if other != path:
            way_out = "Remove or rename one, or list the tasks' files under 'tasks'"
            raise StreamError(
                describe(f"task {self.name!r}", f"there are two files for {role}", [str(other), str(path)], way_out)
            )


def find_tasks(paths: Sequence[Path]) -> list[TaskFiles]:
    """Return the tasks in these files and folders, a folder's sorted by name.

    - `NAME/train.*` with `NAME/test.*` or `NAME/eval.*`, and `NAME/validation.*` (valid, val, dev), is the task NAME;
    - `NAME_train.*` with `NAME_test.*` or `NAME_eval.*`, and `NAME_validation.*`, beside it, likewise;
    - any other file is a task by itself, named after the file, to be split.
    Where there is no test or eval file, the validation file is the evaluation.

    Raises:
        StreamError: if a path is missing, a folder holds no data file, or a test file has no train file beside it.
    """
    tasks: dict[tuple[Path, str], TaskFiles] = {}
    for path in paths:
        if path.is_dir():
            before = len(tasks)
            _from_folder(path, tasks)
            if len(tasks) == before:
                way_out = f"Put {', '.join(SUFFIXES)} files there, or folders with train and test files"
                raise StreamError(describe("stream.paths", "the folder holds no data file", str(path), way_out))
        elif path.exists():
            _from_file(path, tasks)
        else:
            raise StreamError(describe("stream.paths", "there is no such file or folder", str(path), "Check the path"))
    return [_complete(task) for task in tasks.values()]


def _from_folder(folder: Path, tasks: dict[tuple[Path, str], TaskFiles]) -> None:
    if any(path.stem.lower() == "train" for path in _data_files(folder)):
        _whole_folder(folder, tasks)
        return
    found: dict[tuple[Path, str], TaskFiles] = {}
    for path in folder.iterdir():
        if path.is_dir() and _data_files(path):
            _whole_folder(path, found)
    for path in _data_files(folder):
        _place(path, found)
    for key in sorted(found, key=lambda key: key[1]):
        tasks.setdefault(key, found[key])


def _whole_folder(folder: Path, tasks: dict[tuple[Path, str], TaskFiles]) -> None:
    task = tasks.setdefault((folder, folder.resolve().name), TaskFiles(folder.resolve().name))
    for path in _data_files(folder):
        role = ROLES.get(path.stem.lower())
        if role is None:
            way_out = f"Name the files {', '.join(ROLES)}, or list them under 'tasks'"
            raise StreamError(describe(f"task {task.name!r}", "a file's name tells no role", str(path), way_out))
        task.add(role, path)


def _from_file(path: Path, tasks: dict[tuple[Path, str], TaskFiles]) -> None:
    match = _WITH_ROLE.fullmatch(path.stem)
    _place(path, tasks)
    if match and ROLES[match["role"].lower()] == "train":
        for sibling in _data_files(path.parent):
            other = _WITH_ROLE.fullmatch(sibling.stem)
            if other and other["name"] == match["name"]:
                _place(sibling, tasks)


def _place(path: Path, tasks: dict[tuple[Path, str], TaskFiles]) -> None:
    match = _WITH_ROLE.fullmatch(path.stem)
    name, role = (match["name"], ROLES[match["role"].lower()]) if match else (path.stem, "train")
    tasks.setdefault((path.parent, name), TaskFiles(name)).add(role, path)


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _complete(task: TaskFiles) -> TaskFiles:
    if "train" not in task.files:
        shown = [str(path) for path in task.files.values()]
        way_out = "Put a train file beside it, or list the tasks' files under 'tasks'"
        raise StreamError(describe(f"task {task.name!r}", "has no train file", shown, way_out))
    if "evaluation" not in task.files and "validation" in task.files:
        task.files["evaluation"] = task.files.pop("validation")
    return task
