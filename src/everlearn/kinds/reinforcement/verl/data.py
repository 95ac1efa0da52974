"""A recipe's problems as Parquet files that verl's trainers read."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from everlearn.kinds.reinforcement.recipe import ReinforcementRecipe
from everlearn.kinds.reinforcement.verl.limits import lacks
from everlearn.streams.countdown.draw import SPLITS
from everlearn.streams.countdown.generate import SCHEMA, Order, generate
from everlearn.streams.countdown.groups import Space, folder_of
from everlearn.streams.countdown.stream import CountdownStream
from everlearn.streams.files import FileStream
from everlearn.streams.folders import TaskFiles, find_tasks

RECORD = ("data_source", "prompt", "reward_model")  # what verl reads of a row
_PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)  # a folder's name that needs no quotes anywhere
_MADE = "Make such files: everlearn countdown generate"


@dataclass(frozen=True)
class Group:
    """A task's problems. folder: its name; n_problems: to learn."""

    folder: str
    n_problems: int


def write_data(recipe: ReinforcementRecipe, folder: Path) -> tuple[dict[str, Group], list[str]]:
    """Write each task's problems as `folder/GROUP/{train,test}.parquet`; those of files are copied.

    Returns:
        The groups by the names of their tasks, in the stream's order; sentences on them that the user should know.

    Raises:
        ConfigError: if they are no Countdown, or of another shape. StreamError: if there are too few, or files are
            missing. StateError: if they can't be written.
    """
    stream, notes = recipe.build_stream(), []
    if isinstance(stream, CountdownStream):
        order = _order(stream)
        generate(order, folder, done=lambda group, of_group: notes.extend(of_group))
        folders = {group: folder_of(group) for group in order.groups}
    elif isinstance(stream, FileStream):
        found = _found(stream)
        folders = {files.name: files.name for files in found}
        for files in found:
            (folder / files.name).mkdir(parents=True)
            for split, role in zip(SPLITS, ("train", "evaluation"), strict=True):
                shutil.copyfile(files.files[role], folder / files.name / f"{split}.parquet")
    else:
        raise lacks("stream.name", recipe.stream["name"], "Use the stream countdown, or files of it")
    groups = {}
    for name, own in folders.items():
        groups[name] = Group(own, pq.read_metadata(folder / own / f"{SPLITS[0]}.parquet").num_rows)
    return groups, notes


def _order(stream: CountdownStream) -> Order:
    """Return what draws the problems that the stream would."""
    if stream.tags != "both":
        raise lacks("stream.tags", stream.tags, "Write both: verl's reward sees the response alone")
    ranges = (stream.min_number, stream.max_number, stream.min_target, stream.max_target)
    space = Space("3", tuple(stream.sizes), *ranges, stream.require_new_operator)
    groups = tuple(map(str, stream.groups))
    return Order(space, groups, stream.n_train, stream.n_eval, stream.prompt, stream.data_seed)


def _found(stream: FileStream) -> list[TaskFiles]:
    """Return the files of the stream's tasks, checked to be records that verl reads and the reward understands."""
    paths = [stream.paths] if isinstance(stream.paths, str) else stream.paths
    found = {files.name: files for files in find_tasks([Path(path).expanduser() for path in paths])}
    chosen = stream.tasks or list(found)
    if not all(isinstance(name, str) and name in found for name in chosen):
        raise lacks("stream.tasks", stream.tasks, f"Name some of {', '.join(found)}")
    for name in chosen:
        if not _PLAIN.fullmatch(name):
            raise lacks(f"task {name!r}", name, "Name its folder with letters, digits, _ . and - alone")
        if not {"train", "evaluation"} <= set(found[name].files):
            raise lacks(f"task {name!r}", sorted(found[name].files), f"It needs files to train and to test. {_MADE}")
        for path in found[name].files.values():
            if not _is_of_records(path):
                raise lacks(str(path), path.name, _MADE)
    return [found[name] for name in chosen]


def _is_of_records(path: Path) -> bool:
    if path.suffix.lower() != ".parquet":
        return False
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid:
        return False
    return all(name in schema.names and schema.field(name).type == SCHEMA.field(name).type for name in RECORD)
