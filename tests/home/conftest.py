"""A home with two small learnings, made once and copied for each test; classification, because that scores fast."""

import shutil
from pathlib import Path

import pytest

from everlearn.home import Gate, Home
from everlearn.home.settings import settings_from
from support.home import rows

LEARNER = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01}


COLOURS, ANIMALS = ("red", "green"), ("cat", "dog")


@pytest.fixture(scope="session")
def made_home(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the tasks colours and animals, at version 2. Not to be changed."""
    path = tmp_path_factory.mktemp("homes") / "made"
    home = Home.create(
        path, settings=settings_from({"model": {"name": str(bert)}, "learner": LEARNER, "device": "cpu"})
    )
    home.learn("colours", rows(COLOURS, 12), rows(COLOURS, 8, 30))
    home.learn("animals", rows(ANIMALS, 12), rows(ANIMALS, 8, 30), gate=Gate(1.0))
    assert home.current == 2
    return path


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Home:
    """A copy of the made home, to do with as a test likes."""
    shutil.copytree(made_home, tmp_path / "home")
    return Home.open(tmp_path / "home")
