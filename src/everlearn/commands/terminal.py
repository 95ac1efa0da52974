"""The terminal that all commands write to."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console

from everlearn.errors import ConfigError, describe

if TYPE_CHECKING:
    from everlearn.kind import Folder
    from everlearn.listener import Listener

console = Console()


def bars(kind: "type[Folder] | None" = None) -> "AbstractContextManager[Listener]":
    """Return a listener that draws progress as the kind of run does; on other processes than the first, nothing."""
    from everlearn.kind import Folder
    from everlearn.listener import Listener

    return (kind or Folder).bars(console) if is_first_process() else nullcontext(Listener())


def is_first_process() -> bool:
    """Tell whether this is the process that writes and shows."""
    return os.environ.get("RANK", "0") == "0"


def check_one_process(command: str) -> None:
    """Refuse to run under torchrun."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        way_out = "Start it without torchrun"
        raise ConfigError(describe(command, "runs in one process", os.environ["WORLD_SIZE"], way_out))
