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


def test_a_bar_shows_how_many_answers_were_right_where_a_learner_tells():
    task, out = prompt_task(0), io.StringIO()
    with ProgressBars(Console(file=out, force_terminal=True, width=100)) as bars:
        bars.training(task, 10, 0)
        assert bars._bars.tasks[0].fields["told"] == ""
        bars.iteration(1, 0.432)
        bars.step(1, -0.05)
        (bar,) = bars._bars.tasks
        assert (bar.fields["told"], bar.completed) == ("right 43%", 1)
        bars.training(task, 10, 0)  # a learner that tells of no answers
        bars.step(1, 0.5)
        assert bars._bars.tasks[0].fields["told"] == "loss 0.500"
