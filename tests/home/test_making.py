"""A new home's files."""

import json
from pathlib import Path

import pytest

from everlearn.errors import StateError
from everlearn.home.making import SCHEMA, make_home
from everlearn.home.settings import settings_from
from everlearn.home.store import Store


def test_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"can't be written \(Not a directory\)"):
        make_home(tmp_path / "file" / "home", settings_from({}), {})
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_first_files(tmp_path: Path) -> None:
    path = tmp_path / "below" / "home"
    make_home(path, settings_from({"model": {"name": "pocket"}, "seed": 3}), {"config.json": "abc"})
    content = json.loads((path / "home.json").read_text())
    assert (content["schema"], content["settings"]["seed"], content["base"]) == (SCHEMA, 3, {"config.json": "abc"})
    assert sorted(found.name for found in path.iterdir()) == ["current", "home.json", "log.jsonl", "tasks", "versions"]
    store = Store(path)
    assert (store.current(), store.numbers(), store.version(0).status) == (0, [0], "initial")
    assert [(event["event"], event["model"]) for event in store.events()] == [("init", "pocket")]
    assert [found.name for found in path.parent.iterdir()] == ["home"]
