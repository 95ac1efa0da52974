"""What the tests of the export share: a folder that was written, problems as files, and a Python that has verl."""

import os
from pathlib import Path

import pytest

from everlearn.kinds.reinforcement.verl.export import export_verl
from everlearn.streams.countdown.generate import Order, generate
from everlearn.streams.countdown.groups import Space
from support.countdown import recipe_with


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's folder."""
    out = tmp_path_factory.mktemp("verl") / "countdown"
    assert export_verl(recipe_with(), out, "small") == []
    return out


@pytest.fixture(scope="session")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups 0 to 3 in files, 130 and 6 problems each."""
    out = tmp_path_factory.mktemp("data") / "continual"
    generate(Order(Space(sizes=(3,), max_number=30), n_train=130, n_test=6), out)
    return out


@pytest.fixture(scope="session")
def verl_python() -> str:
    """A Python that has verl, named by EVERLEARN_VERL_PYTHON; skips without it."""
    if "EVERLEARN_VERL_PYTHON" not in os.environ:
        pytest.skip("no verl: EVERLEARN_VERL_PYTHON names no Python that has it")
    return os.environ["EVERLEARN_VERL_PYTHON"]
