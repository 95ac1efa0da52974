"""A grid to begin with."""

from pathlib import Path

from everlearn.errors import ConfigError, describe
from everlearn.state import write_file

START = """\
recipe:
  stream: {name: arena, types: [math, logic, sequence], difficulty: 1, n_train: 64, n_validation: 16, n_eval: 40}
  learner: {name: sft, epochs: 2, learning_rate: 4e-3, early_stopping: false}
methods: [none, replay, ewc, joint]
seeds: [0, 1]
"""


def write_start(path: Path) -> None:
    """Write a grid that takes about a minute: four methods on the pocket model, two seeds each.

    Raises:
        ConfigError: if the file is there already.
    """
    if path.exists():
        raise ConfigError(describe("--init", "the file is there already", str(path), "Name a new one"))
    write_file(path.absolute(), START.encode())
