"""A tiny Llama with a LoRA of its own, and a library of it."""

import os
from pathlib import Path

import pytest

from everlearn.experts import Library
from everlearn.experts.base import Base
from everlearn.models.load import AdapterConfig, Model, ModelConfig, load_model
from support.tasks import prompt_task


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives the machine, and waiting for its disk is most of the time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def load(folder: Path, rank: int = 4, **options: object) -> Model:
    return load_model(ModelConfig(str(folder), AdapterConfig(rank=rank, **options)), [prompt_task(0)])


@pytest.fixture
def model(llama: Path) -> Model:
    """A model to be changed."""
    return load(llama)


@pytest.fixture(scope="session")
def still(llama: Path) -> Model:
    """A model that no test changes."""
    return load(llama)


@pytest.fixture(scope="session")
def base(still: Model) -> Base:
    return Base.of(still)


@pytest.fixture
def library(still: Model, tmp_path: Path) -> Library:
    """An empty library of the tiny Llama."""
    return Library.create(tmp_path / "library", still, rank=8, max_loaded=2)
