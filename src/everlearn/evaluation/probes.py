"""The names of what can be watched of a base model's abilities (evaluation/abilities.py measures them)."""

from collections.abc import Sequence
from pathlib import Path

from everlearn.errors import ConfigError, describe, nearest

SELF, ARENA = "self", "arena"
TEXT_FILES = (".txt", ".md")
FILES = (*TEXT_FILES, ".jsonl", ".csv", ".tsv", ".parquet")


def check_abilities(where: str, names: Sequence[str]) -> None:
    """Raise ConfigError if one of the names is no ability, or stands twice."""
    for name in names:
        if name not in (SELF, ARENA) and (Path(name).suffix.lower() not in FILES or "\0" in name):
            way_out = f"{nearest(name, (SELF, ARENA))}Write self, arena, or a file ({', '.join(FILES)})"
            raise ConfigError(describe(where, "is no ability", name, way_out))
    if len(set(names)) < len(names):
        raise ConfigError(describe(where, "names an ability twice", list(names), "Name each once"))
