import io

from rich.console import Console

from everlearn.report.progress import ProgressBars
from support.tasks import prompt_task


def test_a_bar_shows_rows_being_read_where_they_are_many_and_gives_way_to_the_training():
    task, out = prompt_task(0), io.StringIO()
    with ProgressBars(Console(file=out, force_terminal=True, width=100)) as bars:
        bars.encoding(task, 500, 500)
        assert not bars._bars.tasks
        bars.encoding(task, 1000, 2500)
        bars.encoding(task, 2000, 2500)
        (bar,) = bars._bars.tasks
        assert (bar.description, bar.completed, bar.total) == (f"reading {task.name}", 2000, 2500)
        bars.encoding(task, 2500, 2500)
        assert bar.finished
        bars.training(task, 10, 0)
        (bar,) = bars._bars.tasks
        assert bar.total == 10
