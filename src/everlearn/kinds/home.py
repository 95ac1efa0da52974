"""A model home as what one goes on with: its learning that was paused or killed."""

from pathlib import Path

from rich.console import Console

from everlearn.home import Home
from everlearn.home.learning import LearnReport
from everlearn.home.views import report_lines
from everlearn.kind import Folder
from everlearn.listener import Listener
from everlearn.registry import register

REFUSED = 2  # exit code


@register("run", "home")
class ModelHome(Folder):
    """Teach a home's model a task, judged by the gate. Begun by `everlearn learn`."""

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return Home.is_home(folder)

    @classmethod
    def resume(cls, folder: Path, listener: Listener) -> LearnReport:
        return Home.open(folder, listener).resume()

    @classmethod
    def finish(cls, folder: Path, came_of: LearnReport, listener: Listener, console: Console) -> int:
        for line in report_lines(came_of, str(folder), listener.told):
            console.print(line, markup=False, highlight=False)
        return 0 if came_of.promoted else REFUSED
