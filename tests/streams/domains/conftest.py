import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest

_TYPES = {str: "string", float: "float64", int: "int64"}
Write = Callable[[str, Iterable[Mapping[str, Any]]], None]


@pytest.fixture
def write(tmp_path) -> Write:
    """Write rows to a file below the test's folder: JSON Lines, or one JSON value where its name ends in .json."""

    def written(name: str, rows: Any) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(rows)] if path.suffix == ".json" else [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return written


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The working folder, which `datasets` takes for the hub where it holds a folder of a data set's id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def to_hub(hub) -> Callable[..., None]:
    """Write a Parquet file as a repository of the hub holds it. names: column -> its labels, of a row or of a token."""

    def written(name: str, columns: Mapping[str, list[Any]], names: Mapping[str, list[str]] | None = None) -> None:
        features = {}
        for column, (first, *_) in columns.items():
            each = first[0] if isinstance(first, list) else first
            labels = (names or {}).get(column)
            feature = datasets.ClassLabel(names=labels) if labels else datasets.Value(_TYPES[type(each)])
            features[column] = datasets.List(feature) if isinstance(first, list) else feature
        path = hub / name
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(dict(columns), features=datasets.Features(features)).to_parquet(path)

    return written
