"""Where the rows of a task are: a folder of its own, a copy of a data set of the hub, or the hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from everlearn.errors import StreamError, describe
from everlearn.streams.domains.table import HUB_EXPORT, Entry
from everlearn.streams.folders import ROLES
from everlearn.streams.reading import SUFFIXES, Data, as_row

_SUFFIXES = (*SUFFIXES, ".json")


class Missing(StreamError):
    """The rows of a task aren't there to be read; another error tells that they can't be read now."""


def find_data(name: str, entry: Entry, folder: Path | None) -> dict[str, Data]:
    """Return for each role (train, evaluation, validation) a task's file or rows.

    Args:
        folder: holds NAME/train.* and NAME/test.* (or NAME/validation.*), NAME being the task's or one of
            `entry.folders`; or a copy of the hub's repository under its id. None: the hub itself.

    Raises:
        Missing: if there is nothing there, or no data set of the hub is known.
        StreamError: if a file can't be read, or the hub can't be reached.
    """
    if folder is None:
        return _from_hub(name, entry, entry.hub)
    for place in (folder / own for own in (name, *entry.folders)):
        if files := _files_in(name, place):
            return files
    if entry.hub is not None and (folder / entry.hub).is_dir():
        return _from_hub(name, entry, str(folder / entry.hub))
    looked = [f"{own}/train.*" for own in (name, *entry.folders)] + ([f"{entry.hub}/"] if entry.hub else [])
    way_out = f"Put there one of: {', '.join(looked)}; or set skip_missing: true to do without"
    if entry.hub is not None:
        way_out += f"; or leave folder out to load {entry.hub} from the hub"
    raise Missing(describe(f"task {name!r}", "its rows are not in the folder", str(folder), way_out))


def _files_in(name: str, place: Path) -> dict[str, Data]:
    """Return the files of a folder by role; none where it has no train file. Beside a test file, eval is validation."""
    if not place.is_dir():
        return {}
    paths = sorted(path for path in place.iterdir() if path.suffix.lower() in _SUFFIXES)
    roles = ROLES | ({"eval": "validation"} if any(path.stem.lower() == "test" for path in paths) else {})
    found: dict[str, Path] = {}
    for path in paths:
        role = roles.get(path.stem.lower())
        if role is None:
            continue
        if role in found:
            files = [str(found[role]), str(path)]
            raise StreamError(describe(f"task {name!r}", f"there are two files for {role}", files, "Remove one"))
        found[role] = path
    if "train" not in found:
        return {}
    if "evaluation" not in found and "validation" in found:
        found["evaluation"] = found.pop("validation")
    return {role: _json_rows(name, path) if path.suffix.lower() == ".json" else path for role, path in found.items()}


def _json_rows(name: str, path: Path) -> list[dict[str, Any]]:
    """Return the rows of one JSON value: a list of objects, objects by id, or a list under "Instances"."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        way_out = "Write a list of objects, or one object a line into a .jsonl file"
        raise StreamError(describe(f"task {name!r}", f"{path} is no JSON ({error})", path.name, way_out)) from error
    if isinstance(content, Mapping):
        content = content.get("Instances", list(content.values()))
    if not isinstance(content, list) or any(isinstance(as_row(row), str) for row in content):
        way_out = "Write a list of objects"
        raise StreamError(describe(f"task {name!r}", f"{path} holds no rows", type(content).__name__, way_out))
    return content


def _from_hub(name: str, entry: Entry, place: str | None) -> dict[str, Data]:
    """Return the splits of a data set of the hub, or of a copy of it in a folder."""
    where = f"task {name!r}"
    if place is None:
        way_out = "Give folder: with a folder for each task, as docs/streams.md says"
        raise Missing(describe(where, "no data set of the hub is known for it", name, way_out))
    splits = dict(entry.splits)
    options: dict[str, Any] = {"name": entry.config}
    if entry.exported:
        files = {split: f"{entry.config or '*'}/{split}/*.parquet" for split in splits.values()}
        options = {"data_files": files} | ({"revision": HUB_EXPORT} if place == entry.hub else {})
    try:
        loaded = datasets.load_dataset(place, split=list(splits.values()), **options)
    except (OSError, ValueError, RuntimeError) as error:  # offline, unknown, gated; no such split; a script
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        way_out = (
            f"Connect (HF_HUB_OFFLINE must not be set), or give folder: with {name}/train.* and {name}/test.*, "
            f"or with a copy of the data set in {entry.hub}/"
        )
        raise StreamError(describe(where, f"{entry.hub_name()} can't be loaded ({reason})", place, way_out)) from error
    return dict(zip(splits, loaded, strict=True))
